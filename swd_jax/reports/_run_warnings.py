"""Warnings of a run's end, of its penalty or rise, and of places in the chain."""

from collections.abc import Iterator
from typing import Any

import jax

from swd_jax._transforms.latent_pruning import LatentState
from swd_jax._transforms.selective_decay import (
    AfterOptimizerState,
    BeforeOptimizerState,
    SwdState,
)
from swd_jax.reports import _chain_order
from swd_jax.reports._chain_order import PlacedState
from swd_jax.reports._measure_leaves import pruned_fraction
from swd_jax.reports._run import SETTLED_PART, Run
from swd_jax.reports._summary import LARGE_RESIDUAL, worst_leaf

# swd is nearly done by then, and the multiplier nearly as large as it gets.
_LATE_PART = 0.9
# The steps taken over those that were told.
_MUCH_LONGER = 2


def schedule_warnings(run: Run) -> Iterator[str]:
    """Warn of a schedule that is not done when the run is."""
    if run.total is None:
        return
    at_end = [ranked.budgets(run.total) for ranked in run.ranked_targets]
    reached, final = pruned_fraction(run.ranked_targets, at_end), run.final_fraction
    if reached < final:
        yield (
            f"The target's schedule has come to a sparsity of {reached:.4g} at step "
            f"{run.total:,}, the end of the run, and goes on to {final:.4g}. Let it "
            f"end by step {run.total:,}, or train for longer."
        )


def place_warnings(placed: PlacedState) -> Iterator[str]:
    """Warn of a transformation that does harm where it stands in the chain."""
    state = placed.state
    yield from _average_warnings(placed)
    if isinstance(state, BeforeOptimizerState):
        if placed.is_last and placed.follows_an_optimizer:
            coefficient = float(state.coefficient)
            now = f", now by {coefficient:.3g} of themselves" if coefficient else ""
            yield (
                "swd stands last, after an optimizer, so that its decay is added to "
                f"the final update: the selected weights grow at every step{now}, "
                "until the loss is NaN. Put it first, "
                "optax.chain(swd(...), optimizer), or use decoupled_swd or "
                "proximal_swd, which go last."
            )
        yield from _unsuited_optimizers(placed)
        return
    name = _goes_last(state)
    if name and placed.precedes_an_optimizer:
        harm = (
            "takes what it returns for a gradient, so that selected weights grow"
            if isinstance(state, SwdState)
            else "changes the final update again, so that pruned weights do not stay "
            "zero"
        )
        yield (
            f"{name} stands before an optimizer, or before its learning rate, which "
            f"{harm}. Put it last: optax.chain(optimizer, {name.split()[0]}(...))."
        )
    if isinstance(state, LatentState) and "whole matrices" in placed.before:
        yield (
            f"{name} stands after an optimizer that combines the gradients of a "
            "matrix, as Muon does, and spends most of its steps on pruned weights "
            f"there. Give it the optimizer: {name}(..., optimizer=...)."
        )


def _unsuited_optimizers(placed: PlacedState) -> Iterator[str]:
    """Warn of optimizers that do not pass the penalty of `swd` on to its weights."""
    if "whole matrices" in placed.after:
        yield (
            "swd stands before an optimizer that combines the gradients of a matrix, "
            "as Muon does, and gives the penalty of a weight to others too. Take "
            "sparsify(..., optimizer=...) instead."
        )
    if "loss values" in placed.after:
        yield (
            "swd stands before an optimizer that chooses its steps by values of the "
            "loss, which has no penalty in it, so that selected weights do not become "
            "small. Take sparsify after it instead."
        )


def _average_warnings(placed: PlacedState) -> Iterator[str]:
    """Warn of parameters that are evaluated, and are averages of those that train."""
    name = _goes_last(placed.state)
    if name and "averages" in placed.before:
        yield (
            f"{name} stands after schedule_free, and acts on the parameters that "
            "train, not on their average, which is evaluated. Put it inside, "
            f"schedule_free(optax.chain(optimizer, {name.split()[0]}(...)), ...), and "
            "prune what schedule_free_eval_params returns."
        )
    elif isinstance(placed.state, LatentState) and (
        "ScheduleFreeState" in placed.wrappers
    ):
        yield (
            f"{name} is inside schedule_free, and an average of sparse parameters is "
            "not sparse: prune what schedule_free_eval_params returns."
        )
    if "LookaheadState" in placed.wrappers:
        ours = name or ("swd" if isinstance(placed.state, SwdState) else "pruning")
        yield (
            f"{ours} is inside lookahead, which puts weights back to an average every "
            "few steps: networks that were trained so lost far more than without it. "
            "Leave lookahead out."
        )


