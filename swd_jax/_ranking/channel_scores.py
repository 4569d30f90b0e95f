"""The scores of coupled channels, from those of single weights in several leaves."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from swd_jax._arrays import axis_norms, sort_keys
from swd_jax._arrays.axis_norms import Norm
from swd_jax._arrays.manual_sharding import undivided
from swd_jax._ranking.channel_layout import Layout
from swd_jax.criteria import _criterion, _magnitudes


def channel_scores(
    layout: Layout,
    criterion: _criterion.Criterion,
    of_leaves: Sequence[_criterion.Scored],
    dtype: jnp.dtype,
) -> jax.Array:
    """One score for every channel, at least 0: infinity where a weight is not finite.

    Args:
      layout: the channels and where they are in the leaves.
      criterion: what scores single weights.
      of_leaves: what it is given of each leaf.
      dtype: of the scores.

    Returns:
      The scores, shape (channels,).
    """
    scores = {
        i: _magnitudes.scores_with_signs(criterion, *of_leaves[i], dtype)
        for i in layout.scored_leaves
    }
    norm: Norm = "mean" if layout.score == "bn_scale" else layout.score
    if not criterion.signed:
        return _norms(layout, scores, norm, dtype)
    # A norm has no sign: what speaks for a channel, less what speaks against it.
    above = {i: jnp.maximum(each, 0) for i, each in scores.items()}
    below = {i: jnp.maximum(-each, 0) for i, each in scores.items()}
    difference = [_norms(layout, part, norm, dtype) for part in (above, below)]
    return sort_keys.ordered(difference[0] - difference[1])


def _norms(
    layout: Layout, scores: dict[int, jax.Array], norm: Norm, dtype: jnp.dtype
) -> jax.Array:
    """The norm of each channel over all positions of all its members."""
    squared = norm in ("rms", "l2")
    slices: dict[tuple[int, int], jax.Array] = {}
    found: list[jax.Array] = []
    for members in layout.scored_members:
        parts, count = [], 0
        for leaf, axis, indices in members:
            if (leaf, axis) not in slices:
                slices[leaf, axis] = _of_slices(scores[leaf], axis, squared)
            parts.append(slices[leaf, axis][indices])
            shape = scores[leaf].shape
            count += indices.shape[1] * (scores[leaf].size // shape[axis])
        norms = jnp.concatenate(parts, axis=1)
        total = _root_of_squares(norms) if squared else jnp.sum(norms, axis=1)
        if norm == "rms":
            total *= (1 / count) ** 0.5
        elif norm == "mean":
            total *= 1 / count
        found.append(total.astype(dtype))
    return jnp.concatenate(found)


def _of_slices(scores: jax.Array, axis: int, squared: bool) -> jax.Array:
    """The norm of what is at each index of an axis: shape (length of the axis,)."""
    if scores.ndim == 1:
        sizes = jnp.abs(scores)
        return undivided(jnp.where(jnp.isfinite(sizes), sizes, jnp.inf))
    others = [other for other in range(scores.ndim) if other != axis]
    norms = axis_norms.group_norms(scores, others, 1, "l2" if squared else "l1")
    return undivided(jnp.squeeze(norms, others))


def _root_of_squares(norms: jax.Array) -> jax.Array:
    """The norms of rows, whose squares may be too large or too small for the type."""
    largest = jnp.max(norms, axis=1, keepdims=True)
    usable = jnp.isfinite(largest) & (largest > 0)
    shares = norms / jnp.where(usable, largest, 1)
    roots = jnp.sqrt(jnp.sum(jnp.square(shares), axis=1, keepdims=True))
    return jnp.squeeze(jnp.where(usable, roots * largest, largest), 1)
