"""Exact norms, of leaves and along axes, against NumPy in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swd_jax._arrays import axis_norms, exact_norms

# float32 goes from 1.2e-38 to 3.4e38.
SCALES = [2e-36, 1e-20, 1.0, 1e20, 1.5e38, 3e38]


def norm_of(values, norm):
    """Return the norm along the last axis."""
    values = np.abs(values.astype(np.float64))
    if norm in ("l2", "rms"):
        reduce = np.sum if norm == "l2" else np.mean
        return np.sqrt(reduce(values**2, axis=-1))
    return (np.sum if norm == "l1" else np.mean)(values, axis=-1)


@pytest.mark.parametrize("norm", ["rms", "mean"])
@pytest.mark.parametrize("scale", SCALES)
def test_norms_along_an_axis_at_every_scale(scale, norm):
    scores = scale * np.random.default_rng(0).uniform(-1, 1, (5, 12))
    scores[:, 0] = scale
    scores = scores.astype(np.float32)
    norms = axis_norms.norms_along_axes(jnp.asarray(scores), [1], 12, norm)
    expected = norm_of(scores, norm)[:, None]
    # Scores are rounded down to 2^-27 of the largest: 2^-12 for the root of a square.
    np.testing.assert_allclose(norms, expected, rtol=2**-12)


@pytest.mark.parametrize("norm", ["rms", "l2", "mean", "l1"])
def test_equal_scores_have_exactly_their_mean(norm):
    # 2^126 and 2^127 are the largest powers of two in float32.
    for score in (2.0**-126, 1.0, 2.0**125, 2.0**126, 2.0**127):
        scores = jnp.full((1, 1), score, jnp.float32)
        assert axis_norms.norms_along_axes(scores, [1], 1, norm)[0, 0] == score


@pytest.mark.parametrize("shape", [(40, 3), (3, 40), (2, 33, 40)])
@pytest.mark.parametrize("norm", ["l2", "mean"])
def test_norms_do_not_depend_on_the_order_of_the_scores(shape, norm):
    rng = np.random.default_rng(0)
    scores = rng.standard_normal(shape).astype(np.float32)
    for axis, length in enumerate(shape):
        permuted = np.take(scores, rng.permutation(length), axis)
        norms = [
            jax.jit(lambda x: axis_norms.norms_along_axes(x, [axis], length, norm))(x)  # noqa: B023
            for x in (scores, permuted)
        ]
        np.testing.assert_array_equal(*norms)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_unit_with_a_score_that_is_not_finite_has_an_infinite_norm(value):
    scores = jnp.array([[1.0, value], [3.0, -4.0]])
    norms = axis_norms.norms_along_axes(scores, [1], 2, "l2")
    np.testing.assert_array_equal(norms, [[np.inf], [5.0]])


def test_leaf_norms_at_every_scale():
    rng = np.random.default_rng(0)
    leaves = [scale / 8 * rng.uniform(-1, 1, (5, 4)) for scale in SCALES]
    leaves = [leaf.astype(np.float32) for leaf in leaves]
    norms = jax.jit(exact_norms.leaf_l2_norms)(leaves)
    expected = [norm_of(leaf.ravel(), "l2") for leaf in leaves]
    np.testing.assert_allclose(norms, expected, rtol=2**-13)


def test_weights_that_are_not_finite_do_not_count_in_a_leafs_norm():
    leaf = jnp.array([3.0, np.nan, -4.0, np.inf])
    assert exact_norms.leaf_l2_norms([leaf])[0] == 5


def test_a_float64_norm_has_its_own_dtype():
    with jax.enable_x64(True):
        leaf = jnp.array([3e200, 4e200])
        [norm] = exact_norms.leaf_l2_norms([leaf])
        assert norm.dtype == jnp.float64
        np.testing.assert_allclose(norm, 5e200, rtol=1e-7)
