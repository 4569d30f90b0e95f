"""The package as a whole: what it exports, imports and compiles for."""

import ast
import importlib.metadata
import inspect
import pathlib
import subprocess
import sys
import tomllib

import jax
import jax.numpy as jnp
import optax
import pytest
from jax import export

import swd_jax

SOURCES = sorted(pathlib.Path(swd_jax.__file__).parent.glob("**/*.py"))
TOP = pathlib.Path(swd_jax.__file__).parent
FLAT = {name: item for name, item in vars(swd_jax).items() if not name.startswith("_")}
NAMESPACES = {name: item for name, item in FLAT.items() if inspect.ismodule(item)}


def public_items():
    """Return what users reach, by its path: "swd", "schedules.rewind", ..."""
    items = {name: item for name, item in FLAT.items() if name not in NAMESPACES}
    for namespace, module in NAMESPACES.items():
        items |= {
            f"{namespace}.{name}": item
            for name, item in vars(module).items()
            if not name.startswith("_") and not inspect.ismodule(item)
        }
    return items


PUBLIC = public_items()
FUNCTIONS = {name: item for name, item in PUBLIC.items() if inspect.isfunction(item)}
# Aliases of types, such as those of `swd_jax.typing`, are no classes of ours.
CLASSES = {
    name: item
    for name, item in PUBLIC.items()
    if inspect.isclass(item) and item.__module__.startswith("swd_jax")
}


