"""Whole numbers past 2**32, exact without 64-bit types.

Models have more weights than a 32-bit integer can count, and 64-bit integers are off
by default in JAX. A *wide* number is an array of unsigned 32-bit limbs along its last
axis, least significant first, each below 2**16, so that sums and products of limbs by
small numbers stay below 2**32. Four limbs reach 2**64.
"""

import jax
import jax.numpy as jnp
import numpy as np

# Limbs are cut out and put together again with their axis kept: XLA takes long to
# simplify arithmetic with a change of shape at every step.

LIMBS = 4
LIMB_BITS = 16
LIMB = 1 << LIMB_BITS


def from_int(value: int) -> np.ndarray:
    """The wide number of a Python integer in [0, 2**64)."""
    if not 0 <= value < 1 << LIMBS * LIMB_BITS:
        raise ValueError(f"value must be in [0, 2**64), got {value}")
    limbs = [(value >> LIMB_BITS * i) % LIMB for i in range(LIMBS)]
    return np.array(limbs, np.uint32)


def to_int(wide: jax.Array | np.ndarray) -> int:
    """The Python integer of one concrete wide number, shape (4,)."""
    limbs = np.asarray(wide).tolist()
    return sum(limb << LIMB_BITS * i for i, limb in enumerate(limbs))


def to_float32(wide: jax.Array) -> jax.Array:
    """The nearest float32, for logs and ratios."""
    total = jnp.zeros((*wide.shape[:-1], 1), jnp.float32)
    for limb in reversed(_limbs(wide.astype(jnp.float32))):
        total = total * LIMB + limb
    return jnp.squeeze(total, -1)


def _limbs(wide: jax.Array) -> list[jax.Array]:
    """Each limb, shape (..., 1), the lowest first."""
    return [wide[..., i : i + 1] for i in range(LIMBS)]


def carry(limbs: jax.Array) -> jax.Array:
    """Bring limbs of any unsigned 32-bit value back below 2**16.

    A limb may hold anything up to 2**32 - 2**16, which leaves room for what the limb
    below hands on.
    """
    carried = []
    over = jnp.zeros((*limbs.shape[:-1], 1), jnp.uint32)
    for limb in _limbs(limbs):
        total = limb + over
        carried.append(total % LIMB)
        over = total >> LIMB_BITS
    return jnp.concatenate(carried, axis=-1)


def from_uint32(values: jax.Array) -> jax.Array:
    """The wide numbers of unsigned 32-bit integers, shape (..., 4)."""
    values = values[..., None]
    zeros = jnp.zeros((*values.shape[:-1], LIMBS - 2), jnp.uint32)
    return jnp.concatenate([values % LIMB, values >> LIMB_BITS, zeros], axis=-1)


def add(first: jax.Array, second: jax.Array) -> jax.Array:
    """first + second."""
    return carry(first + second)


def subtract(first: jax.Array, second: jax.Array) -> jax.Array:
    """first - second, where first >= second."""
    # Add the complement: LIMB - 1 - limb in every limb, plus one at the bottom. The
    # carry out of the highest limb is what the complement put too much.
    complement = (LIMB - 1) - second
    one = np.broadcast_to(from_int(1), complement.shape)
    return carry(first + complement + one)


def sum_last_but_one(wides: jax.Array) -> jax.Array:
    """The sum over the axis before the limbs, of at most 65,536 wide numbers."""
    return carry(jnp.sum(wides, axis=-2, dtype=jnp.uint32))


def equal(first: jax.Array, second: jax.Array) -> jax.Array:
    """first == second."""
    return jnp.all(first == second, axis=-1)


def less(first: jax.Array, second: jax.Array) -> jax.Array:
    """first < second."""
    shape = jnp.broadcast_shapes(first.shape, second.shape)
    result = jnp.zeros((*shape[:-1], 1), bool)
    for a, b in zip(_limbs(first), _limbs(second), strict=True):
        result = (a < b) | ((a == b) & result)
    return jnp.squeeze(result, -1)


def minimum(first: jax.Array, second: jax.Array) -> jax.Array:
    """The smaller of the two."""
    return jnp.where(less(second, first)[..., None], second, first)


def shift_left(wide: jax.Array, bits: int) -> jax.Array:
    """The product with 2**bits, where it stays below 2**64."""
    limbs, bits = divmod(bits, LIMB_BITS)
    shifted = carry(wide << bits) if bits else wide
    padded = jnp.pad(shifted, [(0, 0)] * (wide.ndim - 1) + [(limbs, 0)])
    return padded[..., :LIMBS]


def multiply(wide: jax.Array, factor: int) -> jax.Array:
    """The product with a Python integer, where it stays below 2**64."""
    product = jnp.zeros_like(wide)
    for shift in range(LIMBS):
        digit = (factor >> LIMB_BITS * shift) % LIMB
        # Half a limb at a time keeps every partial product below 2**24.
        for half in (0, 8):
            part = ((digit >> half) % 256) * wide
            part = carry(part) << half
            shifted = jnp.pad(part, [(0, 0)] * (wide.ndim - 1) + [(shift, 0)])
            product = carry(product + shifted[..., :LIMBS])
    return product


def multiply_each(wide: jax.Array, factors: jax.Array) -> jax.Array:
    """The products with unsigned 32-bit integers, where they stay below 2**64.

    Args:
      wide: wide numbers, shape (..., 4).
      factors: unsigned 32-bit integers, shape (...).
    """
    # A limb times half a factor stays below 2**32 - 2**16, which `carry` takes.
    factors = factors[..., None]
    low = carry(wide * (factors % LIMB))
    high = carry(wide * (factors >> LIMB_BITS))
    return add(low, shift_left(high, LIMB_BITS))


def divide(wide: jax.Array, divisor: int) -> jax.Array:
    """The quotient, rounded down, by a Python integer in [1, 2**16]."""
    quotient = []
    remainder = jnp.zeros((*wide.shape[:-1], 1), jnp.uint32)
    for limb in reversed(_limbs(wide)):
        dividend = (remainder << LIMB_BITS) + limb
        quotient.append(dividend // divisor)
        remainder = dividend % divisor
    return jnp.concatenate(quotient[::-1], axis=-1)


def sum_long_axis(wides: jax.Array) -> jax.Array:
    """The sum over the axis before the limbs, of fewer than 2**24 wide numbers."""
    # Eight bits at a time: 2**24 terms below 2**8 stay below 2**32.
    low, high = wides % 256, wides >> 8
    low_sum = jnp.sum(low, axis=-2, dtype=jnp.uint32)
    high_sum = jnp.sum(high, axis=-2, dtype=jnp.uint32)
    return add(carry(low_sum), multiply(carry(high_sum), 256))
