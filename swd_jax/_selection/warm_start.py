"""Initial candidates of a threshold search: near the previous threshold, if any.

Candidates affect the number of passes only, never the threshold that is found.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from swd_jax._arrays import sort_keys, uint64
from swd_jax._selection.bracket_candidates import NUM_CANDIDATES
from swd_jax._selection.order_statistics import KeyRange

# Most trained weights have magnitudes in this range.
_USUAL_MAGNITUDES = (2.0**-10, 2.0**-6, 2.0**-2)

# The least change that is expected of a threshold: its octave (a factor of 2) times
# 2^-15.
_MIN_CHANGE_BITS = 15


class Tracking(NamedTuple):
    """What a search with slack leaves to the next one, each field of one shape."""

    estimate: jax.Array
    """About where a search without slack ends."""
    error: jax.Array
    """How far that is from where it was expected."""
    slack_width: jax.Array
    """About how far apart two scores are, near the threshold, that the slack
    separates."""


class Estimates(NamedTuple):
    """Estimates after a search with slack, each field of shape (pools,)."""

    thresholds: jax.Array
    """See `Tracking.estimate`."""
    slack_widths: jax.Array
    """See `Tracking.slack_width`."""


class PreviousThresholds(NamedTuple):
    """The thresholds of the last refresh, each field of shape (pools,)."""

    thresholds: jax.Array
    changes: jax.Array
    """The threshold minus that of the refresh before (with tracking, of estimates)."""
    tracking: Tracking | None = None
    """For a search with slack."""

    def of_pools(self, pools: slice, dtype: DTypeLike) -> "PreviousThresholds":
        """Return those of some pools; fields may be scalars if there is one pool."""
        return jax.tree.map(
            lambda array: jnp.atleast_1d(array)[pools].astype(dtype), self
        )


def initial_candidates(
    previous: PreviousThresholds | None,
    dtype: jnp.dtype,
    key_range: KeyRange,
    num_pools: int,
) -> jax.Array:
    """Return initial candidates, shape (NUM_CANDIDATES, pools).

    Linear extrapolation: with c = abs(change) in keys and e = threshold + change, they
    are e - 2c, e - c/4, e and e + 2c. For a search with slack, whose width in keys is
    s, they are e - 3s/2, e - s/2 and e + s/2, of which one is near enough if e is wrong
    by less than 3s/2, and the last threshold itself, which stays near enough while
    there is a gap. The outer ones are further away if the last e was wrong by more.
    Without a previous threshold they are typical magnitudes of trained weights.

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
    octave = 1 << key_range.interpolation_bits - shift
    tracking = previous.tracking
    last = previous.thresholds if tracking is None else tracking.estimate
    key = sort_keys.to_key(last) >> shift
    expected = jnp.maximum(last + previous.changes, 0)
    expected = sort_keys.to_key(expected) >> shift
    if tracking is None:
        change = jnp.where(expected > key, expected - key, key - expected)
        change = jnp.maximum(change, octave >> _MIN_CHANGE_BITS)
        below, just_below, above = change << 1, change >> 2, change << 1
        unchanged = expected
    else:
        ends = sort_keys.to_key(last + tracking.slack_width) >> shift
        width = jnp.clip(ends - key, octave >> _MIN_CHANGE_BITS, octave)
        wrong = sort_keys.to_key(last + tracking.error) >> shift
        margin = jnp.clip(wrong - key, 0, octave) << 1
        # A little less than the half, so that no count falls between two candidates.
        just_below = (width - (width >> 4)) >> 1
        below = jnp.maximum(3 * just_below, margin)
        above = jnp.maximum(just_below, margin)
        unchanged = sort_keys.to_key(previous.thresholds) >> shift
    warm = jnp.stack(
        [
            expected - jnp.clip(below, 1, expected),
            expected - jnp.minimum(just_below, expected),
            unchanged,
            expected + above + 1,
        ]
    )
    return jnp.where(key[None] > 0, warm << shift, cold)


def estimate(
    keys: jax.Array,
    slack_widths: jax.Array,
    shortfall: jax.Array,
    slack: jax.Array,
    scores: jax.Array,
) -> Estimates:
    """Estimate where a search that has made use of its slack would have ended.

    Args:
      keys: the thresholds that were found, shape (pools,).
      slack_widths: as in `OrderStatistics`.
      shortfall: by how much the counts miss the budgets, at most the slack: emulated
        uint64, shape (pools, 4).
      slack: emulated uint64, shape (pools, 4).
      scores: those of the keys.
    """
    ends = keys + slack_widths
    is_finite = ends < sort_keys.largest_key(scores.dtype)
    ends = sort_keys.from_key(jnp.where(is_finite, ends, keys), scores.dtype)
    widths = jnp.where(is_finite, ends - scores, 0)
    share = uint64.to_float32(shortfall) / jnp.maximum(uint64.to_float32(slack), 1)
    return Estimates(scores + share.astype(scores.dtype) * widths, widths)


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
