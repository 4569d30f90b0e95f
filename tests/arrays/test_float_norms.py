"""Norms by floating-point sums against NumPy, on one device and in shards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swd_jax._arrays.float_norms import leaf_l2_norms
from swd_jax._arrays.manual_sharding import find_shards

RNG = np.random.default_rng(0)
LEAVES = [RNG.normal(size=shape) for shape in [(300, 40), (7,), (), (0, 3), (2, 3, 4)]]


def in_numpy(leaves):
    return [np.sqrt(np.square(np.asarray(x, np.float64)).sum()) for x in leaves]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_they_are_those_of_numpy(dtype):
    with jax.enable_x64(dtype == "float64"):
        leaves = [jnp.asarray(leaf, dtype) for leaf in LEAVES]
        found = jax.jit(lambda leaves: leaf_l2_norms(leaves, dtype))(leaves)
        assert (found.shape, found.dtype) == ((5,), dtype)
    rtol = 1e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(found, in_numpy(LEAVES), rtol=rtol)


def test_leaves_of_different_types_have_norms_of_the_wider_one():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        leaves = [jnp.asarray(LEAVES[0], "float32"), jnp.asarray(LEAVES[1])]
        found = leaf_l2_norms(leaves, jnp.float64)
        assert found.dtype == jnp.float64
    np.testing.assert_allclose(found[0], in_numpy(LEAVES)[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], in_numpy(LEAVES)[1], rtol=1e-14)


def test_a_leaf_with_squares_beyond_the_type_does_not_touch_the_others():
    leaves = [jnp.full(3, 1e30), jnp.full(4, 2.0), jnp.zeros(2)]
    np.testing.assert_array_equal(leaf_l2_norms(leaves, jnp.float32), [np.inf, 4, 0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_leaf(bad):
    leaves = [jnp.array([3.0, 4.0]), jnp.array([1.0, bad]), jnp.array([[12.0], [5.0]])]
    found = np.asarray(leaf_l2_norms(leaves, jnp.float32))
    np.testing.assert_array_equal(found[[0, 2]], [5, 13])


def test_parts_are_summed():
    """Those of a leaf on two devices, here under `vmap`."""
    whole = jnp.asarray(LEAVES[0], jnp.float32)

    def norms(part):
        return leaf_l2_norms([part], jnp.float32, find_shards([part], "parts"))

    found = jax.vmap(norms, axis_name="parts")(whole.reshape(2, 150, 40))
    expected = [in_numpy(LEAVES)[:1]] * 2
    np.testing.assert_allclose(found, expected, rtol=1e-6)
