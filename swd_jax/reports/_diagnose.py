"""`diagnose`: in words, why a run will not end as sparse as it should."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jax.typing import ArrayLike

from swd_jax._arguments import validation
from swd_jax._arrays import sort_keys
from swd_jax._targets.extra_arguments import check_extra_args
from swd_jax._targets.resolve import RankedTarget, ResolvedTargets, rank, resolve
from swd_jax._targets.target import Targets, as_targets
from swd_jax._transforms.latent_pruning import LatentState
from swd_jax._transforms.selective_decay import (
    AfterOptimizerState,
    BeforeOptimizerState,
    SwdState,
)
from swd_jax.reports import _chain_order
from swd_jax.reports._chain_order import PlacedState
from swd_jax.reports._measure_leaves import (
    MeasuredLeaves,
    measure_leaves,
    pruned_fraction,
)
from swd_jax.reports._summary import LeafSummary
from swd_jax.structures._coupled_channels import CoupledChannels

# Warmup is over by then: before, the last step says little of those to come.
_SETTLED_PART = 0.1
# swd is nearly done by then, and the multiplier nearly as large as it gets.
_LATE_PART = 0.9
# Pruning takes a tenth of the norm, 1 % of the sum of squares.
_LARGE_RESIDUAL = 0.1
# The density of a leaf over that of its target. Layers that train well differ by a
# factor of ten or so.
_STARVED = 0.01
# Of the final sparsity, where leaves that would be emptied are named: a cubic rise has
# come as far after 37 % of its steps.
_MOST = 0.75
_PATHS_NAMED = 3


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

        for warning in swd_jax.reports.diagnose(params, target, opt_state):
            print(warning)

    It costs about as much as two calls of `prune`. There is a warning if

    - the run ends before the target is reached, by `sparsify` or by a schedule;
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
      around it tell: `swd` last, after an optimizer; the others before one.

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
        state holds no state of this package; if the parameters or the state are
        traced; or for a schedule that does not settle, without `total_steps`.

    Examples:
      >>> import jax.numpy as jnp, optax, swd_jax
      >>> params = {"kernel": jnp.array([[0.1, -0.2, 3.0, 4.0]])}
      >>> pruning = swd_jax.sparsify(0.5, total_steps=1000, end=700)
      >>> tx = optax.chain(optax.adam(0.1), pruning)
      >>> state = tx.init(params)
      >>> swd_jax.reports.diagnose(params, 0.5, state)
      ()
      >>> for warning in swd_jax.reports.diagnose(params, 0.5, state, total_steps=600):
      ...     print(warning)
      sparsify reaches its target at step 700, but the run ends at step 600. Tell it the
      length of the run: sparsify(..., total_steps=600).
    """
    if total_steps is not None:
        validation.check_step_count("total_steps", total_steps, minimum=1)
        total_steps = int(total_steps)
    targets = as_targets(target)
    check_extra_args(targets, extra_args)
    resolved = resolve(targets, params)
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
    told = [
        int(placed.state.total_steps)
        for placed in placed_states
        if isinstance(placed.state, LatentState)
    ]
    total = total_steps or max(told, default=0) or None
    budgets = _final_budgets(ranked_targets, total if total is not None else step)
    run = _Run(
        total=total,
        is_given=total_steps is not None,
        resolved=resolved,
        ranked_targets=ranked_targets,
        budgets=budgets,
        leaves=measure_leaves(ranked_targets, budgets),
        extra_args=extra_args,
    )
    warnings = list(_schedule_warnings(run))
    for placed in placed_states:
        warnings += _place_warnings(placed)
        if isinstance(placed.state, SwdState):
            warnings += _penalty_warnings(run, placed.state)
        if isinstance(placed.state, LatentState):
            warnings += _rise_warnings(run, placed)
    warnings += _emptied_warnings(run, placed_states)
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


class _Run(NamedTuple):
    """A run as far as it is known, and its parameters under the final target."""

    total: int | None
    """The number of optimizer steps."""
    is_given: bool
    """Whether the caller has given it, so that it counts more than the states'."""
    resolved: ResolvedTargets
    ranked_targets: Sequence[RankedTarget]
    budgets: Sequence[jax.Array]
    leaves: MeasuredLeaves
    extra_args: Mapping[str, Any] | None

    @property
    def final_fraction(self) -> float:
        """The share of what the targets count that is pruned in the end."""
        return pruned_fraction(self.ranked_targets, self.budgets)

    @property
    def weights(self) -> int:
        """The number of prunable weights."""
        return sum(row.weights for row in self.leaves.rows)

    @property
    def zero_fraction(self) -> float:
        """The share of them that is zero."""
        return sum(row.zeros for row in self.leaves.rows) / max(self.weights, 1)


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


def _schedule_warnings(run: _Run) -> Iterator[str]:
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


def _place_warnings(placed: PlacedState) -> Iterator[str]:
    """Warn of a transformation that does harm where it stands in the chain."""
    state = placed.state
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


