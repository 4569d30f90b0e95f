"""Hard pruning while training: weights set to zero at once, for good or for a while."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from swd_jax._arguments import validation
from swd_jax._arrays.manual_sharding import AxisName
from swd_jax._targets.target import Targets, as_targets
from swd_jax._transforms import match_updates, threshold_state


class PruningState(NamedTuple):
    """What pruning while training remembers: scalars to log and to start from.

    All but the count are those of the last renewal, and 0 before the first. Read them
    with `optax.tree_utils.tree_get(state, "pruned_fraction")`.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    """Optimizer steps so far. shape=(), dtype=int32"""
    threshold: jax.Array
    """tau, below which scores are pruned. shape=() for a single target with
    scope="global", else (thresholds,), as in `SwdState`; float32, or float64 among
    float64 weights."""
    threshold_change: jax.Array
    """How far tau moved when it was last renewed. In tau's shape and type."""
    pruned_fraction: jax.Array
    """Pruned weights over prunable weights. shape=(), dtype=float32"""
    tracked: Any = ()
    """What the criterion gathers from step to step, as in `SwdState`."""


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
    zero from then on, so it stays among the lowest, and no mask is kept. Of groups of
    weights, those are held of which every weight is zero: a single zero in a group that
    stays, such as the first bias of a channel, learns like all others.

    The target's schedule says which of the classic methods this is:

    - gradual magnitude pruning: `cubic_sparsity(0.9, begin=0, end=...)`, and
      `update_every=100` as in its paper;
    - one shot with fine-tuning: `staircase_sparsity(0.9, [step])`, which prunes at one
      step, after which the rest of training mends what that broke;
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
      that look at gradients need the extra argument `gradient`; other unknown extra
      arguments are ignored.

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
    validation.check_step_count("update_every", update_every, least=1)
    return _pruning("magnitude_pruning", target, update_every, axis_name)


def soft_pruning(
    target: Targets, *, every: int, axis_name: AxisName = None
) -> optax.GradientTransformationExtraArgs:
    r"""Set the weights with the lowest scores to zero, free to return. Goes LAST.

    .. math::

        u_i \leftarrow -w_i \quad\text{where } |w_i| < \tau_t,
        \text{ at steps } t = m, 2m, 3m, \dots

    and no change to the updates at all other steps: a zero may grow again, until the
    next time. With m the number of steps in an epoch this is soft filter pruning,
    applied to what the target selects; `prune` follows at the end.

    Where it stands: last, `optax.chain(optax.sgd(lr), soft_pruning(target, every=m))`.
    In the steps in which it prunes, what the optimizer has for the selected weights is
    dropped.

    Args:
      target: what is pruned, as for `swd`.
      every: m, optimizer steps from one pruning to the next, at least 1.
      axis_name: as for `swd`.

    Returns:
      A transformation whose state is a `PruningState`, with the habits of
      `magnitude_pruning`.

    Raises:
      ValueError: as `magnitude_pruning`.

    Examples:
      >>> import jax.numpy as jnp, optax, swd_jax
      >>> params = {"kernel": jnp.array([[0.5, -0.2, 3.0, 4.0]])}
      >>> tx = optax.chain(optax.sgd(0.25), swd_jax.methods.soft_pruning(0.5, every=2))
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
    validation.check_step_count("every", every, least=1)
    return _pruning("soft_pruning", target, every, axis_name, soft=True)


def _pruning(
    name: str,
    target: Targets,
    period: int,
    axis_name: AxisName,
    *,
    soft: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """A transformation that sets some of the weights to zero.

    Args:
      name: what it is called in errors.
      target: what is pruned.
      period: the threshold is renewed every so many steps.
      axis_name: as for `swd`.
      soft: whether zeros may grow again, and the first step has none.
    """
    targets = as_targets(target)

    def init_fn(params: optax.Params) -> PruningState:
        return PruningState(*threshold_state.start(targets, params))

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, PruningState]:
        matched = match_updates.match(updates, params, name)
        due = threshold_state.is_due(state.count, period)
        if soft:
            due &= state.count > 0
        last = threshold_state.Remembered(*state)
        selection = threshold_state.select(
            targets, params, last, due, axis_name, gradient=None, extra_args=extra_args
        )
        # Always 1: one of two neighbours is odd. But no compiler knows.
        one = state.count % 2 + (state.count + 1) % 2
        zeros = [] if soft else selection.zeros(one)
        held = []
        for i, leaf in enumerate(selection.leaves):
            goes = selection.masks[i] & due
            if not soft:
                goes |= zeros[i] & (selection.limits[i] > 0)
            weights, update = jnp.asarray(leaf.weights), matched.of(leaf)
            held.append(jnp.where(goes, -weights.astype(update.dtype), update))
        return matched.replaced(selection.leaves, held), PruningState(
            count=threshold_state.next_count(state.count),
            threshold=selection.threshold,
            threshold_change=selection.threshold_change,
            pruned_fraction=selection.fraction,
            tracked=selection.tracked,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
