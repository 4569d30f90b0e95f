"""Magnitude pruning while training: zeros that are held, or that may grow again."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from swd_jax._arguments import validation
from swd_jax._arrays import xla_cpu
from swd_jax._arrays.manual_sharding import AxisName
from swd_jax._targets.by_platform import compute_by_platform
from swd_jax._targets.resolve import ResolvedTargets, resolve
from swd_jax._targets.state_checks import check_fields
from swd_jax._targets.target import Targets, as_targets
from swd_jax._transforms import threshold_state
from swd_jax._transforms.match_updates import check_params, match_updates
from swd_jax._transforms.threshold_state import ThresholdState


class PruningState(NamedTuple):
    """The state of pruning while training: scalars to log and to start from.

    Read them with `optax.tree_utils.tree_get(state, "selected_fraction")`.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    """Optimizer steps so far. shape=(), dtype=int32"""
    selection: ThresholdState
    """The thresholds, and the fraction of the weights that is pruned."""


def magnitude_pruning(
    target: Targets,
    *,
    update_every: int = 1,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Set the weights with the lowest scores to zero and hold them there. Goes LAST.

    .. math::

        u_i \leftarrow -w_i \quad\text{where } |w_i| < \tau_t
        \;\text{ or }\; w_i = 0 < \tau_t

    with :math:`\tau_t` the (k+1)-th smallest :math:`|w|` for the sparsity that the
    target has at step t (or the scores of its criterion). A pruned weight is exactly
    zero from then on, so it stays among the lowest, and no mask is kept. Units of
    several weights are held if all of their weights are zero: a single zero in a unit
    that is kept, such as the first bias of a channel, learns like all others.

    The target's schedule says which of the classic methods this is:

    - gradual magnitude pruning: `cubic_sparsity(0.9, begin=0, end=...)`, and
      `update_every=100` as in its paper;
    - one shot with fine-tuning: `staircase_sparsity(0.9, [step])`, which prunes at one
      step; the rest of training is fine-tuning;
    - iterative pruning: `staircase_sparsity(0.9, [step, step, ...])`, in rounds. With
      `rewind` its learning rate goes back as well.

    Where it stands: last, `optax.chain(optax.adam(lr), magnitude_pruning(target))`,
    since it is the final update that must not move a zero. The optimizer's moments of a
    pruned weight go on, without effect. `prune` at the end of training settles ties.

    Args:
      target: what is pruned, as for `swd`. A constant sparsity prunes at the very
        first step.
      update_every: new weights are pruned every so many optimizer steps; between, no
        weight but zeros is held.
      axis_name: as for `swd`.

    Returns:
      A transformation whose state is a `PruningState`: a few scalars, no masks. Its
      update needs `params`, and keeps the dtype of every leaf of the updates. Criteria
      that read the gradient need the extra argument `gradient`; other extra arguments
      are ignored.

    Raises:
      ValueError: at construction, if a number is out of range; in `init`, if the target
        does not fit the parameters; in `update`, if `params` is missing or the updates
        have another structure.

    Examples:
      >>> import jax.numpy as jnp, optax, swd_jax
      >>> params = {"kernel": jnp.array([[0.1, -0.2, 3.0, 4.0]])}
      >>> tx = optax.chain(optax.sgd(1.0), swd_jax.methods.magnitude_pruning(0.5))
      >>> gradient = {"kernel": jnp.ones((1, 4))}
      >>> updates, state = tx.update(gradient, tx.init(params), params)
      >>> print(optax.apply_updates(params, updates)["kernel"])
      [[0. 0. 2. 3.]]

    Source: Zhu & Gupta, "To prune, or not to prune" (arXiv 1710.01878), section 3;
    one shot and in rounds: Han et al., "Learning both weights and connections"
    (arXiv 1506.02626), section 3.
    """
    update_every = validation.as_step_count("update_every", update_every, minimum=1)
    return _pruning("magnitude_pruning", target, update_every, axis_name)


def soft_pruning(
    target: Targets, *, update_every: int, axis_name: AxisName = None
) -> optax.GradientTransformationExtraArgs:
    r"""Set the weights with the lowest scores to zero, free to return. Goes LAST.

    .. math::

        u_i \leftarrow -w_i \quad\text{where } |w_i| < \tau_t,
        \text{ at steps } t = m, 2m, 3m, \dots

    and no change to the updates at all other steps: a zero may grow again, until the
    next time. With m the number of steps in an epoch this is soft filter pruning,
    applied to what the target selects; `prune` follows at the end.

    Where it stands: last, `optax.chain(optax.sgd(lr), soft_pruning(target,
    update_every=m))`. In a step that prunes, the optimizer's updates of the selected
    weights are dropped.

    Args:
      target: what is pruned, as for `swd`.
      update_every: m, optimizer steps from one pruning to the next, at least 1.
      axis_name: as for `swd`.

    Returns:
      A transformation whose state is a `PruningState`, with the habits of
      `magnitude_pruning`.

    Raises:
      ValueError: as `magnitude_pruning`.

    Examples:
      >>> import jax.numpy as jnp, optax, swd_jax
      >>> params = {"kernel": jnp.array([[0.5, -0.2, 3.0, 4.0]])}
      >>> tx = optax.chain(
      ...     optax.sgd(0.25), swd_jax.methods.soft_pruning(0.5, update_every=2)
      ... )
      >>> state = tx.init(params)
      >>> for step in range(4):
      ...     updates, state = tx.update({"kernel": jnp.ones((1, 4))}, state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     print(step, params["kernel"])
      0 [[ 0.25 -0.45  2.75  3.75]]
      1 [[ 0.  -0.7  2.5  3.5]]
      2 [[0.   0.   2.25 3.25]]
      3 [[-0.25 -0.25  2.    3.  ]]

    Source: He et al., "Soft filter pruning for accelerating deep convolutional neural
    networks" (arXiv 1808.06866), algorithm 1.
    """
    update_every = validation.as_step_count("update_every", update_every, minimum=1)
    return _pruning("soft_pruning", target, update_every, axis_name, may_regrow=True)


def _pruning(
    name: str,
    target: Targets,
    update_every: int,
    axis_name: AxisName,
    *,
    may_regrow: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Return a transformation that sets the selected weights to zero.

    Args:
      name: the transformation's name in errors.
      target: what is pruned.
      update_every: the number of steps from one refresh of the threshold to the next.
      axis_name: as for `swd`.
      may_regrow: whether zeros are free to grow until the next refresh. The first step
        then prunes nothing.
    """
    targets = as_targets(target)

    def init_fn(params: optax.Params) -> PruningState:
        count = jnp.zeros((), jnp.int32)
        return PruningState(count, threshold_state.init(targets, params))

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, PruningState]:
        check_params(params, name)
        check_fields(name, state, PruningState._fields)
        resolved = resolve(targets, params)
        matched = match_updates(updates, resolved.tree)
        refresh = threshold_state.should_refresh(state.count, update_every)
        if may_regrow:
            refresh &= state.count > 0

        def prune_selected(
            resolved: ResolvedTargets,
        ) -> tuple[list[jax.Array], threshold_state.ThresholdState]:
            selection = threshold_state.select(
                resolved,
                state.selection,
                state.count,
                refresh,
                axis_name,
                gradient=None,
                extra_args=extra_args,
            )
            opaque_one = xla_cpu.opaque_one(state.count)
            zero_masks = [] if may_regrow else selection.zero_masks(opaque_one)
            new_updates = []
            for i, leaf in enumerate(selection.leaves):
                is_pruned = selection.masks[i] & refresh
                if not may_regrow:
                    is_pruned |= zero_masks[i] & (selection.leaf_thresholds[i] > 0)
                weights, update = jnp.asarray(leaf.weights), matched.at(leaf)
                to_zero = -weights.astype(update.dtype)
                new_updates.append(jnp.where(is_pruned, to_zero, update))
            return new_updates, selection.state

        new_updates, selection = compute_by_platform(
            resolved, prune_selected, (updates, state, extra_args)
        )
        return matched.replaced(resolved.leaves, new_updates), PruningState(
            threshold_state.increment(state.count), selection
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
