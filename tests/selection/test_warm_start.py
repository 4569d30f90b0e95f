"""Where the search for a threshold begins, worked out by hand.

The key of a float32 is its bit pattern: 0x3f800000 of 1, 0x00800000 for a factor of 2.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swd_jax._selection import order_statistics, warm_start

FLOAT32 = order_statistics.Keys(largest=0x7F800000, zero_bits=0, smooth_bits=23)
BFLOAT16 = FLOAT32._replace(zero_bits=16)
ONE = 0x3F800000
# The first key above zero, 2**-10, 2**-6 and 2**-2.
USUAL = [1, 0x3A800000, 0x3C800000, 0x3E800000]


def candidates(thresholds, changes, keys=FLOAT32):
    last = warm_start.Last(
        jnp.array(thresholds, jnp.float32), jnp.array(changes, jnp.float32)
    )
    found = warm_start.candidates(last, jnp.dtype("float32"), keys, len(thresholds))
    assert found.dtype == jnp.int32
    return np.asarray(found)


@pytest.mark.parametrize("groups", [1, 3])
def test_without_a_last_time_they_are_where_weights_usually_lie(groups):
    found = warm_start.candidates(None, jnp.dtype("float32"), FLOAT32, groups)
    np.testing.assert_array_equal(found, np.tile(np.c_[USUAL], groups))


@pytest.mark.parametrize("change", [0.0, 1.0])
def test_before_the_first_time_they_are_the_usual_ones_too(change):
    np.testing.assert_array_equal(candidates([0.0], [change]), np.c_[USUAL])


def test_the_first_key_above_zero_has_the_weights_bits_only():
    found = candidates([0.0], [0.0], BFLOAT16)
    np.testing.assert_array_equal(found, np.c_[[1 << 16, *USUAL[1:]]])


def test_a_threshold_that_rested_is_looked_for_where_it_was():
    # It is expected within 2**23 >> 15 = 256 keys: looked for 64 and 512 below, 512
    # above.
    expected = [ONE - 512, ONE - 64, ONE, ONE + 513]
    np.testing.assert_array_equal(candidates([1.0], [0.0]), np.c_[expected])


def test_one_that_moved_is_expected_to_move_on():
    # From 1 to 1.5, that is by 0x400000, a quarter and twice of which are these.
    there = 0x3FC00000
    expected = [there - 0x800000, there - 0x100000, there, there + 0x800001]
    np.testing.assert_array_equal(candidates([1.0], [0.5]), np.c_[expected])


def test_so_is_one_that_moved_down():
    # From 1 to 0.5: by 0x800000.
    there = 0x3F000000
    expected = [there - 0x1000000, there - 0x200000, there, there + 0x1000001]
    np.testing.assert_array_equal(candidates([1.0], [-0.5]), np.c_[expected])


def test_none_is_below_zero():
    # From 2**-125 to 2**-126, the least normal number: twice as far lie the subnormal
    # numbers, and then nothing.
    least = 0x800000
    expected = [0, least - 0x200000, least, least + 0x1000001]
    got = candidates([2.0**-125], [-(2.0**-126)])
    np.testing.assert_array_equal(got, np.c_[expected])


def test_a_movement_past_zero_is_one_to_zero():
    # The whole way from 1 was 0x3f800000, twice that 0x7f000000.
    np.testing.assert_array_equal(candidates([1], [-2]), np.c_[[0, 0, 0, 0x7F000001]])


def test_keys_of_short_types_are_looked_for_one_by_one():
    # A bfloat16 has the upper 16 bits: 256 keys of a float32 are none of its own.
    expected = [0x3F7F0000, 0x3F800000, 0x3F800000, 0x3F810000]
    np.testing.assert_array_equal(candidates([1.0], [0.0], BFLOAT16), np.c_[expected])


def test_every_group_has_its_own():
    found = candidates([1.0, 0.0, 1.0], [0.5, 0.5, 0.0])
    for column, alone in enumerate([(1.0, 0.5), (0.0, 0.5), (1.0, 0.0)]):
        expected = candidates([alone[0]], [alone[1]])[:, 0]
        np.testing.assert_array_equal(found[:, column], expected)


@pytest.mark.parametrize("keys", [FLOAT32, BFLOAT16], ids=["float32", "bfloat16"])
def test_nonsense_gives_keys_with_the_weights_bits_all_the_same(keys):
    nonsense = [np.inf, np.nan, 3e38, -1.0, 1e-45, 0.0]
    found = candidates(np.repeat(nonsense, 6), np.tile(nonsense, 6), keys)
    assert found.shape == (order_statistics.CANDIDATES, 36)
    assert not (found % (1 << keys.zero_bits)).any()


def test_float64_keys_have_64_bits():
    # 1 is 0x3ff << 52, and 2**52 >> 15 is 2**37.
    keys = order_statistics.Keys(largest=0x7FF << 52, zero_bits=0, smooth_bits=52)
    with jax.enable_x64(True):
        last = warm_start.Last(jnp.ones(1, "float64"), jnp.zeros(1, "float64"))
        found = warm_start.candidates(last, jnp.dtype("float64"), keys, 1)
    one = 0x3FF << 52
    expected = [one - (1 << 38), one - (1 << 35), one, one + (1 << 38) + 1]
    assert np.asarray(found)[:, 0].tolist() == expected
