"""Settings that every test shares."""

import gc
import importlib.metadata
import os
import tempfile

import hypothesis
import jax
import pytest

from tests.helpers import quickly

# The same cases in every run: a failure is the change's, not the day's.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")

# Arrays of different ranks meet only where the code says so.
jax.config.update("jax_numpy_rank_promotion", "raise")

# Tracing makes many objects that live on: looking through them is often in vain.
gc.set_threshold(50_000)


# These two flags save a third of the time of compiling small programs on a CPU, and do
# not change what is computed. XLA aborts at an unknown flag, so each is set only for
# releases of jaxlib that were tried: 0.12 has no flag for the fusion emitters.
FLAGS = {
    "--xla_cpu_use_fusion_emitters=false": (0, 11),
    "--xla_cpu_parallel_codegen_split_count=1": (0, 13),
}


def set_flags():
    """Set XLA_FLAGS, which XLA reads when jax first compiles, not at import."""
    version = importlib.metadata.version("jaxlib")
    release = tuple(map(int, version.split(".")[:2]))
    flags = [flag for flag, removed_in in FLAGS.items() if release < removed_in]
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags])


def pytest_configure(config):
    """Compile what is the same in many tests once, however small it is.

    Each process has a folder of its own, since jax reads programs that another
    process may not have finished writing, and begins with an empty one: no program
    outlives the run.
    """
    set_flags()
    folder = tempfile.TemporaryDirectory(prefix="compiled-")
    config.add_cleanup(folder.cleanup)
    jax.config.update("jax_compilation_cache_dir", folder.name)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="module", autouse=True)
def compile_quickly(request):
    """Make XLA optimize less, except where the optimization itself is tested.

    Programs are dropped only where the next module needs the other kind: modules of one
    kind share what they trace and compile.
    """
    is_optimized = request.node.path.parent.name in OPTIMIZED_FOLDERS
    quickly.set_optimization(is_optimized)


# The folder of the workarounds for XLA's CPU backend and of comparisons of subnormal
# numbers, which depend on LLVM's passes.
OPTIMIZED_FOLDERS = {"arrays"}
