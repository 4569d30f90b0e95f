"""Initial candidates of a threshold search, calculated by hand.

The key of a float32 is its bit pattern: 0x3f800000 of 1, 0x00800000 for a factor of 2.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swd_jax._arrays import uint64
from swd_jax._selection import bracket_candidates, order_statistics, warm_start

FLOAT32 = order_statistics.KeyRange(
    largest=0x7F800000, trailing_zero_bits=0, interpolation_bits=23
)
BFLOAT16 = FLOAT32._replace(trailing_zero_bits=16)
ONE = 0x3F800000
# The first key above zero, 2**-10, 2**-6 and 2**-2.
USUAL = [1, 0x3A800000, 0x3C800000, 0x3E800000]


def candidates(thresholds, changes, key_range=FLOAT32):
    previous = warm_start.PreviousThresholds(
        jnp.array(thresholds, jnp.float32), jnp.array(changes, jnp.float32)
    )
    actual = warm_start.initial_candidates(
        previous, jnp.dtype("float32"), key_range, len(thresholds)
    )
    assert actual.dtype == jnp.int32
    return np.asarray(actual)


@pytest.mark.parametrize("num_pools", [1, 3])
def test_a_cold_start_takes_usual_magnitudes(num_pools):
    actual = warm_start.initial_candidates(
        None, jnp.dtype("float32"), FLOAT32, num_pools
    )
    np.testing.assert_array_equal(actual, np.tile(np.c_[USUAL], num_pools))


@pytest.mark.parametrize("change", [0.0, 1.0])
def test_before_the_first_refresh_usual_magnitudes_are_taken(change):
    np.testing.assert_array_equal(candidates([0.0], [change]), np.c_[USUAL])


def test_the_first_key_above_zero_has_the_trailing_zeros_of_the_dtype():
    actual = candidates([0.0], [0.0], BFLOAT16)
    np.testing.assert_array_equal(actual, np.c_[[1 << 16, *USUAL[1:]]])


def test_a_threshold_that_did_not_change_is_expected_where_it_was():
    # The least change is 2**23 >> 15 = 256 keys, a quarter and twice of which are 64
    # and 512.
    expected = [ONE - 512, ONE - 64, ONE, ONE + 513]
    np.testing.assert_array_equal(candidates([1.0], [0.0]), np.c_[expected])


def test_a_threshold_that_rose_is_expected_to_rise_further():
    # From 1 to 1.5 it is 0x400000 keys.
    key = 0x3FC00000
    expected = [key - 0x800000, key - 0x100000, key, key + 0x800001]
    np.testing.assert_array_equal(candidates([1.0], [0.5]), np.c_[expected])


def test_a_threshold_that_fell_is_expected_to_fall_further():
    # From 1 to 0.5 it is 0x800000 keys.
    key = 0x3F000000
    expected = [key - 0x1000000, key - 0x200000, key, key + 0x1000001]
    np.testing.assert_array_equal(candidates([1.0], [-0.5]), np.c_[expected])


def test_no_candidate_is_below_zero():
    # From 2**-125 to 2**-126, the smallest normal number, the change is 0x800000 keys.
    # Twice as many below that number there is no key.
    smallest_normal = 0x800000
    expected = [
        0,
        smallest_normal - 0x200000,
        smallest_normal,
        smallest_normal + 0x1000001,
    ]
    actual = candidates([2.0**-125], [-(2.0**-126)])
    np.testing.assert_array_equal(actual, np.c_[expected])


def test_a_threshold_is_not_expected_below_zero():
    # The change from 1 to 0 is 0x3f800000 keys, twice that 0x7f000000.
    np.testing.assert_array_equal(candidates([1], [-2]), np.c_[[0, 0, 0, 0x7F000001]])


def test_the_least_change_of_a_narrow_dtype_is_one_of_its_keys():
    # A bfloat16 has the upper 16 bits of a float32: 256 keys of a float32 are less than
    # key key of a bfloat16.
    expected = [0x3F7F0000, 0x3F800000, 0x3F800000, 0x3F810000]
    np.testing.assert_array_equal(candidates([1.0], [0.0], BFLOAT16), np.c_[expected])


def test_every_pool_has_its_own_candidates():
    actual = candidates([1.0, 0.0, 1.0], [0.5, 0.5, 0.0])
    for column, (threshold, change) in enumerate([(1.0, 0.5), (0.0, 0.5), (1.0, 0.0)]):
        expected = candidates([threshold], [change])[:, 0]
        np.testing.assert_array_equal(actual[:, column], expected)


@pytest.mark.parametrize("key_range", [FLOAT32, BFLOAT16], ids=["float32", "bfloat16"])
def test_candidates_from_any_state_have_the_trailing_zeros_of_the_dtype(key_range):
    values = [np.inf, np.nan, 3e38, -1.0, 1e-45, 0.0]
    actual = candidates(np.repeat(values, 6), np.tile(values, 6), key_range)
    assert actual.shape == (bracket_candidates.NUM_CANDIDATES, 36)
    assert not (actual % (1 << key_range.trailing_zero_bits)).any()


def test_float64_keys_have_64_bits():
    # 1 is 0x3ff << 52, and 2**52 >> 15 is 2**37.
    key_range = order_statistics.KeyRange(
        largest=0x7FF << 52, trailing_zero_bits=0, interpolation_bits=52
    )
    with jax.enable_x64(True):
        previous = warm_start.PreviousThresholds(
            jnp.ones(1, "float64"), jnp.zeros(1, "float64")
        )
        actual = warm_start.initial_candidates(
            previous, jnp.dtype("float64"), key_range, 1
        )
    key = 0x3FF << 52
    expected = [key - (1 << 38), key - (1 << 35), key, key + (1 << 38) + 1]
    assert np.asarray(actual)[:, 0].tolist() == expected


LAST = 0x3F333333  # of 0.7, the last threshold


def tracked(estimate, change, error, width, key_range=FLOAT32, last=0.7):
    """Return the candidates after a search with slack."""
    one = [jnp.array([x], jnp.float32) for x in (last, change, estimate, error, width)]
    previous = warm_start.PreviousThresholds(
        one[0], one[1], warm_start.Tracking(*one[2:])
    )
    actual = warm_start.initial_candidates(
        previous, jnp.dtype("float32"), key_range, num_pools=1
    )
    return np.asarray(actual)[:, 0].tolist()


def test_with_slack_candidates_are_nearly_its_width_apart():
    # From 1 to 1 + 2**-10 it is 2**13 keys: half of 15/16 of them are 3840.
    key = 0x3FC00000  # of 1.5, where the change leads
    expected = [key - 11520, key - 3840, LAST, key + 3841]
    assert tracked(1.0, 0.5, 0.0, 2.0**-10) == expected


def test_with_slack_the_outer_candidates_allow_for_twice_the_last_error():
    # From 1 to 1.25 it is 0x200000 keys.
    expected = [ONE - 0x400000, ONE - 3840, LAST, ONE + 0x400001]
    assert tracked(1.0, 0.0, 0.25, 2.0**-10) == expected


def test_candidates_of_a_search_with_slack_are_never_the_same():
    # The least width is 256 keys.
    assert tracked(1.0, 0.0, 0.0, 0.0) == [ONE - 360, ONE - 120, LAST, ONE + 121]


def test_candidates_of_a_search_with_slack_stay_within_a_factor_of_four():
    # 0x800000 keys are a factor of 2, 0x3c0000 half of 15/16 of them.
    low, above = ONE - 0x1000000, ONE + 0x1000001
    assert tracked(1.0, 0.0, 1e9, 1e9) == [low, ONE - 0x3C0000, LAST, above]


def test_with_slack_too_a_cold_start_takes_usual_magnitudes():
    assert tracked(0.0, 0.0, 0.0, 0.0, last=0.0) == USUAL


@pytest.mark.parametrize("key_range", [FLOAT32, BFLOAT16], ids=["float32", "bfloat16"])
def test_with_slack_any_state_gives_candidates_with_the_trailing_zeros(key_range):
    values = [np.inf, np.nan, 3e38, -1.0, 1e-45, 0.0]
    for numbers in itertools.product(values, repeat=4):
        for candidate in tracked(*numbers, key_range):
            assert candidate % (1 << key_range.trailing_zero_bits) == 0


def test_an_estimate_is_the_threshold_and_the_unused_part_of_the_slack():
    # A slack of 8 is 2**13 keys wide: from 1 to 1 + 2**-10. 6 of 8 are not used.
    estimates = warm_start.estimate(
        keys=jnp.array([ONE]),
        slack_widths=jnp.array([1 << 13]),
        shortfall=jnp.asarray(uint64.from_int(6))[None],
        slack=jnp.asarray(uint64.from_int(8))[None],
        scores=jnp.ones(1),
    )
    assert estimates.thresholds.tolist() == [1 + 0.75 * 2.0**-10]
    assert estimates.slack_widths.tolist() == [2.0**-10]


def test_an_estimate_of_no_slack_is_the_threshold():
    none = jnp.zeros((1, uint64.LIMBS), jnp.uint32)
    estimates = warm_start.estimate(
        jnp.array([ONE]), jnp.array([0]), none, none, jnp.ones(1)
    )
    assert (estimates.thresholds, estimates.slack_widths) == (1, 0)
