"""Exact counts k = floor(s n), where a schedule's float becomes a whole number.

A schedule's value is a float32, and s n in floating point is off by one where the
product is close to a whole number: 0.29 * 100 is 28.999999999999996. So the value is
read as a decimal of seven places, and the product is computed in integers.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import uint64

PoolSparsities: TypeAlias = Sequence[Fraction | jax.Array] | jax.Array
"""The sparsity of every pool: one by one, or as an array of shape (pools,)."""

# Decimals of seven places below 1 are distinct in float32, those of eight are not.
PLACES = 10**7


def nearest_decimal(value: float) -> Fraction:
    """Read a concrete float32 as `pruned_counts` reads a traced one."""
    clipped = min(value, 1.0) if value > 0 else 0.0
    scaled = round(clipped * (1 << 24))
    return Fraction((scaled * PLACES + (1 << 23)) >> 24, PLACES)


def known_count(sparsity: Fraction, size: int) -> int:
    """Compute k = floor(s n) of a known sparsity, at most n - 1."""
    return min(int(sparsity * size), max(size - 1, 0))


def known_counts(fraction: Fraction, sizes: Sequence[int]) -> jax.Array:
    """Compute floor(f n) of a known fraction: emulated uint64, shape (pools, 4)."""
    return _constants(int(fraction * size) for size in sizes)


def pruned_counts(sparsities: PoolSparsities, sizes: Sequence[int]) -> jax.Array:
    """Compute k = floor(s n) of all pools together, in integer arithmetic.

    The number of equations does not depend on the number of pools: known counts are
    one constant, traced ones are computed as one array.

    Args:
      sparsities: s of every pool: a `Fraction`, or a traced float32 that is read as the
        nearest decimal of seven places, and as 0 or 1 beyond these (NaN as 0); or all
        of them as one array, shape (pools,).
      sizes: n, the number of weights of every pool.

    Returns:
      k of every pool, at most n - 1, so that one weight is always kept: emulated
      uint64, shape (pools, 4).
    """
    if isinstance(sparsities, jax.Array):
        return _traced_counts(sparsities, sizes)
    known = [isinstance(s, Fraction) for s in sparsities]
    constants = _constants(
        known_count(s, n) if isinstance(s, Fraction) else 0
        for s, n in zip(sparsities, sizes, strict=True)
    )
    if all(known):
        return constants
    counts = _traced_counts(_stack_distinct(sparsities), sizes)
    if not any(known):
        return counts
    return jnp.where(np.array(known)[:, None], constants, counts)


def _stack_distinct(sparsities: Sequence[Fraction | jax.Array]) -> jax.Array:
    """Stack the traced sparsities, with a placeholder for each known one.

    A schedule that several pools share is one tracer, and is stacked once.
    """
    traced = {id(s): s for s in sparsities if not isinstance(s, Fraction)}
    if len(traced) == 1:
        [value] = traced.values()
        return jnp.broadcast_to(value, (len(sparsities),))
    rows = {key: row for row, key in enumerate(traced)}
    indices = np.array([rows.get(id(s), 0) for s in sparsities])
    return jnp.stack(list(traced.values()))[indices]


def _traced_counts(sparsities: jax.Array, sizes: Sequence[int]) -> jax.Array:
    clipped = jnp.where(sparsities > 0, jnp.minimum(sparsities, 1), 0)
    # Exact, because a factor of 2**24 changes only the exponent of a float32. The rest
    # is integer arithmetic.
    scaled = jnp.round(clipped * (1 << 24)).astype(jnp.uint32)
    places, half = _constants([PLACES]), _constants([1 << 23])
    decimals = uint64.add(uint64.multiply_uint32(places, scaled), half)
    decimals = uint64.divide(uint64.divide(decimals, 1 << 12), 1 << 12)
    # At most 10**7, which fits in the two low limbs.
    factors = decimals[..., 0] + (decimals[..., 1] << uint64.LIMB_BITS)
    counts = uint64.multiply_uint32(_constants(sizes), factors)
    counts = uint64.divide(uint64.divide(counts, 10**4), 10**3)
    return uint64.minimum(counts, _constants(max(n - 1, 0) for n in sizes))


def _constants(values: Iterable[int]) -> jax.Array:
    """Convert integers to one constant of emulated uint64, shape (values, 4)."""
    return jnp.asarray(np.stack([uint64.from_int(value) for value in values]))
