"""Norms of leaves, by which criteria make leaves comparable, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swd_jax._arrays import exact_norms
from tests.helpers.scoring import (
    reference_norm,
)


@jax.jit
def norm(weights: jax.Array) -> jax.Array:
    return exact_norms.leaf_l2_norms([weights])[0]


@pytest.fixture(scope="module")
def weights():
    return np.random.default_rng(0).standard_normal((31, 17)).astype(np.float32)


@pytest.mark.parametrize("shape", [(0, 3), (1,), (), (7, 1), (3, 5, 2), (1000,)])
def test_the_norm_is_numpys_in_any_shape(shape):
    values = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    expected = reference_norm(values)
    assert float(norm(jnp.asarray(values))) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-35, 1e-20, 1.0, 1e20, 1e37])
def test_the_norm_neither_overflows_nor_vanishes(weights, scale):
    # Squares of 1e-35 and 1e37 are outside the range of float32.
    scaled = (weights * np.float32(scale)).astype(np.float32)
    assert float(norm(jnp.asarray(scaled))) == pytest.approx(
        reference_norm(scaled), rel=1e-5
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sparse", [False, True])
def test_the_norm_is_right_to_a_millionth(sparse, seed):
    rng = np.random.default_rng(seed)
    leaf = rng.standard_normal((40, 25)).astype(np.float32) * 10 ** rng.uniform(-30, 30)
    leaf = np.where(rng.random(leaf.shape) < 0.9 * sparse, 0, leaf).astype(np.float32)
    assert float(norm(leaf)) == pytest.approx(reference_norm(leaf), rel=1e-6)


def test_the_norm_does_not_depend_on_order_and_shape():
    rng = np.random.default_rng(4)
    row = (rng.standard_normal(2400) * 10 ** rng.uniform(-6, 6, 2400)).astype("float32")
    row[5], row[77] = np.nan, np.inf
    shuffled = rng.permutation(row)
    shapes = [(2400,), (60, 40), (2, 3, 400)]
    norms = {
        norm(values.reshape(s)).item() for values in (row, shuffled) for s in shapes
    }
    assert len(norms) == 1


def test_the_norm_of_float64_weights_is_a_float64():
    leaf = 1e200 * np.random.default_rng(5).standard_normal((40, 25))
    with jax.enable_x64(True):
        result = norm(jnp.asarray(leaf))
        assert result.dtype == jnp.float64
    assert float(result) == pytest.approx(reference_norm(leaf), rel=1e-6)


def test_the_norm_of_one_weight_is_its_magnitude():
    for weight in (-3.25, 1e-30, 1e30):
        result = float(norm(np.full((1, 1), weight, np.float32)))
        assert result == pytest.approx(abs(weight), rel=1e-6)


def test_the_norm_of_weights_near_the_end_of_the_range():
    # The norm of 1.2e38 and 1.6e38 is 2e38, within the range of float32.
    leaf = np.float32([[1.2e38, 1.6e38]])
    assert float(norm(leaf)) == pytest.approx(2e38, rel=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_norm_counts_finite_weights_only(bad):
    # sqrt(9 + 16) = 5
    assert float(norm(jnp.array([[3.0, bad], [-4.0, bad]]))) == 5


@pytest.mark.parametrize("outlier", [1e2, 1e4, 1e6, 1e30])
def test_an_outlier_hides_the_other_weights_only_up_to_rounding(outlier):
    # Each of a thousand squares is rounded by less than 2**-31 of the squared scale,
    # which is at most 4 times the outlier's square.
    leaf = np.random.default_rng(3).standard_normal((40, 25)).astype(np.float32)
    leaf[7, 7] = outlier
    bound = 1000 * 2.0**-31 * 4 / 2
    assert float(norm(leaf)) == pytest.approx(reference_norm(leaf), rel=bound + 2e-7)