def in_another_process(code: str) -> str:
    """What a fresh interpreter prints."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


class TestNames:
    def test_are_those_that_users_rely_on(self):
        flat = (
            "Target Unstructured NM Block Channel CoupledChannels swd decoupled_swd "
            "proximal_swd SwdState prune prune_mask keep_pruned summarize "
            "exponential_growth cubic_sparsity bound_multiplier"
        )
        assert set(flat.split()) <= FLAT.keys()
        namespaces = "criteria schedules methods channels io reports structures typing"
        assert NAMESPACES.keys() == set(namespaces.split())
        nested = (
            "criteria.magnitude criteria.normalized_magnitude criteria.Criterion "
            "schedules.largest_stable_multiplier methods.rigl channels.shrink "
            "io.save_sparse io.load_sparse reports.Summary structures.Structure"
        )
        assert set(nested.split()) <= PUBLIC.keys()

    def test_are_all_from_this_package(self):
        for name, item in FUNCTIONS.items():
            assert item.__module__.startswith("swd_jax."), name
        for name, item in {**FUNCTIONS, **CLASSES}.items():
            assert item.__name__ == name.rpartition(".")[2]

    @pytest.mark.parametrize("name", NAMESPACES)
    def test_of_namespaces_are_documented(self, name):
        assert inspect.getdoc(NAMESPACES[name])

    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_of_functions_are_documented_with_arguments_and_an_example(self, name):
        text = inspect.getdoc(FUNCTIONS[name])
        for section in ("Args:", "Returns:", "Examples:", ">>>"):
            assert section in text
        for argument in inspect.signature(FUNCTIONS[name]).parameters:
            assert f"\n  {argument}:" in text

    @pytest.mark.parametrize("name", CLASSES)
    def test_of_classes_are_documented(self, name):
        text = CLASSES[name].__doc__
        # Dataclasses make up one of their own: the signature.
        assert text
        assert not text.startswith(f"{CLASSES[name].__name__}(")

    @pytest.mark.parametrize(
        "name", ["swd", "decoupled_swd", "proximal_swd", "keep_pruned"]
    )
    def test_of_transformations_say_where_they_stand_in_a_chain(self, name):
        text = inspect.getdoc(FUNCTIONS[name])
        assert "Where it stands:" in text
        place = (
            "BEFORE" if name == "swd" else "LAST" if name == "keep_pruned" else "AFTER"
        )
        assert place in text.splitlines()[0]


class TestImport:
    def test_takes_nothing_along_but_jax_and_optax(self):
        code = (
            "import sys, jax, optax\n"
            "before = set(sys.modules)\n"
            "import swd_jax\n"
            "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
        )
        new = set(in_another_process(code).split())
        assert "swd_jax" in new
        frameworks = "flax chex haiku equinox sklearn matplotlib rich tyro pandas torch"
        assert not new & set(frameworks.split())
        # Parts of jax that jax itself has not imported yet are no other package.
        assert new - {"swd_jax", "jax"} <= set(sys.stdlib_module_names)

    def test_does_not_start_a_device(self):
        # So that flags for jax can still be set after it.
        code = (
            "import swd_jax, jax\n"
            "jax.config.update('jax_platforms', 'cpu')\n"
            "jax.config.update('jax_num_cpu_devices', 3)\n"
            "print(jax.device_count())"
        )
        assert in_another_process(code) == "3\n"


class TestSources:
    def test_are_found(self):
        assert len(SOURCES) > 10

    def test_lie_in_folders_but_for_two_modules_at_most(self):
        files = {path.name for path in TOP.iterdir() if path.is_file()}
        assert {"__init__.py", "py.typed"} <= files
        modules = {name for name in files - {"__init__.py"} if name.endswith(".py")}
        assert len(modules) <= 2, modules
        assert files == {"__init__.py", "py.typed"} | modules

    @pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
    def test_import_nothing_private_of_jax_or_optax(self, path):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Attribute):
                names = [ast.unparse(node)]
            for name in names:
                assert not name.startswith(("optax._src", "jax._src", "jaxlib")), name


class TestDistribution:
    def test_is_typed(self):
        assert (TOP / "py.typed").is_file()

    def test_has_the_version_of_its_metadata_and_of_pyproject(self):
        assert swd_jax.__version__ == importlib.metadata.version("swd-jax")
        pyproject = pathlib.Path(__file__).parents[2] / "pyproject.toml"
        project = tomllib.loads(pyproject.read_text())["project"]
        assert swd_jax.__version__ == project["version"]

    def test_needs_no_more_than_the_five_it_names(self):
        needed = [
            requirement
            for requirement in importlib.metadata.requires("swd-jax")
            if "extra ==" not in requirement
        ]
        names = {requirement.split(">")[0].split("!")[0] for requirement in needed}
        assert names <= {"chex", "flax", "jax", "jaxlib", "optax"}


class TestLowering:
    """It compiles for accelerators that this machine need not have."""

    PARAMS = {
        "bias": jnp.zeros(8, jnp.bfloat16),
        "conv": {"kernel": jnp.ones((3, 3, 4, 8), jnp.bfloat16)},
        "dense": {"kernel": jnp.ones((32, 10), jnp.float32)},
    }
    TARGET = swd_jax.Target(
        swd_jax.cubic_sparsity(0.9, 0, 100), criterion="normalized_magnitude"
    )

    @pytest.mark.parametrize("platform", ["tpu", "cuda"])
    @pytest.mark.parametrize("form", ["swd", "decoupled_swd", "proximal_swd"])
    def test_of_an_update(self, form, platform):
        rate = {} if form == "swd" else {"learning_rate": 0.1}
        tx = getattr(swd_jax, form)(
            self.TARGET,
            weight_decay=5e-4,
            a=swd_jax.exponential_growth(0.1, 1e4, 100),
            update_every=2,
            **rate,
        )
        chain = optax.chain(tx, optax.sgd(0.1, momentum=0.9))
        state = chain.init(self.PARAMS)
        exported = export.export(jax.jit(chain.update), platforms=[platform])(
            self.PARAMS, state, self.PARAMS
        )
        assert exported.platforms == (platform,)
        shapes = [(leaf.shape, leaf.dtype) for leaf in exported.out_avals]
        outputs = jax.tree.leaves((self.PARAMS, state))
        assert shapes == [(leaf.shape, leaf.dtype) for leaf in outputs]

    @pytest.mark.parametrize("platform", ["tpu", "cuda"])
    def test_of_prune_and_its_mask(self, platform):
        def both(params, step):
            return (
                swd_jax.prune(params, self.TARGET, step=step),
                swd_jax.prune_mask(params, swd_jax.Target(0.5, scope="local")),
            )

        exported = export.export(jax.jit(both), platforms=[platform])(self.PARAMS, 3)
        assert exported.platforms == (platform,)
        dtypes = [leaf.dtype for leaf in exported.out_avals]
        expected = [leaf.dtype for leaf in jax.tree.leaves(self.PARAMS)]
        assert dtypes == [*expected, *[jnp.bool_] * 3]
