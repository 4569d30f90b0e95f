"""`diagnose`: in words, why a run will not end as sparse as it should."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import optax
from jax.core import Tracer
from jax.typing import ArrayLike

from swd_jax._arguments import validation
from swd_jax._targets.by_platform import on_platform_of_weights
from swd_jax._targets.resolve import (
    RankedTarget,
    ResolvedTargets,
    rank,
    resolve_arguments,
)
from swd_jax._targets.state_checks import arrays_of_leaves
from swd_jax._targets.target import Targets
from swd_jax._transforms import threshold_state
from swd_jax._transforms.latent_pruning import LatentState
from swd_jax._transforms.selective_decay import SwdState
from swd_jax.reports import _chain_order
from swd_jax.reports._chain_order import PlacedState
from swd_jax.reports._emptied_warnings import emptied_warnings
from swd_jax.reports._layout_warnings import layout_warnings
from swd_jax.reports._leaf_warnings import leaf_warnings
from swd_jax.reports._measure_leaves import measure_leaves
from swd_jax.reports._run import Run
from swd_jax.reports._run_warnings import (
    penalty_warnings,
    place_warnings,
    rise_warnings,
    schedule_warnings,
)


# A report is a transfer of numbers to the host, which users ask for by calling it.
@jax.transfer_guard("allow")
def diagnose(
    params: Any,
    target: Targets,
    state: optax.OptState,
    *,
    total_steps: int | None = None,
    extra_args: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """Say in words what will keep a run from becoming sparse, and the way out.

    A few lines for the training loop, once an epoch, outside `jit`:

        for warning in swd_jax.diagnose(params, target, opt_state):
            print(warning)

    It costs about as much as two calls of `prune`. There is a warning if

    - the run ends before the target is reached, by `sparsify` or by a schedule;
    - the run has come to twice the number of steps that `sparsify` was told, which may
      have been epochs;
    - `sparsify` moves the weights so little that the steps left cannot make up for
      what pruning still takes: (steps left) ||update|| / ||kept weights|| is less than
      the residual of the `Summary`, and that is more than 0.1. Not in the first tenth
      of the run, which may be a warmup;
    - parameters have lost the zeros of `sparsify`, as by averaging;
    - the penalty of `swd` leaves a residual of more than 0.1 in the last tenth of the
      run;
    - the whole target, with the weights as they are now (for `sparsify`: the latent
      ones), would leave a leaf nothing, or less than a hundredth of the share that it
      leaves all leaves. Not in the first tenth of the run, and not before the sparsity
      has come three quarters of the way: the layers of a new network differ in scale;
    - a transformation stands in the wrong place of the chain, as far as the states
      around it tell: `swd` last, after an optimizer; the others before one; `sparsify`
      after Muon, which it should be given; `swd` before Muon, or before an optimizer
      that reads values of the loss; others than `swd` after `schedule_free`, or
      `sparsify` inside what averages parameters;
    - no step reaches a leaf, as with `optax.set_to_zero` in a partition; a leaf is zero
      before the first step of `swd`; or `Channel` extends over the layers of a stack;
    - `Channel(-1)`, the default, prunes the inputs of Equinox's layers;
    - weights or their scores are NaN or infinite, or gradients were, so that a
      criterion left them out of what it accumulates.

    Args:
      params: the parameters, any tree of concrete arrays.
      target: what is pruned, or just the sparsity; for `sparsify` the target it was
        given. Of a schedule, the value on which it settles.
      state: the state of one optimizer, with that of a transformation of this package
        in it, at any depth.
      total_steps: the number of optimizer steps of the whole run. By default what
        `sparsify` was told; without either, nothing is said of the run's end.
      extra_args: as for `prune`.

    Returns:
      The warnings, a sentence or two each; () if all is well or too little is known.

    Raises:
      ValueError: as `prune`; if total_steps is not a whole number of at least 1; if
        state holds no state of this package, or the only one was made for another
        target or other parameters; if the parameters or the state are traced; or for a
        schedule that does not settle, without `total_steps`.

    Examples:
      >>> import jax.numpy as jnp, optax, swd_jax
      >>> params = {"kernel": jnp.array([[0.1, -0.2, 3.0, 4.0]])}
      >>> pruning = swd_jax.sparsify(0.5, total_steps=1000, end=700)
      >>> tx = optax.chain(optax.adam(0.1), pruning)
      >>> state = tx.init(params)
      >>> swd_jax.diagnose(params, 0.5, state)
      ()
      >>> for warning in swd_jax.diagnose(params, 0.5, state, total_steps=600):
      ...     print(warning)
      sparsify reaches its target at step 700, but the run ends at step 600. Tell it the
      length of the run: sparsify(..., total_steps=600).
    """
    if total_steps is not None:
        validation.as_step_count("total_steps", total_steps, minimum=1)
        total_steps = int(total_steps)
    resolved = on_platform_of_weights(resolve_arguments(params, target, extra_args))
    return find_warnings(
        resolved,
        rank(resolved, extra_args=extra_args),
        state,
        total_steps=total_steps,
        extra_args=extra_args,
    )


def find_warnings(
    resolved: ResolvedTargets,
    ranked_targets: Sequence[RankedTarget],
    state: optax.OptState,
    *,
    total_steps: int | None,
    extra_args: Mapping[str, Any] | None,
    step: ArrayLike | None = None,
) -> tuple[str, ...]:
    """Return the warnings of `diagnose`.

    Args:
      resolved: the targets and their leaves.
      ranked_targets: the same, ranked.
      state: as for `diagnose`, like the other arguments without a text.
      total_steps: the steps of the run, if they are known.
      extra_args: what criteria read besides the weights.
      step: the step that stands for the end where a schedule does not settle and
        `total_steps` is unknown.
    """
    _check_concrete(resolved, state)
    placed_states = placed_in(state)
    _check_made_for(resolved, placed_states)
    told = [
        int(placed.state.total_steps)
        for placed in placed_states
        if isinstance(placed.state, LatentState)
    ]
    total = total_steps or max(told, default=0) or None
    budgets = _final_budgets(ranked_targets, total if total is not None else step)
    run = Run(
        total=total,
        is_given=total_steps is not None,
        resolved=resolved,
        ranked_targets=ranked_targets,
        budgets=budgets,
        leaves=measure_leaves(ranked_targets, budgets),
        extra_args=extra_args,
    )
    warnings = list(schedule_warnings(run))
    for placed in placed_states:
        warnings += place_warnings(placed)
        if isinstance(placed.state, SwdState):
            warnings += penalty_warnings(run, placed.state)
        if isinstance(placed.state, LatentState):
            warnings += rise_warnings(run, placed)
    warnings += emptied_warnings(run, placed_states)
    warnings += leaf_warnings(run, placed_states, state)
    warnings += layout_warnings(resolved)
    return tuple(dict.fromkeys(warnings))


def placed_in(state: optax.OptState) -> list[PlacedState]:
    """Return the states of this package in an optimizer's state.

    Raises:
      ValueError: if there are none.
    """
    placed_states = _chain_order.placed_states(state)
    if not placed_states:
        raise ValueError(
            "state holds no state of swd, of sparsify or of another transformation of "
            "swd_jax: give the optimizer state of a chain with one of them in it"
        )
    return placed_states


def _check_made_for(
    resolved: ResolvedTargets, placed_states: Sequence[PlacedState]
) -> None:
    """Raise if the only state of thresholds is that of another target.

    Each of several states may be that of one of several targets.
    """
    selecting = [
        placed for placed in placed_states if hasattr(placed.state, "selection")
    ]
    if len(selecting) != 1 or not selecting[0].sees_all:
        return
    state = selecting[0].state
    threshold_state.check(state.selection, resolved)
    if isinstance(state, LatentState):
        leaves = sorted(resolved.leaves, key=lambda leaf: leaf.position)
        arrays_of_leaves("state.memory", "arrays", state.memory, leaves)


def _check_concrete(resolved: ResolvedTargets, state: optax.OptState) -> None:
    for name, leaves in (
        ("params are", resolved.tree.leaves),
        ("state is", jax.tree.leaves(state)),
    ):
        if any(isinstance(leaf, Tracer) for leaf in leaves):
            raise ValueError(
                f"{name} traced, and warnings need values: call diagnose outside jit"
            )


def _final_budgets(
    ranked_targets: Sequence[RankedTarget], late_step: ArrayLike | None
) -> list[jax.Array]:
    try:
        return [ranked.budgets(None) for ranked in ranked_targets]
    except ValueError as error:
        if late_step is None:
            raise ValueError(
                "the target's sparsity is a schedule that does not settle: give the "
                "length of the run, total_steps=..."
            ) from error
    return [ranked.budgets(late_step) for ranked in ranked_targets]
