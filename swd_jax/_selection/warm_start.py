"""Initial candidates of a threshold search: near the previous threshold, if any.

Candidates affect the number of passes only, never the threshold that is found.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from swd_jax._arrays import sort_keys
from swd_jax._selection.bracket_candidates import NUM_CANDIDATES
from swd_jax._selection.order_statistics import KeyRange

# Most trained weights have magnitudes in this range.
_USUAL_MAGNITUDES = (2.0**-10, 2.0**-6, 2.0**-2)

# The least change that is expected of a threshold: its octave (a factor of 2) times
# 2^-15.
_MIN_CHANGE_BITS = 15


class PreviousThresholds(NamedTuple):
    """The thresholds of the last refresh, each field of shape (pools,)."""

    thresholds: jax.Array
    changes: jax.Array
    """The threshold minus that of the refresh before."""


def initial_candidates(
    previous: PreviousThresholds | None,
    dtype: jnp.dtype,
    key_range: KeyRange,
    num_pools: int,
) -> jax.Array:
    """Return initial candidates, shape (NUM_CANDIDATES, pools).

    Linear extrapolation: with c = abs(change) in keys and e = threshold + change, they
    are e - 2c, e - c/4, e and e + 2c. Without a previous threshold they are typical
    magnitudes of trained weights.

    Args:
      previous: None for a cold start; thresholds are zero before the first refresh.
      dtype: of the scores, float32 or float64.
      key_range: properties of the scores' keys.
      num_pools: the number of thresholds.
    """
    usual = sort_keys.to_key(jnp.array(_USUAL_MAGNITUDES, dtype))
    # The count below the first key above zero tells whether the threshold is zero.
    above_zero = jnp.array([1 << key_range.trailing_zero_bits], usual.dtype)
    cold = jnp.concatenate([above_zero, usual])[:, None]
    if previous is None:
        return jnp.broadcast_to(cold, (NUM_CANDIDATES, num_pools))
    shift = key_range.trailing_zero_bits
    key = sort_keys.to_key(previous.thresholds) >> shift
    expected = jnp.maximum(previous.thresholds + previous.changes, 0)
    expected = sort_keys.to_key(expected) >> shift
    change = jnp.where(expected > key, expected - key, key - expected)
    octave = 1 << key_range.interpolation_bits - shift
    change = jnp.maximum(change, octave >> _MIN_CHANGE_BITS)
    quarter, double = change >> 2, change << 1
    warm = jnp.stack(
        [
            expected - jnp.clip(double, 1, expected),
            expected - jnp.minimum(quarter, expected),
            expected,
            expected + double + 1,
        ]
    )
    return jnp.where(key[None] > 0, warm << shift, cold)


def candidates_below(upper_keys: jax.Array, key_range: KeyRange) -> jax.Array:
    """Return initial candidates for thresholds that are below known keys.

    Args:
      upper_keys: shape (pools,). Most thresholds are expected to be near to them.
      key_range: properties of the keys.

    Returns:
      Keys of about 3/4, 1/2, 1/4 and 1/16 of the magnitudes of the upper keys.
      shape=(NUM_CANDIDATES, pools)
    """
    octave = 1 << key_range.interpolation_bits
    steps = [octave // 2, octave, 2 * octave, 4 * octave]
    offsets = jnp.array(steps, upper_keys.dtype)
    return jnp.maximum(upper_keys[None] - offsets[:, None], 0)
