"""Random chains: jitted as unjitted, donated as kept, and restored as never saved."""

import pickle

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest

from tests.fuzz import many_cases
from tests.fuzz.random_chains import RandomChain
from tests.helpers import quickly

# Other tests run all lines of the library that these do.
pytestmark = pytest.mark.no_cover


def copies(tree):
    return jax.tree.map(jnp.array, tree)


def assert_same_types(first, second):
    first, second = jax.eval_shape(lambda: first), jax.eval_shape(lambda: second)
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)


def assert_identical(first, second):
    assert_same_types(first, second)
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def assert_close(first, second):
    """Compare whole numbers exactly, and others to the rounding of some dtype in it."""
    assert_same_types(first, second)
    floats = [
        leaf.dtype
        for leaf in jax.tree.leaves(first)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    # Numbers of float32 may be computed from weights of bfloat16.
    eps = max(float(jnp.finfo(dtype).eps) for dtype in floats)
    pairs = jax.tree.leaves_with_path(first), jax.tree.leaves(second)
    for (path, one), other in zip(*pairs, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        if not jnp.issubdtype(one.dtype, jnp.floating):
            np.testing.assert_array_equal(one, other, jax.tree_util.keystr(path))
            continue
        one, other = one.astype(np.float64), other.astype(np.float64)
        largest = np.abs(other[np.isfinite(other)]).max(initial=1e-30)
        np.testing.assert_allclose(
            one,
            other,
            rtol=64 * eps,
            atol=16 * eps * largest,
            err_msg=jax.tree_util.keystr(path),
        )


def steps_of(chain):
    """Return one step of the chain, as it is and compiled with donated arguments."""

    def step(params, state, gradients):
        updates, state = chain.tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return step, quickly.jit(step, donate_argnums=(0, 1))


def check(chain, checkpointer=None, folder=None):
    step, compiled = steps_of(chain)
    original = chain.params()
    params, state = copies(original), chain.tx.init(original)
    for number in range(chain.steps):
        gradients = chain.gradients(number)
        before = state
        # Both from the same numbers: rounding must not add up to another selection.
        expected = step(*copies((params, state)), gradients)
        kept = copies((params, state))
        params, state = compiled(params, state, gradients)
        assert_same_types(state, before)
        assert_close((params, state), expected)
        # The same program where nothing is donated: its arguments are copies.
        assert_identical(compiled(*copies(kept), gradients), (params, state))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(original))
    gradients = chain.gradients(chain.steps)
    last = compiled(*copies((params, state)), gradients)
    for restored in restorations(chain, state, checkpointer, folder):
        assert_same_types(restored, state)
        assert_identical(compiled(copies(params), copies(restored), gradients), last)


def restorations(chain, state, checkpointer, folder):
    """Return the state after it was saved in different ways."""
    template = chain.tx.init(chain.params())
    as_dict = flax.serialization.to_state_dict(state)
    yield flax.serialization.from_state_dict(template, as_dict)
    # Flax writes no OrderedDict as bytes.
    if "named_chain" not in chain.names:
        as_bytes = flax.serialization.to_bytes(state)
        yield flax.serialization.from_bytes(template, as_bytes)
    yield pickle.loads(pickle.dumps(jax.device_get(state)))
    leaves, treedef = jax.tree.flatten(state)
    yield jax.tree.unflatten(treedef, [np.asarray(leaf) for leaf in leaves])
    if checkpointer is not None:
        checkpointer.save(folder / "state", state, force=True)
        checkpointer.wait_until_finished()
        yield checkpointer.restore(folder / "state", template)


def test_a_few_chains_agree():
    many_cases.check_all(RandomChain, check, [11])


@pytest.mark.fuzz
def test_many_chains_agree(tmp_path):
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        many_cases.check_all(
            RandomChain,
            lambda chain: check(chain, checkpointer, tmp_path),
            many_cases.seeds(200),
        )
