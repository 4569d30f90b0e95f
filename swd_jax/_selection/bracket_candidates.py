"""Candidates of a threshold search: their positions inside the bracket.

Candidates affect the number of passes only, never the threshold that is found.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from swd_jax._arrays import uint64

NUM_CANDIDATES = 4
"""The number of candidates that are counted in one pass."""

# Offsets of candidates from the interpolated threshold, in its standard deviations.
_DEVIATIONS = (-1.5, -0.5, 0.5, 1.5)
# Upper bound of the relative error. An estimate that is worse gives an order of
# magnitude, up or down.
_MAX_ERROR = 1.4
# A bracket this many times wider than one that allows interpolation gives no hint at
# the position of the threshold.
_VERY_WIDE = 16


class Interpolation(NamedTuple):
    """Estimates of where the thresholds are in their brackets."""

    fraction: jax.Array
    """The share of the bracket's elements below the threshold, in (0, 1).
    shape=(pools,), dtype=float32"""
    num_elements: jax.Array
    """About how many elements are in the bracket. shape=(pools,), dtype=float32"""


def interpolate(
    below_low: jax.Array, below_high: jax.Array, budgets: jax.Array, costs: jax.Array
) -> Interpolation:
    """Interpolate the budgets between the counts at the ends of the brackets.

    Args:
      below_low: cost of the elements below the lower end, shape (pools, 4).
      below_high: cost of those below the upper end, shape (pools, 4).
      budgets: between the two, shape (pools, 4).
      costs: mean cost of an element, shape (pools,).
    """
    in_bracket = uint64.to_float32(uint64.subtract(below_high, below_low))
    to_threshold = uint64.to_float32(uint64.subtract(budgets, below_low))
    # The threshold is the key of an element, half an element up on average.
    fraction = (to_threshold + costs / 2) / in_bracket
    return Interpolation(jnp.clip(fraction, 1e-12, 1 - 1e-7), in_bracket / costs)


def next_candidates(
    low: jax.Array,
    high: jax.Array,
    interpolation: Interpolation,
    bisect_next: jax.Array,
    interpolation_bits: int,
) -> jax.Array:
    """Return candidates strictly inside the brackets, shape (NUM_CANDIDATES, pools).

    Args:
      low: lower ends, integers of shape (pools,).
      high: upper ends, more than `low`.
      interpolation: estimates of the thresholds' positions.
      bisect_next: where to divide the bracket evenly. shape=(pools,), bools
      interpolation_bits: brackets of 2**interpolation_bits or wider are not
        interpolated.
    """
    low, high, bisect_next = low[None], high[None], bisect_next[None]
    fraction = interpolation.fraction[None]
    num_elements = interpolation.num_elements[None]
    width = high - low
    is_nearer_low = fraction <= 0.5
    distance = jnp.where(is_nearer_low, fraction, 1 - fraction)
    # The relative error of the estimate: that of a rank among random elements, or, in a
    # wide bracket, that of keys which are not spread evenly.
    error = jnp.sqrt((1 - distance) / (distance * num_elements))
    unevenness = width.astype(jnp.float32) / (1 << interpolation_bits)
    error = jnp.minimum(jnp.maximum(error, unevenness), _MAX_ERROR)
    spread = jnp.exp(jnp.array(_DEVIATIONS, jnp.float32)[:, None] * error)
    float_dtype = jnp.float32 if width.dtype == jnp.int32 else jnp.float64
    distances = jnp.minimum(distance * spread, 1).astype(float_dtype)
    interpolated = (distances * width.astype(float_dtype)).astype(width.dtype)
    # Powers of the width: the threshold may be very near to the end of nearer rank.
    geometric = jnp.concatenate([width >> 20, width >> 13, width >> 6, width >> 1])
    # Quarters, and the key after the lower end, in case many elements equal that end.
    quarters = jnp.concatenate(
        [jnp.ones_like(width), width >> 2, width >> 1, width // 4 * 3]
    )
    divide_evenly = (width >> interpolation_bits > 0) | bisect_next
    is_very_wide = width >> interpolation_bits >= _VERY_WIDE
    offsets = jnp.where(divide_evenly, quarters, interpolated)
    offsets = jnp.where(is_very_wide, geometric, offsets)
    from_low = is_nearer_low | (divide_evenly & ~is_very_wide)
    candidates = jnp.where(from_low, low + offsets, high - offsets)
    return jnp.clip(candidates, low + 1, high - 1)
