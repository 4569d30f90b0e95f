"""Scores of coupled channels, from the scores of their weights in several leaves."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from swd_jax._arrays import axis_norms, sort_keys
from swd_jax._arrays.axis_norms import Norm
from swd_jax._arrays.explicit_sharding import replicate
from swd_jax._ranking import channel_order
from swd_jax._ranking.channel_layout import ChannelLayout
from swd_jax.criteria import _criterion, _magnitudes


class RankedScores(NamedTuple):
    """Scores of channels: arrays of shape (channels,).

    All are at least 0, and infinite where a weight is not finite.
    """

    scores: jax.Array
    """The numbers that order the channels."""
    tie_scores: jax.Array
    """The greatest of the `scores` of the channels that tie with each."""
    magnitudes: jax.Array | None
    """The norms of the scores of their weights; None if these may be negative."""


# Jitted as a whole, so that outside of jit no scores of single weights are stored.
@functools.partial(
    jax.jit, static_argnames=("layout", "criterion", "dtype", "is_local")
)
def ranked_scores(
    layout: ChannelLayout,
    criterion: _criterion.Criterion,
    score_inputs: list[_criterion.ScoreInputs],
    dtype: jnp.dtype,
    is_local: bool,
) -> RankedScores:
    """Return the scores of channels and the numbers that order the channels.

    Args:
      layout: the channels.
      criterion: the scoring rule of single weights.
      score_inputs: the weights of each leaf, their statistic and the extra inputs.
      dtype: the type of the scores.
      is_local: whether channels are ranked within their channel group, by the share of
        the channel group that is ranked before them.
    """
    scores = _channel_scores(layout, criterion, score_inputs, dtype)
    # All channels of a bundle have the score of its last channel.
    scores = channel_order.value_of_bundle_end(layout, sort_keys.to_key(scores), scores)
    order = _shares_of_group(layout, scores) if is_local else (scores, scores)
    return RankedScores(*order, None if criterion.signed else scores)


def _channel_scores(
    layout: ChannelLayout,
    criterion: _criterion.Criterion,
    score_inputs: Sequence[_criterion.ScoreInputs],
    dtype: jnp.dtype,
) -> jax.Array:
    scores = {
        leaf: _magnitudes.scores_with_signs(criterion, *score_inputs[leaf], dtype)
        for leaf in layout.scored_leaves
    }
    norm: Norm = "mean" if layout.norm == "bn_scale" else layout.norm
    if not criterion.signed:
        return _norms(layout, scores, norm, dtype)
    # A norm drops the sign: norm(positive part) - norm(negative part) keeps it.
    positive = {leaf: jnp.maximum(array, 0) for leaf, array in scores.items()}
    negative = {leaf: jnp.maximum(-array, 0) for leaf, array in scores.items()}
    return sort_keys.signed_to_nonnegative(
        _norms(layout, positive, norm, dtype) - _norms(layout, negative, norm, dtype)
    )


def _norms(
    layout: ChannelLayout, scores: dict[int, jax.Array], norm: Norm, dtype: jnp.dtype
) -> jax.Array:
    """Return the norm of each channel over all positions of all its members."""
    is_squared = norm in ("rms", "l2")
    norms_of_slices: dict[tuple[int, int], jax.Array] = {}
    norms: list[jax.Array] = []
    for members in layout.scored_members:
        norms_of_members, num_weights = [], 0
        for leaf, axis, positions in members:
            if (leaf, axis) not in norms_of_slices:
                norms_of_slices[leaf, axis] = _slice_norms(
                    scores[leaf], axis, is_squared
                )
            norms_of_members.append(norms_of_slices[leaf, axis][positions])
            shape = scores[leaf].shape
            num_weights += positions.shape[1] * (scores[leaf].size // shape[axis])
        rows = jnp.concatenate(norms_of_members, axis=1)
        total = _row_norms(rows) if is_squared else jnp.sum(rows, axis=1)
        if norm == "rms":
            total *= (1 / num_weights) ** 0.5
        elif norm == "mean":
            total *= 1 / num_weights
        norms.append(total.astype(dtype))
    return jnp.concatenate(norms)


def _slice_norms(scores: jax.Array, axis: int, is_squared: bool) -> jax.Array:
    """Return the norm of the slice at each position of an axis: shape (length,)."""
    if scores.ndim == 1:
        sizes = jnp.abs(scores)
        return replicate(jnp.where(jnp.isfinite(sizes), sizes, jnp.inf))
    other_axes = [other for other in range(scores.ndim) if other != axis]
    norms = axis_norms.norms_along_axes(
        scores, other_axes, 1, "l2" if is_squared else "l1"
    )
    return replicate(jnp.squeeze(norms, other_axes))


def _row_norms(rows: jax.Array) -> jax.Array:
    """Return the L2 norms of rows, whose squares may overflow or underflow."""
    largest = jnp.max(rows, axis=1, keepdims=True)
    is_scalable = jnp.isfinite(largest) & (largest > 0)
    scaled = rows / jnp.where(is_scalable, largest, 1)
    roots = jnp.sqrt(jnp.sum(jnp.square(scaled), axis=1, keepdims=True))
    return jnp.squeeze(jnp.where(is_scalable, roots * largest, largest), 1)


def _shares_of_group(
    layout: ChannelLayout, scores: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the share of its channel group that is ranked before each channel.

    Returns:
      The share before the last channel of each channel's bundle, and the share before
      the last channel that ties with it. Infinity where the score is infinite.
    """
    keys = sort_keys.to_key(scores)
    ranks = channel_order.rank_by([layout.group_of_channel, keys])
    numbers = jnp.arange(len(ranks), dtype=jnp.int32)
    order = jnp.zeros_like(ranks).at[ranks].set(numbers)
    keys_in_order = keys[order]
    groups_in_order = jnp.asarray(layout.group_of_channel)[order]
    is_last_tie = (keys_in_order[1:] != keys_in_order[:-1]) | (
        groups_in_order[1:] != groups_in_order[:-1]
    )
    is_last_tie = jnp.concatenate([is_last_tie, jnp.ones(1, bool)])
    rank_of_last_tie = jax.lax.cummin(
        jnp.where(is_last_tie, numbers, len(ranks)), reverse=True
    )[ranks]
    group_sizes = layout.group_sizes.astype(scores.dtype)
    is_finite = keys < sort_keys.largest_key(scores.dtype)

    def share(ranks_in_group: jax.Array) -> jax.Array:
        shares = ranks_in_group.astype(scores.dtype) / group_sizes
        return jnp.where(is_finite, shares, jnp.inf)

    first = layout.first_channels
    return (
        share(channel_order.bundle_end(layout, ranks - first)),
        share(rank_of_last_tie - first),
    )
