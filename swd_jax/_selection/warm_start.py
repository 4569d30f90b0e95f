"""Where to look first for a threshold: round where it was, or where weights mostly are.

Guesses cost or save readings of the weights; the thresholds found are the same.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from swd_jax._arrays import sort_keys
from swd_jax._selection import order_statistics

# With nothing to go by: between these most trained weights lie.
_USUAL_MAGNITUDES = (2.0**-10, 2.0**-6, 2.0**-2)

# A threshold is expected to move by at least this power of two of itself.
_LEAST_BITS = 15


class Last(NamedTuple):
    """What is known from the last time, each of shape (groups,)."""

    thresholds: jax.Array
    changes: jax.Array
    """How far they moved when they were last renewed."""


def candidates(
    last: Last | None, dtype: jnp.dtype, keys: order_statistics.Keys, groups: int
) -> jax.Array:
    """Keys to begin with, shape (_selection.CANDIDATES, groups).

    Args:
      last: None if there was no last time; all zero before the first. A threshold is
        expected to move on by as much as it did last, and looked for there, below by a
        quarter of this movement, and twice as much below and above.
      dtype: of the scores, float32 or float64.
      keys: what is known of their keys.
      groups: how many thresholds are looked for.
    """
    usual = sort_keys.to_key(jnp.array(_USUAL_MAGNITUDES, dtype))
    # The first key above zero tells whether the threshold is zero.
    above_zero = jnp.array([1 << keys.zero_bits], usual.dtype)
    unknown = jnp.concatenate([above_zero, usual])[:, None]
    if last is None:
        return jnp.broadcast_to(unknown, (order_statistics.CANDIDATES, groups))
    unit = keys.zero_bits
    key = sort_keys.to_key(last.thresholds) >> unit
    expected = jnp.maximum(last.thresholds + last.changes, 0)
    expected = sort_keys.to_key(expected) >> unit
    moved = jnp.where(expected > key, expected - key, key - expected)
    moved = jnp.maximum(moved, 1 << keys.smooth_bits - unit >> _LEAST_BITS)
    near, far = moved >> 2, moved << 1
    around = jnp.stack(
        [
            expected - jnp.clip(far, 1, expected),
            expected - jnp.minimum(near, expected),
            expected,
            expected + far + 1,
        ]
    )
    return jnp.where(key[None] > 0, around << unit, unknown)


def below(limits: jax.Array, keys: order_statistics.Keys) -> jax.Array:
    """Keys to begin with where thresholds are below limits, most of them not far.

    Args:
      limits: keys, shape (groups,).
      keys: what is known of them.

    Returns:
      Those of about 3/4, 1/2, 1/4 and 1/16 of the limits' magnitudes.
      shape=(_selection.CANDIDATES, groups)
    """
    octave = 1 << keys.smooth_bits
    steps = jnp.array([octave // 2, octave, 2 * octave, 4 * octave], limits.dtype)
    return jnp.maximum(limits[None] - steps[:, None], 0)
