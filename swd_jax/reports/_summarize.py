"""`summarize`: target and obtained sparsity, and what pruning would change."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import optax
from jax.core import Tracer
from jax.typing import ArrayLike

from swd_jax._allocation import sparsity_values
from swd_jax._arrays import tree_paths
from swd_jax._targets.by_platform import on_platform_of_weights
from swd_jax._targets.resolve import (
    RankedTarget,
    ResolvedTargets,
    rank,
    resolve_arguments,
)
from swd_jax._targets.target import Target, Targets
from swd_jax._transforms.selective_decay import AfterOptimizerState, SwdState
from swd_jax.reports import _chain_order, _diagnose
from swd_jax.reports._measure_leaves import measure_leaves, pruned_fraction
from swd_jax.reports._summary import Summary
from swd_jax.schedules import largest_stable_multiplier


# A report is a transfer of numbers to the host, which users ask for by calling it.
@jax.transfer_guard("allow")
def summarize(
    params: Any,
    target: Targets,
    *,
    step: ArrayLike | None = None,
    state: optax.OptState | None = None,
    extra_args: Mapping[str, Any] | None = None,
) -> Summary:
    """Report how sparse parameters are, and what pruning them to a target would do.

    Before `prune` it tells what pruning risks, after it that the target is met.

    Args:
      params: any tree of concrete arrays.
      target: what is pruned, or just the sparsity s, in [0, 1), or a schedule of it.
      step: where the target's sparsity is a schedule, the optimizer step at which it is
        wanted; by default the value on which the schedule settles.
      state: the optimizer state, with that of `swd`, `sparsify` or another
        transformation of this package in it. The report then has the warnings of
        `reports.diagnose` among its remarks, and with `swd` before SGD it says up to
        which learning rate that is sure to be stable at the last multiplier.
      extra_args: as for `prune`.

    Returns:
      A `Summary`: totals, a row for each prunable leaf, `emptied_leaves`, and what
      disappears with coupled channels; its `str` is a table, its `as_dict()` a flat
      dict of floats.

    Raises:
      ValueError: as `prune`; if the parameters are traced, since a report is for the
        host; or if state holds no state of this package, or was made for another target
        or other parameters.

    Examples:
      >>> import jax.numpy as jnp, swd_jax
      >>> params = {
      ...     "bias": jnp.zeros(2),
      ...     "kernel": jnp.array([[3.0, -4.0], [0.0, 0.0]]),
      ... }
      >>> print(swd_jax.summarize(params, 0.75))
      leaf          shape   weights  zeros  sparsity  pruned  residual
      ----------------------------------------------------------------
      kernel        (2, 2)        4      2    50.00%       3       0.6
      ----------------------------------------------------------------
      all prunable                4      2    50.00%       3       0.6
      <BLANKLINE>
      target sparsity 0.75, obtained 0.5
      residual 0.6: the share of the weights' norm that pruning takes away
      24 bytes as dense arrays, where a zero takes as much as any number; 13 stored
      sparsely once pruned
    """
    resolved = resolve_arguments(params, target, extra_args)
    targets = [entry.target for entry in resolved.targets]
    if any(isinstance(leaf, Tracer) for leaf in resolved.tree.leaves):
        raise ValueError(
            "params are traced, and a report needs their values: call summarize "
            "outside jit, or log the state of swd instead"
        )
    resolved = on_platform_of_weights(resolved)
    ranked_targets = rank(resolved, extra_args=extra_args)
    budgets = [ranked.budgets(step) for ranked in ranked_targets]
    measured = measure_leaves(ranked_targets, budgets)
    rows = measured.rows
    arrays = [leaf for _, _, leaf in tree_paths.arrays(resolved.tree)]
    bytes_dense = sum(map(_nbytes, arrays))
    bytes_saved = sum(
        _nbytes(leaf.weights) - _sparse_bytes(leaf.weights, row.pruned)
        for leaf, row in zip(measured.leaves, rows, strict=True)
    )
    summaries = (
        ranked.ranking.summary(budget)
        for ranked, budget in zip(ranked_targets, budgets, strict=True)
    )
    channels = tuple(summary for summary in summaries if summary is not None)
    warnings: tuple[str, ...] = ()
    if state is not None:
        warnings = _diagnose.find_warnings(
            resolved,
            ranked_targets,
            state,
            total_steps=None,
            extra_args=extra_args,
            step=step,
        )
    return Summary(
        target_sparsity=_target_sparsity(targets, ranked_targets, budgets, step),
        weights=sum(row.weights for row in rows),
        zeros=sum(row.zeros for row in rows),
        pruned=sum(row.pruned for row in rows),
        non_finite=sum(row.non_finite for row in rows),
        residual=measured.residual,
        parameters=sum(leaf.size for leaf in arrays),
        bytes_dense=bytes_dense,
        bytes_sparse=bytes_dense - bytes_saved,
        leaves=rows,
        largest_stable_learning_rate=_largest_stable_learning_rate(state),
        channels=channels,
        only_channels=len(channels) == len(targets) == 1,
        warnings=warnings,
        left_by_name=_left_by_name(resolved),
        non_finite_scores=sum(measured.non_finite_scores.values()),
    )


def _left_by_name(resolved: ResolvedTargets) -> tuple[str, ...]:
    """Return the leaves that no target prunes, and one leaves out for their names."""
    pruned = {leaf.path for leaf in resolved.leaves}
    left = [entry.structured.left_by_name for entry in resolved.targets]
    return tuple(path for path in dict.fromkeys(sum(left, ())) if path not in pruned)


def _target_sparsity(
    targets: Sequence[Target],
    ranked_targets: Sequence[RankedTarget],
    budgets: Sequence[jax.Array],
    step: ArrayLike | None,
) -> float:
    """Return the sparsity of all prunable weights: as given, if there is only one."""
    if len(targets) == 1 and isinstance(targets[0].scope, str):
        return float(sparsity_values.sparsity_at(targets[0].sparsity, step))
    return pruned_fraction(ranked_targets, budgets)


def _nbytes(array: jax.Array) -> int:
    return array.size * array.dtype.itemsize


def _sparse_bytes(weights: jax.Array, zeros: int) -> int:
    """Return the least of: dense, non-zeros with a bit mask, non-zeros with indices."""
    values = (weights.size - zeros) * weights.dtype.itemsize
    bit_mask = -(-weights.size // 8)
    indices = 4 * (weights.size - zeros)
    return min(_nbytes(weights), values + bit_mask, values + indices)


def _largest_stable_learning_rate(state: optax.OptState | None) -> float | None:
    """Return the limit of SGD after `swd`; None if something else stands there."""
    if state is None:
        return None
    coefficients = [
        float(placed.state.coefficient)
        for placed in _chain_order.placed_states(state)
        if isinstance(placed.state, SwdState)
        and not isinstance(placed.state, AfterOptimizerState)
        and placed.is_before_sgd
    ]
    if not coefficients:
        return None
    return largest_stable_multiplier(learning_rate=1.0, weight_decay=max(coefficients))
