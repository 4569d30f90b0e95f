"""`ThresholdState`: thresholds kept between updates, and refreshed every n steps."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from swd_jax._allocation import exact_counts
from swd_jax._allocation.prunable_leaves import PrunableLeaf
from swd_jax._arrays import sort_keys, uint64
from swd_jax._arrays.manual_sharding import AxisName
from swd_jax._ranking.ranking import Ranking
from swd_jax._selection import warm_start
from swd_jax._selection.warm_start import Tracking
from swd_jax._targets import accumulators, extra_arguments, resolve
from swd_jax._targets.resolve import ResolvedTargets
from swd_jax._targets.state_checks import check_fields, check_thresholds
from swd_jax._targets.target import Target


class ThresholdState(NamedTuple):
    """The thresholds of some targets and what they select: scalars, whatever the model.

    Part of the state of every transformation that selects weights, so that a logger
    reads any of them with `optax.tree_utils.tree_get(state, "selected_fraction")`. All
    values are those of the last refresh, and 0 before the first.
    """

    threshold: jax.Array
    """tau, below which scores are selected. shape=() for a single target with
    scope="global", else (thresholds,): one for each pool, target by target; float32, or
    float64 among float64 weights. Where `NM` selects all weights that it may prune, it
    is the largest finite number."""
    threshold_change: jax.Array
    """The last change of tau (or of its estimate, see `tracking`), from which the next
    search starts. In the shape and type of the threshold; 0 while that is infinite,
    or the largest finite number."""
    selected_fraction: jax.Array
    """Selected weights over prunable weights. shape=(), dtype=float32"""
    accumulated: Any = ()
    """The arrays that the criterion accumulates from step to step: a tree like the
    parameters, float32, with `optax.MaskedNode` where nothing is pruned. () for a
    criterion that accumulates nothing."""
    tracking: Tracking | tuple[()] = ()
    """An estimate of the exact tau, in the shape and type of the threshold. () for a
    tolerance of 0, which finds it."""
    steps_left_out: jax.Array | tuple[()] = ()
    """The number of steps at which gradients were NaN or infinite, so that a part of
    what the criterion accumulates was left out. shape=(), dtype=int32; () for a
    criterion that accumulates nothing."""


class TargetSelection(NamedTuple):
    """The weights that one target selects at a step: as `Selection`, of its leaves."""

    ranking: Ranking
    leaves: list[PrunableLeaf]
    masks: list[jax.Array]
    leaf_thresholds: list[jax.Array]


class Selection(NamedTuple):
    """The weights that some targets select at a step."""

    leaves: list[PrunableLeaf]
    masks: list[jax.Array]
    """The weights of each leaf whose scores are strictly below its threshold."""
    leaf_thresholds: list[jax.Array]
    """The sort key of each leaf's threshold: that of its pool, or a lower one for a
    leaf at its cap. shape=()"""
    state: ThresholdState
    """The state after this step."""
    rankings: list[Ranking]

    def by_target(self) -> Iterator["TargetSelection"]:
        """Yield the part of the selection that each target has made."""
        start = 0
        for ranking in self.rankings:
            part = slice(start, start + len(ranking.weights))
            yield TargetSelection(
                ranking, self.leaves[part], self.masks[part], self.leaf_thresholds[part]
            )
            start = part.stop

    def zero_masks(self, opaque_one: jax.Array) -> list[jax.Array]:
        """Return the weights of every leaf whose whole unit is exactly zero.

        Args:
          opaque_one: the integer 1 as a value that the compiler cannot fold.
        """
        rankings = self.rankings
        return [mask for ranking in rankings for mask in ranking.zero_masks(opaque_one)]


def init(
    targets: Sequence[Target], params: optax.Params, tolerance: Fraction = Fraction(0)
) -> ThresholdState:
    """Return the state before the first step: zeros.

    Args:
      targets: what is selected.
      params: the parameters.
      tolerance: as for `select`.

    Raises:
      ValueError: if a target does not fit the parameters.
    """
    resolved = resolve.resolve(targets, params)
    for entry in resolved.targets:
        entry.check_leaves()
    leaves = [leaf for entry in resolved.targets for leaf in entry.leaves]
    dtype = sort_keys.score_dtype(*(leaf.weights.dtype for leaf in leaves))
    shape = _shape(resolved)
    accumulates = any(target.criterion.accumulator for target in targets)
    return ThresholdState(
        threshold=jnp.zeros(shape, dtype),
        threshold_change=jnp.zeros(shape, dtype),
        selected_fraction=jnp.zeros((), jnp.float32),
        accumulated=accumulators.init(resolved),
        tracking=Tracking(*jnp.zeros((3, *shape), dtype)) if tolerance else (),
        steps_left_out=jnp.zeros((), jnp.int32) if accumulates else (),
    )


def _shape(resolved: ResolvedTargets) -> tuple[int, ...]:
    """Return the shape of the thresholds."""
    targets = resolved.targets
    if len(targets) == 1 and targets[0].target.scope == "global":
        return ()
    return (sum(entry.structured.num_thresholds for entry in targets),)


def check(state: ThresholdState, resolved: ResolvedTargets) -> None:
    """Raise if a state was not made for some targets and parameters.

    Raises:
      ValueError: if the number of thresholds differs.
    """
    check_fields(
        "a target", state, ("threshold", "threshold_change"), may_have_more=True
    )
    check_thresholds(state.threshold.shape, _shape(resolved))


def should_refresh(count: jax.Array, update_every: int) -> bool | jax.Array:
    """Return whether this step is one of every `update_every`, the first included."""
    if isinstance(update_every, int) and update_every == 1:
        return True
    return count % update_every == 0


def select(
    resolved: ResolvedTargets,
    state: ThresholdState,
    step: jax.Array,
    refresh: bool | jax.Array,
    axis_name: AxisName,
    *,
    gradient: Any,
    extra_args: Mapping[str, Any],
    tolerance: Fraction = Fraction(0),
) -> Selection:
    """Select the weights below the thresholds, refreshed first if that is due.

    Args:
      resolved: the targets and the leaves of the current parameters.
      state: the state after the previous step.
      step: the optimizer step, at which schedules are evaluated.
      refresh: whether to search for the thresholds anew. The selection is made from
        the current weights in either case.
      axis_name: the mesh axes over which the parameters are sharded by hand.
      gradient: a tree like the parameters, for criteria that read it; None if the
        transformation has none.
      extra_args: those of `update`, for criteria that read them.
      tolerance: the fraction of the weights of each pool by which a selection may fall
        short of k at a refresh.

    Raises:
      ValueError: if something that a criterion reads is missing.
    """
    check(state, resolved)
    extra_args = {"gradient": gradient, **extra_args}
    how_to_pass = extra_arguments.TO_UPDATE
    gathered = accumulators.update(
        resolved, state.accumulated, extra_args["gradient"], how_to_pass, axis_name
    )
    if gathered is not None:
        state = state._replace(
            accumulated=gathered.tree,
            steps_left_out=_steps_left_out(state, gathered.is_incomplete),
        )
    ranked = resolve.rank(
        resolved,
        axis_name,
        extra_args={**extra_args, "accumulated": state.accumulated},
        how_to_pass=how_to_pass,
    )
    if not ranked:
        return Selection([], [], [], state, [])
    state = state._replace(tracking=_tracking(state, has_tolerance=tolerance > 0))
    previous = warm_start.PreviousThresholds(
        state.threshold, state.threshold_change, state.tracking or None
    )
    leaves, masks, leaf_thresholds, thresholds, selected = [], [], [], [], []
    estimates: list[warm_start.Estimates] = []
    for target in ranked:
        ranking = target.ranking
        start = len(thresholds)
        of_target = slice(start, start + ranking.num_thresholds)
        budgets, slack = target.budgets(step), None
        if tolerance:
            slack = exact_counts.known_counts(tolerance, ranking.pool_sizes())
        new = ranking.find_thresholds(
            budgets,
            slack=slack,
            previous=previous.of_pools(of_target, ranking.dtype),
            refresh=None if refresh is True else jnp.asarray(refresh),
        )
        leaves += target.leaves
        masks += ranking.masks_below(new.leaf_thresholds)
        leaf_thresholds += new.leaf_thresholds
        keys = jnp.stack(new.keys)
        if ranking.has_protected_weights:
            # `jax_debug_infs` raises at a state with the infinity of these weights.
            keys = jnp.minimum(keys, sort_keys.largest_key(ranking.dtype) - 1)
        scores = sort_keys.from_key(keys, ranking.dtype)
        thresholds += list(scores.astype(state.threshold.dtype))
        selected.append(new.counts_selected)
        if slack is not None:
            shortfall = uint64.subtract(budgets, new.counts_below)
            estimates.append(
                warm_start.estimate(keys, new.slack_widths, shortfall, slack, scores)
            )
    threshold = jnp.stack(thresholds).reshape(state.threshold.shape)
    change, tracking = _changes(state, step, threshold, estimates)
    total = sum(sum(target.ranking.pool_sizes()) for target in ranked)
    fraction = _selected_fraction(jnp.concatenate(selected), total)
    refreshed = ThresholdState(
        threshold, change, fraction, accumulated=(), tracking=tracking
    )
    if refresh is not True:
        last = state._replace(accumulated=(), steps_left_out=())
        refreshed = jax.tree.map(
            lambda new, old: jnp.where(refresh, new, old), refreshed, last
        )
    new_state = refreshed._replace(
        accumulated=state.accumulated, steps_left_out=state.steps_left_out
    )
    rankings = [target.ranking for target in ranked]
    return Selection(leaves, masks, leaf_thresholds, new_state, rankings)


def _steps_left_out(state: ThresholdState, is_incomplete: jax.Array) -> jax.Array:
    """Return the count of steps of which something was left out, after this one."""
    # A state that was saved before there was a count has () here.
    is_counted = not isinstance(state.steps_left_out, tuple)
    count = jnp.asarray(state.steps_left_out if is_counted else 0, jnp.int32)
    return jnp.where(is_incomplete, increment(count), count)


def _tracking(state: ThresholdState, *, has_tolerance: bool) -> Tracking | tuple[()]:
    """Return the tracking of a state.

    A run may go on with a tolerance that began without one, or without one that began
    with it.
    """
    if not has_tolerance:
        return ()
    zeros = jnp.zeros_like(state.threshold)
    return state.tracking or Tracking(state.threshold, zeros, zeros)


def _changes(
    state: ThresholdState,
    step: jax.Array,
    threshold: jax.Array,
    estimates: Sequence[warm_start.Estimates],
) -> tuple[jax.Array, Tracking | tuple[()]]:
    """Return how far the threshold has moved, and where an exact one is thought to be.

    Numbers that have no meaning are 0.
    """
    # The largest finite number stands for the infinity of protected weights.
    largest = jnp.finfo(threshold.dtype).max
    is_known = (step > 0) & (state.threshold < largest) & (threshold < largest)
    if not estimates:
        return jnp.where(is_known, threshold - state.threshold, 0), ()
    new, width = (
        jnp.concatenate(arrays).astype(threshold.dtype).reshape(threshold.shape)
        for arrays in zip(*estimates, strict=True)
    )
    assert state.tracking
    change = jnp.where(is_known, new - state.tracking.estimate, 0)
    error = jnp.where(is_known, jnp.abs(change - state.threshold_change), 0)
    return change, Tracking(new, error, width)


def _selected_fraction(counts: jax.Array, total: int) -> jax.Array:
    """Return the selected share of all prunable weights."""
    selected = uint64.to_float32(uint64.sum_short_axis(counts))
    return selected / np.float32(max(total, 1))


def increment(count: jax.Array) -> jax.Array:
    """Return the count of steps plus one, without wrapping round."""
    return jnp.asarray(optax.safe_increment(count))
