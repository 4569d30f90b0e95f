"""Emulated uint64, against Python's integers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swd_jax._arrays import uint64

uniform = st.integers(0, 2**64 - 1)
# At the limits of limbs and of 32-bit integers.
edges = st.sampled_from([0, 1, 2**16 - 1, 2**16, 2**31, 2**32 - 1, 2**32, 2**48, 2**63])
all_numbers = uniform | edges


def emulated(value: int) -> jax.Array:
    return jnp.asarray(uint64.from_int(value))


@given(all_numbers)
def test_from_int_and_to_int_are_inverse(value):
    assert uint64.to_int(uint64.from_int(value)) == value


@pytest.mark.parametrize("value", [-1, 2**64])
def test_an_integer_out_of_range_is_an_error(value):
    with pytest.raises(ValueError, match="value must be in"):
        uint64.from_int(value)


@given(all_numbers, all_numbers)
def test_sums_and_differences(first, second):
    low, high = sorted([first // 2, second // 2])
    assert uint64.to_int(uint64.add(emulated(low), emulated(high))) == low + high
    assert uint64.to_int(uint64.subtract(emulated(high), emulated(low))) == high - low


@given(all_numbers, all_numbers)
def test_comparisons(first, second):
    a, b = emulated(first), emulated(second)
    assert bool(uint64.less(a, b)) == (first < second)
    assert uint64.to_int(uint64.minimum(a, b)) == min(first, second)


@given(st.integers(0, 2**40), st.integers(0, 2**24))
def test_products(first, second):
    product = uint64.multiply(emulated(first), second)
    assert uint64.to_int(product) == first * second
    factors = np.stack([uint64.from_int(second), uint64.from_int(1)])
    products = uint64.multiply(jnp.stack([emulated(first)] * 2), factors)
    assert [uint64.to_int(one) for one in products] == [first * second, first]


@given(all_numbers, st.integers(1, 2**16))
def test_quotients_are_rounded_down(value, divisor):
    assert uint64.to_int(uint64.divide(emulated(value), divisor)) == value // divisor


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=50))
def test_sums_over_an_axis(values):
    stack = jnp.stack([emulated(value) for value in values])
    assert uint64.to_int(uint64.sum_short_axis(stack)) == sum(values)


def test_a_sum_of_many_numbers_above_32_bits_does_not_wrap():
    values = jnp.broadcast_to(emulated(2**40 + 2**16 - 1), (65_536, 4))
    total = 65_536 * (2**40 + 2**16 - 1)
    assert uint64.to_int(uint64.sum_short_axis(values)) == total


def test_a_sum_over_a_longer_axis_than_a_limb_can_count():
    values = jnp.broadcast_to(emulated(2**16 - 1), (3, 200_000, 4))
    sums = uint64.sum_long_axis(values)
    assert [uint64.to_int(row) for row in sums] == [200_000 * (2**16 - 1)] * 3


@given(all_numbers)
def test_the_float_is_the_nearest_up_to_rounding(value):
    actual = float(uint64.to_float32(emulated(value)))
    np.testing.assert_allclose(actual, float(value), rtol=3e-7)


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3),
)
def test_products_with_arrays(value, factors):
    numbers = jnp.stack([emulated(value)] * len(factors))
    product = uint64.multiply_uint32(numbers, jnp.array(factors, jnp.uint32))
    assert [uint64.to_int(row) for row in product] == [value * f for f in factors]