def _penalty_warnings(run: _Run, state: SwdState) -> Iterator[str]:
    """Warn of a penalty that has not pushed the selected weights to zero by the end."""
    count, residual = int(state.count), run.leaves.residual
    if not run.is_given or run.total is None or count < _LATE_PART * run.total:
        return
    if residual > _LARGE_RESIDUAL:
        yield (
            f"At step {count:,} of {run.total:,} pruning would still take "
            f"{residual:.2g} of the norm of the weights: the penalty of swd is too "
            f"small. Raise a_max (the multiplier is {float(state.multiplier):.3g}), or "
            "use sparsify, which needs no multiplier."
        )


def _rise_warnings(run: _Run, placed: PlacedState) -> Iterator[str]:
    """Warn of a rise that the run, or the optimizer, cannot follow."""
    state = placed.state
    count, rise_end = int(state.count), int(state.rise_end)
    fraction = float(state.selection.selected_fraction)
    name = _latent_name(state)
    is_reached = count >= rise_end if rise_end else fraction >= run.final_fraction
    if run.is_given and run.total is not None and run.total < rise_end:
        yield (
            f"sparsify reaches its target at step {rise_end:,}, but the run ends at "
            f"step {run.total:,}. Tell it the length of the run: "
            f"sparsify(..., total_steps={run.total})."
        )
    if run.total is not None and count >= _SETTLED_PART * run.total and not is_reached:
        steps_left = max(run.total - count, 0)
        pace, residual = float(state.relative_update), run.leaves.residual
        if 0 < pace * steps_left < residual and residual > _LARGE_RESIDUAL:
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


def _emptied_warnings(run: _Run, placed_states: Sequence[PlacedState]) -> Iterator[str]:
    """Warn of leaves of which the final target would leave nothing, or nearly so."""
    if not any(_is_imminent(run, placed.state) for placed in placed_states):
        return
    rows = _latent_rows(run, placed_states)
    paths_of_coupled = {
        leaf.path
        for ranked in run.ranked_targets
        if isinstance(ranked.target.structure, CoupledChannels)
        for leaf in ranked.leaves
    }
    kept = sum(row.weights - row.pruned for row in rows)
    density = kept / max(run.weights, 1)
    for is_coupled in (False, True):
        found = [
            row
            for row in rows
            if row.weights > 0 and (row.path in paths_of_coupled) == is_coupled
        ]
        way_out = (
            "Keep some channels of every group, CoupledChannels(..., min_channels=...)"
            if is_coupled
            else "Keep some of every leaf, Target(..., min_kept=0.01)"
        ) + ", or take another criterion or scope."
        emptied = [row for row in found if row.emptied]
        if emptied:
            yield (
                "The whole target, with the weights as they are now, leaves nothing of "
                f"{_listing(emptied)}. {way_out}"
            )
        for row in found:
            left = row.weights - row.pruned
            if 0 < left < _STARVED * density * row.weights:
                yield (
                    "The whole target, with the weights as they are now, leaves "
                    f"{left:,} of the {row.weights:,} weights of {row.path!r}, but "
                    f"{density:.2%} of all prunable ones. {way_out}"
                )


def _is_imminent(run: _Run, state: Any) -> bool:
    """Whether most of what the final target prunes is pruned already, or at once.

    Before, the ranking may still change: layers of random weights differ in scale by
    their initializers only.
    """
    if "count" not in state._fields:  # keep_pruned, which ranks nothing
        return True
    count = int(state.count)
    if isinstance(state, SwdState):
        return count > 0 and count >= _SETTLED_PART * (run.total or 0)
    if isinstance(state, LatentState):
        fraction = float(state.selection.selected_fraction)
    else:
        at_count = [ranked.budgets(count) for ranked in run.ranked_targets]
        fraction = pruned_fraction(run.ranked_targets, at_count)
    is_settled = count >= _SETTLED_PART * (run.total or 0)
    return is_settled and fraction >= _MOST * run.final_fraction > 0


def _listing(rows: Sequence[LeafSummary]) -> str:
    names = [f"{row.path!r} ({row.weights:,} weights)" for row in rows[:_PATHS_NAMED]]
    if len(rows) > _PATHS_NAMED:
        names.append(f"{len(rows) - _PATHS_NAMED:,} more leaves")
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _latent_rows(
    run: _Run, placed_states: Sequence[PlacedState]
) -> tuple[LeafSummary, ...]:
    """Measure the latent weights, which the next pruning ranks; zeros would tie."""
    states = [p.state for p in placed_states if isinstance(p.state, LatentState)]
    leaves = run.leaves.leaves
    memory = jax.tree.leaves(states[0].memory) if len(states) == 1 else []
    shapes = [array.shape for array in memory]
    if not memory or shapes != [leaf.weights.shape for leaf in leaves]:
        return run.leaves.rows
    latents = {}
    for leaf, array in zip(leaves, memory, strict=True):
        dtype = sort_keys.score_dtype(leaf.weights.dtype)
        parts = (jnp.asarray(leaf.weights), jnp.asarray(array))
        weights, remembered = (sort_keys.widen(part, dtype) for part in parts)
        latents[leaf.position] = weights + remembered
    ranked = rank(run.resolved.with_weights(latents), extra_args=run.extra_args)
    return measure_leaves(ranked, run.budgets).rows
