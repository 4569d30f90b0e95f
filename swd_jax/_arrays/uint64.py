"""Emulated uint64: integers past 2**32 without jax's 64-bit dtypes.

Models have more weights than a 32-bit integer can count, and jax disables 64-bit
integers by default. An emulated number is an array of 4 limbs along its last axis,
least significant first: unsigned 32-bit integers below 2**16, so that sums of limbs and
products with small numbers stay below 2**32.
"""

import jax
import jax.numpy as jnp
import numpy as np

# Limbs are sliced and concatenated with their axis kept: XLA takes long to simplify a
# chain of arithmetic with a change of rank at every step.

LIMBS = 4
LIMB_BITS = 16
LIMB = 1 << LIMB_BITS


def from_int(value: int) -> np.ndarray:
    """Return the emulated number of a Python integer in [0, 2**64)."""
    if not 0 <= value < 1 << LIMBS * LIMB_BITS:
        raise ValueError(f"value must be in [0, 2**64), got {value}")
    limbs = [(value >> LIMB_BITS * i) % LIMB for i in range(LIMBS)]
    return np.array(limbs, np.uint32)


def to_int(number: jax.Array | np.ndarray) -> int:
    """Return the Python integer of one concrete emulated number, shape (4,)."""
    limbs = np.asarray(number).tolist()
    return sum(limb << LIMB_BITS * i for i, limb in enumerate(limbs))


def to_float32(numbers: jax.Array) -> jax.Array:
    """Return the float32 of each number, at most one unit in the last place off."""
    total = jnp.zeros((*numbers.shape[:-1], 1), jnp.float32)
    for limb in reversed(_limbs(numbers.astype(jnp.float32))):
        total = total * LIMB + limb
    return jnp.squeeze(total, -1)


def _limbs(numbers: jax.Array) -> list[jax.Array]:
    """Return the limbs, each of shape (..., 1), the lowest first."""
    return [numbers[..., i : i + 1] for i in range(LIMBS)]


def carry(limbs: jax.Array) -> jax.Array:
    """Normalize limbs: move what exceeds 16 bits to the next higher limb.

    Args:
      limbs: unsigned 32-bit integers up to 2**32 - 2**16, which leaves room for the
        carry from the limb below. shape=(..., 4)
    """
    normalized = []
    carried = jnp.zeros((*limbs.shape[:-1], 1), jnp.uint32)
    for limb in _limbs(limbs):
        total = limb + carried
        normalized.append(total % LIMB)
        carried = total >> LIMB_BITS
    return jnp.concatenate(normalized, axis=-1)


def from_uint32(values: jax.Array) -> jax.Array:
    """Return the emulated numbers of unsigned 32-bit integers, shape (..., 4)."""
    values = values[..., None]
    zeros = jnp.zeros((*values.shape[:-1], LIMBS - 2), jnp.uint32)
    return jnp.concatenate([values % LIMB, values >> LIMB_BITS, zeros], axis=-1)


def add(first: jax.Array, second: jax.Array) -> jax.Array:
    """Return first + second, which must stay below 2**64."""
    return carry(first + second)


def subtract(first: jax.Array, second: jax.Array) -> jax.Array:
    """Return first - second, where first >= second."""
    # Two's complement: LIMB - 1 - limb in every limb, plus 1 at the bottom. `carry`
    # drops the overflow of the highest limb.
    complement = (LIMB - 1) - second
    one = np.broadcast_to(from_int(1), complement.shape)
    return carry(first + complement + one)


def sum_short_axis(numbers: jax.Array) -> jax.Array:
    """Return the sum over the axis before the limbs, of at most 65,536 numbers."""
    return carry(jnp.sum(numbers, axis=-2, dtype=jnp.uint32))


def equal(first: jax.Array, second: jax.Array) -> jax.Array:
    """Return first == second."""
    return jnp.all(first == second, axis=-1)


def less(first: jax.Array, second: jax.Array) -> jax.Array:
    """Return first < second."""
    shape = jnp.broadcast_shapes(first.shape, second.shape)
    result = jnp.zeros((*shape[:-1], 1), bool)
    for a, b in zip(_limbs(first), _limbs(second), strict=True):
        result = (a < b) | ((a == b) & result)
    return jnp.squeeze(result, -1)


def minimum(first: jax.Array, second: jax.Array) -> jax.Array:
    """Return the smaller of the two."""
    return jnp.where(less(second, first)[..., None], second, first)


def shift_left(numbers: jax.Array, bits: int) -> jax.Array:
    """Return the products with 2**bits, which must stay below 2**64."""
    limbs, bits = divmod(bits, LIMB_BITS)
    shifted = carry(numbers << bits) if bits else numbers
    padded = jnp.pad(shifted, [(0, 0)] * (numbers.ndim - 1) + [(limbs, 0)])
    return padded[..., :LIMBS]


def multiply(numbers: jax.Array, factor: int | np.ndarray) -> jax.Array:
    """Return the products with constants, which must stay below 2**64.

    Args:
      numbers: emulated numbers, shape (..., 4).
      factor: a Python integer, or emulated numbers that broadcast to `numbers`.
    """
    if isinstance(factor, int):
        limbs = from_int(factor).reshape((1,) * (numbers.ndim - 1) + (LIMBS,))
    else:
        limbs = factor
    product = jnp.zeros_like(numbers)
    for shift in range(LIMBS):
        # Half a limb at a time keeps every partial product below 2**24.
        for half in (0, 8):
            digits = (limbs[..., shift : shift + 1] >> half) % 256
            if not digits.any():
                continue
            part = carry(jnp.asarray(digits, jnp.uint32) * numbers) << half
            shifted = jnp.pad(part, [(0, 0)] * (numbers.ndim - 1) + [(shift, 0)])
            product = carry(product + shifted[..., :LIMBS])
    return product


def multiply_uint32(numbers: jax.Array, factors: jax.Array) -> jax.Array:
    """Return the products with unsigned 32-bit integers, which must stay below 2**64.

    Args:
      numbers: emulated numbers, shape (..., 4).
      factors: unsigned 32-bit integers, shape (...).
    """
    # A limb times half a factor stays below 2**32 - 2**16, the limit of `carry`.
    factors = factors[..., None]
    low = carry(numbers * (factors % LIMB))
    high = carry(numbers * (factors >> LIMB_BITS))
    return add(low, shift_left(high, LIMB_BITS))


def divide(numbers: jax.Array, divisor: int) -> jax.Array:
    """Return the quotients, rounded down, by a Python integer in [1, 2**16]."""
    quotient = []
    remainder = jnp.zeros((*numbers.shape[:-1], 1), jnp.uint32)
    for limb in reversed(_limbs(numbers)):
        dividend = (remainder << LIMB_BITS) + limb
        quotient.append(dividend // divisor)
        remainder = dividend % divisor
    return jnp.concatenate(quotient[::-1], axis=-1)


def sum_long_axis(numbers: jax.Array) -> jax.Array:
    """Return the sum over the axis before the limbs, of fewer than 2**24 numbers."""
    # Eight bits at a time: 2**24 terms below 2**8 stay below 2**32.
    low, high = numbers % 256, numbers >> 8
    low_sum = jnp.sum(low, axis=-2, dtype=jnp.uint32)
    high_sum = jnp.sum(high, axis=-2, dtype=jnp.uint32)
    return add(carry(low_sum), multiply(carry(high_sum), 256))
