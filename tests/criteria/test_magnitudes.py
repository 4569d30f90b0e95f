"""The magnitude and its normalized forms, within a leaf and across leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swd_jax
from tests.helpers.scoring import (
    reference_norm,
    scores,
)


@pytest.fixture(scope="module")
def weights():
    return np.random.default_rng(0).standard_normal((31, 17)).astype(np.float32)


def test_magnitude_is_the_absolute_value(weights):
    np.testing.assert_array_equal(
        scores(swd_jax.criteria.magnitude, weights),
        np.where(weights < 0, -weights, weights),
    )


def test_normalized_magnitude_is_the_share_of_the_leafs_norm(weights):
    expected = np.abs(weights) / reference_norm(weights)
    np.testing.assert_allclose(
        scores(swd_jax.criteria.normalized_magnitude, weights), expected, rtol=1e-6
    )


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize(
    "criterion",
    [swd_jax.criteria.magnitude, swd_jax.criteria.normalized_magnitude],
    ids=repr,
)
def test_scores_have_at_least_float32(criterion, dtype):
    assert scores(criterion, jnp.ones((2, 3), dtype)).dtype == np.float32


def test_scores_of_float64_weights_have_float64():
    with jax.enable_x64(True):
        third = np.full((2, 3), 1 / 3)
        assert scores(swd_jax.criteria.magnitude, third)[0, 0] == 1 / 3


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_only_the_magnitude_preserves_the_mantissa_bits_of_its_weight(dtype):
    # The threshold search skips the bits that no 16-bit weight has.
    leaf = jnp.asarray(np.random.default_rng(6).standard_normal((30, 20)), dtype)
    unused = 23 - jnp.finfo(dtype).nmant

    def has_more_bits(criterion):
        patterns = scores(criterion, leaf).view(np.uint32)
        return bool((patterns % (1 << unused)).any())

    assert swd_jax.criteria.magnitude.preserves_mantissa_bits
    assert not has_more_bits(swd_jax.criteria.magnitude)
    assert not swd_jax.criteria.normalized_magnitude.preserves_mantissa_bits
    assert has_more_bits(swd_jax.criteria.normalized_magnitude) == (unused > 0)


@pytest.mark.parametrize("leaf", [np.zeros((2, 2)), np.full((2, 2), np.nan)])
def test_a_leaf_without_a_norm_is_not_divided(leaf):
    values = scores(swd_jax.criteria.normalized_magnitude, leaf.astype(np.float32))
    np.testing.assert_array_equal(values, leaf)


def test_a_norm_too_large_for_its_type_counts_as_the_largest_with_a_reciprocal():
    # The norm of five weights of 3e38 is 6.7e38, beyond float32, and 2**126 is the
    # largest float32 with a normal reciprocal.
    leaf = np.full((5, 1), 3e38, np.float32)
    expected = leaf / np.float32(2.0**126)
    np.testing.assert_allclose(
        scores(swd_jax.criteria.normalized_magnitude, leaf), expected, rtol=1e-6
    )


@pytest.mark.parametrize(
    "criterion",
    [swd_jax.criteria.magnitude, swd_jax.criteria.normalized_magnitude],
    ids=repr,
)
def test_weights_that_are_not_finite_have_scores_that_are_not_finite(criterion):
    values = scores(criterion, jnp.array([[1.0, jnp.nan, jnp.inf, -jnp.inf]]))
    np.testing.assert_array_equal(np.isfinite(values), [[True, False, False, False]])


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_a_leaf_of_any_scale_gets_the_scores_of_its_shares(scale):
    # The norm of 1 and 2 is sqrt(5).
    leaf = np.float32([[1, 2]]) * np.float32(scale)
    expected = np.array([[1, 2]]) / np.sqrt(5)
    values = scores(swd_jax.criteria.normalized_magnitude, leaf)
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_weights_near_the_end_of_the_range_keep_their_order():
    # The reciprocal of the norm is subnormal, and XLA:CPU flushes subnormals to zero.
    values = scores(swd_jax.criteria.normalized_magnitude, np.float32([[2e38, 1e38]]))
    assert 0 < values[0, 1] < values[0, 0]


class TestAcrossLeaves:
    """Two leaves with the same weights, one a thousandth (2**-10) of the other."""

    @pytest.fixture
    def params(self):
        large = np.random.default_rng(2).standard_normal((20, 10)).astype(np.float32)
        # Scaled by a power of two, so that all is exact.
        return {"large": large, "small": large * np.float32(2.0**-10)}

    @staticmethod
    def keep_mask(params, criterion, scope="global"):
        target = swd_jax.Target(0.5, criterion=criterion, scope=scope)
        masks = swd_jax.prune_mask(params, target)
        return {name: np.asarray(mask) for name, mask in masks.items()}

    def test_magnitude_takes_from_the_leaf_with_the_smaller_weights(self, params):
        # Half of 400 is the size of the small leaf. With this seed all of its weights
        # are smaller than those of the large leaf.
        assert np.abs(params["small"]).max() < np.abs(params["large"]).min()
        mask = self.keep_mask(params, "magnitude")
        assert mask["small"].sum() == 0
        assert mask["large"].sum() == 200

    def test_normalized_magnitude_treats_them_alike(self, params):
        mask = self.keep_mask(params, "normalized_magnitude")
        np.testing.assert_array_equal(mask["small"], mask["large"])
        assert mask["small"].sum() == 100

    def test_within_each_leaf_the_criteria_agree(self, params):
        by_magnitude = self.keep_mask(params, "magnitude", scope="local")
        by_share = self.keep_mask(params, "normalized_magnitude", scope="local")
        for name in params:
            np.testing.assert_array_equal(by_magnitude[name], by_share[name])


def test_a_small_weight_of_a_large_leaf_is_compared_by_its_leafs_typical_size():
    """The norm grows with the size of a leaf, the root mean square does not."""
    rng = np.random.default_rng(11)
    params = {
        "small": rng.normal(size=(10, 10)).astype(np.float32),
        "large": 4 * rng.normal(size=(100, 100)).astype(np.float32),
    }

    def shares(criterion):
        mask = swd_jax.prune_mask(params, swd_jax.Target(0.5, criterion=criterion))
        return {name: float((~np.asarray(leaf)).mean()) for name, leaf in mask.items()}

    by_rms = shares(swd_jax.criteria.rms_normalized_magnitude)
    assert by_rms["small"] == pytest.approx(0.5, abs=0.15)
    assert shares(swd_jax.criteria.normalized_magnitude)["small"] < 0.1
    values = scores(swd_jax.criteria.rms_normalized_magnitude, params["large"])
    expected = np.abs(params["large"]) / (reference_norm(params["large"]) / 100)
    np.testing.assert_allclose(values, expected, rtol=1e-6)
