"""Thresholds kept in the state of a transformation and renewed now and then."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from swd_jax._allocation.prunable_leaves import PrunableLeaf
from swd_jax._arrays import sort_keys, tree_paths, uint64
from swd_jax._arrays.manual_sharding import AxisName
from swd_jax._ranking import ranked_channels
from swd_jax._ranking.channel_ranking import ChannelRanking
from swd_jax._ranking.leaf_ranking import Ranking
from swd_jax._selection import warm_start
from swd_jax._targets import resolve
from swd_jax._targets.target import Target


class Remembered(NamedTuple):
    """What a state keeps from one update to the next: scalars, whatever the model.

    And, for criteria that gather something from step to step, that.
    """

    step: jax.Array
    threshold: jax.Array
    threshold_change: jax.Array
    fraction: jax.Array
    tracked: Any


class Selection(NamedTuple):
    """The weights that a target selects at a step."""

    leaves: list[PrunableLeaf]
    masks: list[jax.Array]
    """Where each leaf's scores are strictly below its limit."""
    limits: list[jax.Array]
    """The key of that: of the threshold, or lower for a leaf at its floor. shape=()"""
    threshold: jax.Array
    threshold_change: jax.Array
    fraction: jax.Array
    """Selected weights over prunable weights, when the threshold was last renewed."""
    tracked: Any
    """What criteria have gathered, this step included."""
    rankings: list[Ranking | ChannelRanking]

    def zeros(self, one: jax.Array) -> list[jax.Array]:
        """Where each leaf's weights are zero with all that lives and dies with them.

        Args:
          one: the integer 1, which the compiler must not know.
        """
        return [mask for ranking in self.rankings for mask in ranking.zeros(one)]


def start(targets: Sequence[Target], params: optax.Params) -> Remembered:
    """What there is to remember before the first step: zeros.

    Raises:
      ValueError: if a target does not fit the parameters.
    """
    found = resolve.find_leaves(targets, tree_paths.flatten(params), params)
    leaves = [leaf for of_target in found for leaf in of_target]
    dtype = sort_keys.score_dtype(*(leaf.weights.dtype for leaf in leaves))
    thresholds = sum(
        resolve.threshold_count(target, of_target)
        for target, of_target in zip(targets, found, strict=True)
    )
    for target, of_target in zip(targets, found, strict=True):
        resolve.check_leaves(target, of_target)
        ranked_channels.check_target(target, params)
    shape = () if _is_one(targets) else (thresholds,)
    return Remembered(
        step=jnp.zeros((), jnp.int32),
        threshold=jnp.zeros(shape, dtype),
        threshold_change=jnp.zeros(shape, dtype),
        fraction=jnp.zeros((), jnp.float32),
        tracked=resolve.start_tracking(targets, params),
    )


def _is_one(targets: Sequence[Target]) -> bool:
    """Whether there is a single threshold, whatever the parameters."""
    return len(targets) == 1 and targets[0].scope == "global"


def is_due(count: jax.Array, every: int) -> bool | jax.Array:
    """Whether the step of this number is one of every so many, the first included."""
    return True if isinstance(every, int) and every == 1 else count % every == 0


def select(
    targets: Sequence[Target],
    params: Any,
    last: Remembered,
    due: bool | jax.Array,
    axis_name: AxisName,
    *,
    gradient: Any,
    extra_args: Mapping[str, Any],
) -> Selection:
    """Select by the thresholds, renewed if that is due.

    Args:
      targets: what is pruned.
      params: the parameters.
      last: what was remembered.
      due: whether to renew the thresholds for the targets at step `last.step`.
      axis_name: mesh axes over which the parameters are divided by hand, if they are.
      gradient: a tree like the parameters, for criteria that look at it; None if the
        transformation has none.
      extra_args: those of `update`, for criteria that look at them.

    Returns:
      The selection, made from the current weights in either case.

    Raises:
      ValueError: if something that a criterion looks at is missing.
    """
    given = {"gradient": gradient, **extra_args}
    way = "it as an extra argument, update(updates, state, params, {name}=...)"
    tracked = resolve.track(targets, params, last.tracked, given["gradient"], way)
    _, ranked = resolve.rank(
        params, targets, axis_name, evidence={**given, "tracked": tracked}, way=way
    )
    thresholds = jnp.atleast_1d(last.threshold)
    changes = jnp.atleast_1d(last.threshold_change)
    leaves, masks, limits, renewed, below, total = [], [], [], [], [], 0
    rankings: list[Ranking | ChannelRanking] = []
    for of_target in ranked:
        ranking = of_target.ranking
        if not of_target.leaves:
            continue
        here = slice(len(renewed), len(renewed) + len(ranking.groups))
        found = ranking.thresholds(
            of_target.counts(last.step),
            last=warm_start.Last(
                thresholds[here].astype(ranking.dtype),
                changes[here].astype(ranking.dtype),
            ),
            renew=None if due is True else jnp.asarray(due),
        )
        rankings.append(ranking)
        leaves += of_target.leaves
        masks += ranking.expanded(ranking.below(found.limits))
        limits += found.limits
        scores = sort_keys.from_key(jnp.stack(found.keys), ranking.dtype)
        renewed += list(scores.astype(last.threshold.dtype))
        below.append(found.below)
        total += sum(ranking.sizes())
    if not leaves:
        kept = last.threshold, last.threshold_change, last.fraction
        return Selection([], [], [], *kept, tracked, [])
    threshold = jnp.stack(renewed).reshape(last.threshold.shape)
    return Selection(
        leaves,
        masks,
        limits,
        threshold=threshold,
        threshold_change=jnp.where(
            due, _change(last, threshold), last.threshold_change
        ),
        fraction=jnp.where(
            due, _fraction(jnp.concatenate(below), total), last.fraction
        ).astype(jnp.float32),
        tracked=tracked,
        rankings=rankings,
    )


def _change(last: Remembered, threshold: jax.Array) -> jax.Array:
    """How far the threshold has moved since it was remembered."""
    known = (last.step > 0) & jnp.isfinite(last.threshold) & jnp.isfinite(threshold)
    return jnp.where(known, threshold - last.threshold, 0)


def _fraction(below: jax.Array, total: int) -> jax.Array:
    """The selected share of all prunable weights."""
    selected = uint64.to_float32(uint64.sum_last_but_one(below))
    return selected / np.float32(max(total, 1))


def next_count(count: jax.Array) -> jax.Array:
    """One more, without wrapping round."""
    return jnp.asarray(optax.safe_increment(count))
