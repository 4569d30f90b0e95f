"""Every wrong use in the list gives its message."""

import warnings

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

import swd_jax
from tests.package.wrong_uses import WRONG_USES

ALL = [use for uses in WRONG_USES.values() for use in uses]

# What only Python or jax would say, and what a reader cannot use.
INTERNALS = ("zip()", "Traceback", "Tracer<", "object at 0x", "PyTreeDef", "<locals>")


def apply(params, x):
    hidden = jax.nn.relu(x @ params["dense"]["kernel"])
    hidden = hidden + params["dense"]["bias"][None]
    return hidden @ params["head"]["kernel"] + params["head"]["bias"][None]


def score(weights, statistic, gradient):
    del statistic
    return weights * gradient


def make_names(folder):
    """The names of the code in the list."""
    params = {
        "dense": {"kernel": np.ones((4, 8), np.float32), "bias": np.zeros(8)},
        "head": {"kernel": np.ones((8, 2), np.float32), "bias": np.zeros(2)},
    }
    params = jax.tree.map(lambda array: jnp.asarray(array, jnp.float32), params)

    def widened(array):
        return jnp.ones((*array.shape[:-1], 2 * array.shape[-1]))

    inputs = jnp.ones((2, 4))
    (folder / "no_archive.npz").write_text("no archive")
    swd_jax.io.save_sparse(folder / "saved.npz", params)
    public = {name: getattr(swd_jax, name) for name in dir(swd_jax) if name[0] != "_"}
    channels = vars(swd_jax.channels)
    return {
        **public,
        **{name: item for name, item in channels.items() if name[0] != "_"},
        "jax": jax,
        "jnp": jnp,
        "optax": optax,
        "params": params,
        "wide_params": jax.tree.map(widened, params),
        "gradients": params,
        "mask": jax.tree.map(lambda array: np.ones(array.shape, bool), params),
        "adam_state": optax.adam(0.1).init(params),
        "swd_state": swd_jax.swd(0.9, weight_decay=1e-4, a=1.0).init(params),
        "sparsify_state": swd_jax.sparsify(0.9, 100).init(params),
        "train_state": TrainState.create(
            apply_fn=apply, params=params, tx=optax.sgd(0.1)
        ),
        "inputs": inputs,
        "apply": apply,
        "score": score,
        "linen_model": flax.linen.Dense(3),
        "groups": swd_jax.channels.channel_groups(apply, params, inputs),
        "kept": {"dense": np.arange(8) < 4},
    }


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    return make_names(tmp_path_factory.mktemp("files"))


@pytest.fixture
def in_folder(tmp_path_factory, monkeypatch, names):
    del names
    monkeypatch.chdir(tmp_path_factory.getbasetemp() / "files0")


@pytest.mark.usefixtures("in_folder")
@pytest.mark.parametrize("use", ALL, ids=[use.code.replace("\n", " ") for use in ALL])
def test_a_wrong_use_gives_its_message(use, names):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(use.error) as caught:
            exec(use.code, dict(names))  # noqa: S102
    assert type(caught.value) is use.error
    text = str(caught.value)
    if use.message.endswith("..."):
        assert text.startswith(use.message.removesuffix("..."))
    else:
        assert text.split("\n", maxsplit=1)[0] == use.message
    assert not any(internal in text for internal in INTERNALS)


def test_the_list_is_long_and_has_each_use_once():
    assert len(ALL) >= 80
    assert len({use.code for use in ALL}) == len(ALL)
