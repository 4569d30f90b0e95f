"""What a continuous threshold leaves of kept weights: by hand, and its limits."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import swd_jax
from swd_jax._ranking.kept_shares import kept_share
from swd_jax._targets.resolve import rank, resolve
from swd_jax._targets.target import as_targets
from tests.helpers import quickly

POWERS = [0.5, 1.0, 2.0, 3.0, 7.5, math.inf]
every_power = pytest.mark.parametrize("power", POWERS)
share_of = quickly.jit(kept_share, static_argnums=2)


def share(score, sigma, power, dtype=np.float32):
    scores = np.full(1, score, dtype)
    return float(share_of(scores, np.asarray(sigma, dtype), power)[0])


@pytest.mark.parametrize(
    ("score", "sigma", "power", "expected"),
    [
        (4.0, 1.0, 1.0, 3 / 4),
        (5.0, 3.0, 2.0, 4 / 5),
        (13.0, 5.0, 2.0, 12 / 13),
        (2.0, 1.0, 3.0, (7 / 8) ** (1 / 3)),
        (4.0, 1.0, 0.5, 1 / 4),
        (2.0, 1.0, math.inf, 1.0),
        (7.0, 0.0, 3.0, 1.0),
    ],
)
def test_by_hand(score, sigma, power, expected):
    assert share(score, sigma, power) == pytest.approx(expected, rel=1e-6)


@every_power
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sigma", [1e-30, 0.1, 1.0, 3.0, 1e30])
def test_just_above_the_threshold_it_is_small_and_not_zero(sigma, dtype, power):
    with jax.enable_x64(dtype == np.float64):
        sigma = dtype(sigma)
        found = share(np.nextafter(sigma, dtype(np.inf)), sigma, power, dtype)
    if math.isinf(power):
        assert found == 1
        return
    spacing = (float(np.nextafter(sigma, dtype(np.inf))) - float(sigma)) / float(sigma)
    assert found == pytest.approx((power * spacing) ** (1 / power), rel=1e-3)


@every_power
@pytest.mark.parametrize("sigma", [0.0, 1.0, 3e38])
def test_what_is_not_finite_is_kept_whole(sigma, power):
    for score in (np.inf, np.nan):
        assert share(score, sigma, power) == 1


@every_power
def test_far_above_the_threshold_it_is_one(power):
    assert share(3e38, 1e-3, power) == pytest.approx(1, abs=1e-6)
    assert share(1.0, 0.0, power) == 1  # nothing is pruned, to the bit


@every_power
@given(
    sigma=st.floats(2.0**-60, 2.0**60, width=32),
    ratios=st.tuples(*[st.floats(1 + 2.0**-20, 100, width=32)] * 2),
)
def test_it_is_that_of_double_precision_and_grows_with_the_score(power, sigma, ratios):
    scores = np.float32(sigma) * np.sort(np.float32(ratios))
    low, high = (share(score, sigma, power) for score in scores)
    assert 0 < low <= high * (1 + 1e-6) <= 1 + 2e-6
    expected = 1.0
    if not math.isinf(power):
        lost = math.expm1(power * math.log(sigma / float(scores[0])))
        expected = (-lost) ** (1 / power)
    assert low == pytest.approx(expected, rel=2e-5)
    assert low <= share(scores[0], sigma, 2 * power) * (1 + 1e-6)


def kept_shares(params, target, power=2.0, extra_args=None):
    """Return the leaves, their masks and what is left of what is kept."""
    params = {name: jnp.asarray(leaf) for name, leaf in params.items()}
    [ranked] = rank(resolve(as_targets(target), params), extra_args=extra_args)
    ranking = ranked.ranking
    thresholds = ranking.find_thresholds(ranked.budgets(None)).leaf_thresholds
    masks = ranking.masks_below(thresholds)
    return ranked, masks, ranking.kept_shares(masks, thresholds, power)


def shares_of(params, target, power=2.0, extra_args=None):
    """Return the shares of all leaves, with nan where a weight is pruned."""
    ranked, masks, (found, _) = kept_shares(params, target, power, extra_args)
    return {
        leaf.path: np.where(mask, np.nan, share)
        for leaf, mask, share in zip(ranked.leaves, masks, found, strict=True)
    }


def two(sigma, score):
    return math.sqrt(1 - (sigma / score) ** 2)


LEAVES = {
    "large": np.array([[10.0, 20, 30, 40]], np.float32),
    "small": np.array([[1.0, 2, 3, 4]], np.float32),
}


class TestLostSquares:
    def test_every_kept_weight_loses_the_square_of_the_largest_that_is_pruned(self):
        _, _, (_, lost) = kept_shares(LEAVES, swd_jax.Target(0.625))
        np.testing.assert_array_equal(lost, [3 * 10**2, 0])
        _, _, (_, lost) = kept_shares(LEAVES, swd_jax.Target(0.5, scope="local"))
        np.testing.assert_array_equal(lost, [2 * 20**2, 2 * 2**2])
        _, _, (_, lost) = kept_shares(LEAVES, swd_jax.Target(0.5, min_kept=2))
        np.testing.assert_array_equal(lost, [2 * 20**2, 2 * 2**2])

    def test_protected_weights_lose_nothing(self):
        # 3 of 4 pruned at most, and half of all so far: 4 and 40 are protected.
        structure = swd_jax.NM(1, 4, axis=-1)
        _, _, (_, lost) = kept_shares(LEAVES, swd_jax.Target(0.5, structure=structure))
        # 1, 2, 3 and 10 are pruned; 20 and 30 lose 10^2 each.
        np.testing.assert_array_equal(lost, [2 * 10**2, 0])

    @pytest.mark.parametrize(
        ("options", "power"),
        [
            ({}, 3.0),
            ({"criterion": "normalized_magnitude"}, 2.0),
            ({"structure": swd_jax.Block((1, 2))}, 2.0),
        ],
    )
    def test_where_they_are_not_known_there_are_none(self, options, power):
        target = swd_jax.Target(0.5, **options)
        assert kept_shares(LEAVES, target, power)[2].lost_squares is None


class TestLeaves:
    def test_leaves_of_one_pool_share_the_largest_that_is_pruned(self):
        found = shares_of(LEAVES, swd_jax.Target(0.625))
        expected = [[np.nan, two(10, 20), two(10, 30), two(10, 40)]]
        np.testing.assert_allclose(found["large"], expected, rtol=1e-6)
        assert np.isnan(found["small"]).all()

    def test_a_leaf_at_its_cap_uses_its_own(self):
        """It keeps 3 and 4, which are less than the 10 and 20 that the other loses."""
        found = shares_of(LEAVES, swd_jax.Target(0.5, min_kept=2))
        large = [[np.nan, np.nan, two(20, 30), two(20, 40)]]
        small = [[np.nan, np.nan, two(2, 3), two(2, 4)]]
        np.testing.assert_allclose(found["large"], large, rtol=1e-6)
        np.testing.assert_allclose(found["small"], small, rtol=1e-6)

    def test_a_leaf_that_may_lose_nothing_is_left_whole(self):
        found = shares_of(LEAVES, swd_jax.Target(0.25, min_kept=4))
        np.testing.assert_array_equal(found["small"], 1)
        np.testing.assert_array_equal(found["large"], 1)
        target = swd_jax.Target(0.25, min_kept=3)
        found = shares_of(LEAVES, target)
        small = [[np.nan, two(1, 2), two(1, 3), two(1, 4)]]
        np.testing.assert_allclose(found["small"], small, rtol=1e-6)

    def test_every_leaf_of_a_local_target_uses_its_own(self):
        found = shares_of(LEAVES, swd_jax.Target(0.25, scope="local"), power=3.0)
        for name, unit in (("large", 10), ("small", 1)):
            scores = LEAVES[name][0, 1:] / unit
            expected = [[np.nan, *np.cbrt(1 - scores**-3.0)]]
            np.testing.assert_allclose(found[name], expected, rtol=1e-6)

    def test_where_nothing_is_pruned_all_is_kept_to_the_bit(self):
        for power in POWERS:
            found = shares_of(LEAVES, swd_jax.Target(0.0), power)
            for leaf in found.values():
                np.testing.assert_array_equal(leaf, 1)

    def test_scores_of_blocks_are_those_of_their_weights(self):
        kernel = {"kernel": np.array([[1.0, 1, 2, 2, 4, 4]], np.float32)}
        target = swd_jax.Target(0.34, structure=swd_jax.Block((1, 2)))
        found = shares_of(kernel, target)["kernel"]
        expected = [[np.nan, np.nan, *[two(1, 2)] * 2, *[two(1, 4)] * 2]]
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    def test_scores_that_may_be_negative_shrink_nothing(self):
        signed = swd_jax.criteria.Criterion("value", lambda w, _: w, signed=True)
        found = shares_of(LEAVES, swd_jax.Target(0.5, criterion=signed))
        np.testing.assert_array_equal(found["large"], 1)


def model(params, x):
    hidden = jax.nn.relu(x @ params["a"])
    return jax.nn.relu(hidden @ params["b"]) @ params["c"]


class TestChannels:
    """Three channels a layer. A channel's score is the rms of its six weights."""

    FIRST, SECOND = (1.0, 2, 4), (30.0, 10, 20)

    def coupled(self, sparsity, **options):
        """Rows of "a" and of "b" hold the first group, columns of "b" the second."""
        params = {
            "a": np.ones((3, 1), np.float32) * np.float32(self.FIRST),
            "b": np.full((3, 3), 1e-6, np.float32),
            "c": np.float32(self.SECOND)[:, None] * np.ones((1, 3), np.float32),
        }
        groups = swd_jax.channels.channel_groups(model, params, jnp.ones((2, 3)))
        scope = options.pop("scope", "global")
        structure = swd_jax.CoupledChannels(groups, **options)
        target = swd_jax.Target(sparsity, structure=structure, scope=scope)
        return shares_of(params, target)

    def assert_shares(self, found, first, second):
        """A weight of "b" belongs to a channel of each: the lower share counts."""
        for name, expected in (
            ("a", np.tile(first, (3, 1))),
            ("c", np.tile(np.array(second)[:, None], (1, 3))),
            ("b", np.minimum(np.array(first)[:, None], second)),
        ):
            np.testing.assert_allclose(found[name], expected, rtol=1e-5)

    def test_channels_of_all_groups_share_the_largest_that_is_removed(self):
        """Of 27 weights 6 go with the channel 1, and 12 with the channel 2."""
        found = self.coupled(0.5)
        first = [np.nan, np.nan, two(2, 4)]
        self.assert_shares(found, first, [two(2, score) for score in self.SECOND])

    def test_a_group_at_its_floor_uses_its_own(self):
        """It keeps 2 and 4, less than the 10 that the other loses."""
        found = self.coupled(Fraction(11, 27), min_channels=2)
        first = [np.nan, two(1, 2), two(1, 4)]
        self.assert_shares(found, first, [two(10, 30), np.nan, two(10, 20)])

    def test_with_a_local_scope_every_group_uses_its_own(self):
        found = self.coupled(0.5, scope="local")
        first = [np.nan, two(1, 2), two(1, 4)]
        self.assert_shares(found, first, [two(10, 30), np.nan, two(10, 20)])
