"""Criteria: what a weight scores, and how far scores of different leaves compare."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swd_jax
from swd_jax import _criterion, _criterion_names, _float_order, _norms


def reference_norm(weights: np.ndarray) -> float:
    """The L2 norm of the finite weights in float64, scaled lest a square overflow."""
    finite = weights[np.isfinite(weights)].astype(np.float64)
    largest = np.max(np.abs(finite), initial=0)
    return largest * np.sqrt(np.sum((finite / largest) ** 2)) if largest else 0.0


@jax.jit
def norm(weights: jax.Array) -> jax.Array:
    return _norms.l2_norms([weights])[0]


def scores(criterion: swd_jax.Criterion, weights) -> np.ndarray:
    @jax.jit
    def scored(weights):
        dtype = _float_order.score_dtype(weights.dtype)
        [statistic] = _criterion.statistics(criterion, [weights], dtype)
        return _criterion.scores(criterion, weights, statistic, {}, dtype)

    return np.asarray(scored(weights))


@pytest.fixture(scope="module")
def weights():
    return np.random.default_rng(0).standard_normal((31, 17)).astype(np.float32)


def test_magnitude_is_the_absolute_value(weights):
    np.testing.assert_array_equal(
        scores(swd_jax.magnitude, weights), np.where(weights < 0, -weights, weights)
    )


def test_normalized_magnitude_is_the_share_of_the_leafs_norm(weights):
    expected = np.abs(weights) / reference_norm(weights)
    np.testing.assert_allclose(
        scores(swd_jax.normalized_magnitude, weights), expected, rtol=1e-6
    )


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize(
    "criterion", [swd_jax.magnitude, swd_jax.normalized_magnitude], ids=repr
)
def test_scores_have_at_least_float32(criterion, dtype):
    assert scores(criterion, jnp.ones((2, 3), dtype)).dtype == np.float32


def test_scores_of_float64_weights_have_float64():
    with jax.enable_x64(True):
        third = np.full((2, 3), 1 / 3)
        assert scores(swd_jax.magnitude, third)[0, 0] == 1 / 3


@pytest.mark.parametrize("shape", [(0, 3), (1,), (), (7, 1), (3, 5, 2), (1000,)])
def test_the_norm_is_numpys_in_any_shape(shape):
    values = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    expected = reference_norm(values)
    assert float(norm(jnp.asarray(values))) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-35, 1e-20, 1.0, 1e20, 1e37])
def test_the_norm_neither_overflows_nor_vanishes(weights, scale):
    # The squares of 1e-35 and 1e37 are no float32 numbers.
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


@pytest.mark.parametrize("outlier", [1e2, 1e4, 1e6, 1e30])
def test_beside_an_outlier_the_others_count_nearly_as_much_as_they_should(outlier):
    # A thousand squares are rounded, each by less than 2**-31 of the scale's square,
    # to which the outlier's comes within a factor of 4.
    leaf = np.random.default_rng(3).standard_normal((40, 25)).astype(np.float32)
    leaf[7, 7] = outlier
    bound = 1000 * 2.0**-31 * 4 / 2
    assert float(norm(leaf)) == pytest.approx(reference_norm(leaf), rel=bound + 2e-7)


def test_the_norm_depends_on_no_order_and_no_shape():
    rng = np.random.default_rng(4)
    row = (rng.standard_normal(2400) * 10 ** rng.uniform(-6, 6, 2400)).astype("float32")
    row[5], row[77] = np.nan, np.inf
    shuffled = rng.permutation(row)
    shapes = [(2400,), (60, 40), (2, 3, 400)]
    norms = {norm(some.reshape(s)).item() for some in (row, shuffled) for s in shapes}
    assert len(norms) == 1


def test_the_norm_of_float64_weights_is_a_float64():
    leaf = 1e200 * np.random.default_rng(5).standard_normal((40, 25))
    with jax.enable_x64(True):
        got = norm(jnp.asarray(leaf))
        assert got.dtype == jnp.float64
    assert float(got) == pytest.approx(reference_norm(leaf), rel=1e-6)


def test_the_norm_of_one_weight_is_its_magnitude():
    for weight in (-3.25, 1e-30, 1e30):
        got = float(norm(np.full((1, 1), weight, np.float32)))
        assert got == pytest.approx(abs(weight), rel=1e-6)


def test_the_norm_of_weights_near_the_end_of_the_range():
    # 1.2e38 and 1.6e38: the norm, 2e38, is a float32 still.
    leaf = np.float32([[1.2e38, 1.6e38]])
    assert float(norm(leaf)) == pytest.approx(2e38, rel=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_only_the_magnitude_keeps_the_precision_of_its_weight(dtype):
    # The promise of keeps_precision: of a score only as many bits are used.
    leaf = jnp.asarray(np.random.default_rng(6).standard_normal((30, 20)), dtype)
    unused = 23 - jnp.finfo(dtype).nmant

    def bits(criterion):
        patterns = scores(criterion, leaf).view(np.uint32)
        return bool((patterns % (1 << unused)).any())

    assert swd_jax.magnitude.keeps_precision
    assert not bits(swd_jax.magnitude)
    assert not swd_jax.normalized_magnitude.keeps_precision
    assert bits(swd_jax.normalized_magnitude) == (unused > 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_norm_counts_finite_weights_only(bad):
    # sqrt(9 + 16) = 5
    assert float(norm(jnp.array([[3.0, bad], [-4.0, bad]]))) == 5


@pytest.mark.parametrize("leaf", [np.zeros((2, 2)), np.full((2, 2), np.nan)])
def test_a_leaf_without_a_norm_is_not_divided(leaf):
    values = scores(swd_jax.normalized_magnitude, leaf.astype(np.float32))
    np.testing.assert_array_equal(values, leaf)


def test_a_norm_too_large_for_its_type_counts_as_the_largest_with_a_reciprocal():
    # Five times 3e38 squared: the norm, 6.7e38, is more than a float32 holds. The
    # largest that has a normal reciprocal is 2**126.
    leaf = np.full((5, 1), 3e38, np.float32)
    expected = leaf / np.float32(2.0**126)
    np.testing.assert_allclose(
        scores(swd_jax.normalized_magnitude, leaf), expected, rtol=1e-6
    )


@pytest.mark.parametrize(
    "criterion", [swd_jax.magnitude, swd_jax.normalized_magnitude], ids=repr
)
def test_weights_that_are_not_finite_have_scores_that_are_not_finite(criterion):
    values = scores(criterion, jnp.array([[1.0, jnp.nan, jnp.inf, -jnp.inf]]))
    np.testing.assert_array_equal(np.isfinite(values), [[True, False, False, False]])


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_a_leaf_of_any_scale_gets_the_scores_of_its_shares(scale):
    # The norm of 1 and 2 is sqrt(5).
    leaf = np.float32([[1, 2]]) * np.float32(scale)
    expected = np.array([[1, 2]]) / np.sqrt(5)
    values = scores(swd_jax.normalized_magnitude, leaf)
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_weights_near_the_end_of_the_range_keep_their_order():
    # The norm is a float32, its reciprocal is subnormal and flushed to zero on CPU.
    values = scores(swd_jax.normalized_magnitude, np.float32([[2e38, 1e38]]))
    assert 0 < values[0, 1] < values[0, 0]


class TestAcrossLeaves:
    """Two leaves with the same weights, one a thousandth (2**-10) of the other."""

    @pytest.fixture
    def params(self):
        large = np.random.default_rng(2).standard_normal((20, 10)).astype(np.float32)
        # Scaled by a power of two, so that all is exact.
        return {"large": large, "small": large * np.float32(2.0**-10)}

    @staticmethod
    def kept(params, criterion, scope="global"):
        target = swd_jax.Target(0.5, criterion=criterion, scope=scope)
        masks = swd_jax.prune_mask(params, target)
        return {name: np.asarray(mask) for name, mask in masks.items()}

    def test_magnitude_takes_from_the_leaf_with_the_smaller_weights(self, params):
        # Half of 400: as many as the small leaf has. A normal number below a
        # thousandth of the others' is rare, and the seed gives none.
        assert np.abs(params["small"]).max() < np.abs(params["large"]).min()
        kept = self.kept(params, "magnitude")
        assert kept["small"].sum() == 0
        assert kept["large"].sum() == 200

    def test_normalized_magnitude_treats_them_alike(self, params):
        kept = self.kept(params, "normalized_magnitude")
        np.testing.assert_array_equal(kept["small"], kept["large"])
        assert kept["small"].sum() == 100

    def test_within_each_leaf_the_criteria_agree(self, params):
        by_magnitude = self.kept(params, "magnitude", scope="local")
        by_share = self.kept(params, "normalized_magnitude", scope="local")
        for name in params:
            np.testing.assert_array_equal(by_magnitude[name], by_share[name])


def test_a_criterion_of_ones_own_ranks_the_weights():
    # Distance to the leaf's mean: of 0, 1, 2, 3, 9 (mean 3) the nearest are 3 and 2.
    distance = swd_jax.Criterion(
        "distance",
        lambda w, mean: jnp.abs(w - mean),
        statistics=lambda leaves: [jnp.mean(leaf) for leaf in leaves],
    )
    params = {"kernel": jnp.array([[0.0, 1.0, 2.0, 3.0, 9.0]])}
    mask = swd_jax.prune_mask(params, swd_jax.Target(0.4, criterion=distance))
    np.testing.assert_array_equal(mask["kernel"], [[True, True, False, False, True]])


@pytest.mark.parametrize("name", ["magnitude", "normalized_magnitude"])
def test_a_criterion_is_known_by_its_name_and_prints_as_it_is_written(name):
    criterion = getattr(swd_jax, name)
    assert _criterion_names.as_criterion(name) is criterion
    assert _criterion_names.as_criterion(criterion) is criterion
    assert repr(criterion) == f"swd_jax.{name}"


@pytest.mark.parametrize("unknown", ["lamb", "Magnitude", "", None, 1, ["x"]])
def test_an_unknown_criterion_is_an_error_that_lists_the_known_ones(unknown):
    with pytest.raises(ValueError, match=r"criterion must be one of .*normalized_mag"):
        swd_jax.Target(0.5, criterion=unknown)