def _goes_last(state: Any) -> str:
    """Return the name of a transformation that goes last, "" for others."""
    if isinstance(state, AfterOptimizerState):
        return "decoupled_swd (or proximal_swd)"
    if isinstance(state, LatentState):
        return _latent_name(state)
    return {
        "PruningState": "magnitude_pruning (or soft_pruning)",
        "KeepPrunedState": "keep_pruned",
    }.get(_chain_order.type_name(state), "")


def _latent_name(state: LatentState) -> str:
    return "sparsify" if int(state.total_steps) else "latent_pruning"


def penalty_warnings(run: Run, state: SwdState) -> Iterator[str]:
    """Warn of a penalty that has not pushed the selected weights to zero by the end."""
    count, residual = int(state.count), run.leaves.residual
    if not run.is_given or run.total is None or count < _LATE_PART * run.total:
        return
    if residual > LARGE_RESIDUAL:
        yield (
            f"At step {count:,} of {run.total:,} pruning would still take "
            f"{residual:.2g} of the norm of the weights: the penalty of swd is too "
            f"small. Raise a_max (the multiplier is {float(state.multiplier):.3g}), or "
            "use sparsify, which needs no multiplier."
        )
        return
    # The emptied ones have a warning of their own.
    damaged = [row for row in run.leaves.rows if not row.emptied]
    worst = worst_leaf(damaged)
    if worst is not None and worst.residual > LARGE_RESIDUAL:
        yield (
            f"At step {count:,} of {run.total:,} pruning would still take "
            f"{worst.residual:.2g} of the norm of {worst.path!r}, though only "
            f"{residual:.2g} of that of all weights: the penalty of swd has not made "
            "this leaf's selected weights small. Raise a_max (the multiplier is "
            f"{float(state.multiplier):.3g}), give each leaf its share with another "
            "scope, or leave the leaf out with prunable=... if it is frozen."
        )


def rise_warnings(run: Run, placed: PlacedState) -> Iterator[str]:
    """Warn of a rise that the run, or the optimizer, cannot follow."""
    state = placed.state
    count, rise_end = int(state.count), int(state.rise_end)
    fraction = float(state.selection.selected_fraction)
    name = _latent_name(state)
    is_reached = count >= rise_end if rise_end else fraction >= run.final_fraction
    told = int(state.total_steps)
    if told and count >= _MUCH_LONGER * told:
        yield (
            f"sparsify was told that the run has {told:,} steps, and it is at step "
            f"{count:,}. total_steps is the number of optimizer steps, one for each "
            "batch, not of epochs."
        )
    if run.is_given and run.total is not None and run.total < rise_end:
        yield (
            f"sparsify reaches its target at step {rise_end:,}, but the run ends at "
            f"step {run.total:,}. Tell it the length of the run: "
            f"sparsify(..., total_steps={run.total})."
        )
    if run.total is not None and count >= SETTLED_PART * run.total and not is_reached:
        steps_left = max(run.total - count, 0)
        pace, residual = float(state.relative_update), run.leaves.residual
        if 0 < pace * steps_left < residual and residual > LARGE_RESIDUAL:
            yield (
                f"The weights hardly move: at the pace of the last step the "
                f"{steps_left:,} steps that are left move them by at most "
                f"{pace * steps_left:.2g} of their norm, and pruning to the target "
                f"still takes {residual:.2g} of it. The network cannot make up for "
                "that: raise the learning rate, or train for more steps."
            )
    # The fractions are of the same weights only if the transformation sees them all.
    memory = jax.tree.leaves(state.memory)
    if not placed.sees_all or sum(array.size for array in memory) != run.weights:
        return
    zeros = run.zero_fraction
    if count > 0 and not placed.is_last and zeros < 0.5 * fraction:
        yield (
            f"{name} left a sparsity of {fraction:.4g} at its last step, and the "
            f"parameters have {zeros:.4g}: what stands after it in the chain changes "
            f"the final update. Put it last: optax.chain(optimizer, {name}(...))."
        )
    elif count > 0 and is_reached and zeros < 0.99 * fraction:
        yield (
            f"{name} left a sparsity of {fraction:.4g} at its last step, and the "
            f"parameters have {zeros:.4g}: something has changed them since, such as "
            "averaging, or restoring others. Once training is done, make them sparse "
            "with prune(params, target)."
        )
