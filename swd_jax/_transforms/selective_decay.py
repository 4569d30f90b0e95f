"""The transformation behind all forms of selective weight decay."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from swd_jax._arguments import validation
from swd_jax._arrays import sort_keys
from swd_jax._arrays.manual_sharding import AxisName
from swd_jax._targets.by_platform import compute_by_platform
from swd_jax._targets.resolve import ResolvedTargets, resolve
from swd_jax._targets.state_checks import check_fields
from swd_jax._targets.target import Targets, as_targets
from swd_jax._transforms import threshold_state
from swd_jax._transforms.match_updates import check_params, match_updates
from swd_jax._transforms.threshold_state import ThresholdState


class SwdState(NamedTuple):
    """The state of selective weight decay: scalars to log and to start from.

    Read them with `optax.tree_utils.tree_get(state, "threshold")`, at any depth. (The
    states of most optimizers have a count of their own, so ask a chain for this one by
    its position.) A criterion that accumulates adds an array for each prunable leaf.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    """Optimizer steps so far. shape=(), dtype=int32"""
    multiplier: jax.Array
    """a(t) of the last update, 0 before the first. shape=(), dtype=float32"""
    coefficient: jax.Array
    """a(t) * mu of the last update, 0 before the first. shape=(), dtype=float32"""
    selection: ThresholdState
    """The thresholds, and the fraction of the weights that they select."""


class BeforeOptimizerState(SwdState):
    """The state of `swd`. Its class tells the forms apart where no number does."""

    __slots__ = ()


class AfterOptimizerState(SwdState):
    """The state of `decoupled_swd` and `proximal_swd`."""

    __slots__ = ()


Combine: TypeAlias = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""(update, weight, coefficient) -> update of a selected weight."""


def selective_decay(
    target: Targets,
    combine: Combine,
    *,
    weight_decay: validation.Number | optax.Schedule,
    a: validation.Number | optax.Schedule,
    update_every: int,
    tolerance: validation.Number | None,
    axis_name: AxisName,
    learning_rate: validation.Number | optax.Schedule = 1.0,
    updates_are_gradients: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Return a transformation that changes the updates of the selected weights only.

    Args:
      target: as for `swd`.
      combine: how the update of a selected weight changes. Its coefficient is
        `learning_rate * a(t) * mu`.
      weight_decay: as for `swd`.
      a: as for `swd`.
      update_every: as for `swd`.
      tolerance: as for `swd`.
      axis_name: as for `swd`.
      learning_rate: a factor of the coefficient, for the forms that need it.
      updates_are_gradients: whether criteria that read the gradient read the updates.
        It also says of which form the state is.
    """
    targets = as_targets(target)
    validation.check_coefficient("weight_decay", weight_decay)
    validation.check_coefficient("a", a)
    validation.check_coefficient("learning_rate", learning_rate)
    update_every = validation.as_step_count("update_every", update_every, minimum=1)
    tolerated = validation.as_tolerance(tolerance)

    state_class = BeforeOptimizerState if updates_are_gradients else AfterOptimizerState

    def init_fn(params: optax.Params) -> SwdState:
        return state_class(
            count=jnp.zeros((), jnp.int32),
            multiplier=jnp.zeros((), jnp.float32),
            coefficient=jnp.zeros((), jnp.float32),
            selection=threshold_state.init(targets, params, tolerated),
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SwdState]:
        check_params(params, "selective weight decay")
        check_fields("selective weight decay", state, SwdState._fields)
        resolved = resolve(targets, params)
        matched = match_updates(updates, resolved.tree)
        multiplier = validation.coefficient_at(a, state.count)
        decay = multiplier * validation.coefficient_at(weight_decay, state.count)
        rate = decay * validation.coefficient_at(learning_rate, state.count)

        def decay_selected(
            resolved: ResolvedTargets,
        ) -> tuple[list[jax.Array], ThresholdState]:
            selection = threshold_state.select(
                resolved,
                state.selection,
                state.count,
                threshold_state.should_refresh(state.count, update_every),
                axis_name,
                gradient=updates if updates_are_gradients else None,
                extra_args=extra_args,
                tolerance=tolerated,
            )
            new_updates = [
                _decay_selected(
                    mask, combine, matched.at(leaf), jnp.asarray(leaf.weights), rate
                )
                for leaf, mask in zip(selection.leaves, selection.masks, strict=True)
            ]
            return new_updates, selection.state

        new_updates, selection = compute_by_platform(
            resolved, decay_selected, (updates, state, extra_args)
        )
        # The class stays that of the state, which may be a plain `SwdState` of old.
        return matched.replaced(resolved.leaves, new_updates), state._replace(
            count=threshold_state.increment(state.count),
            multiplier=multiplier.astype(jnp.float32),
            coefficient=decay.astype(jnp.float32),
            selection=selection,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _decay_selected(
    mask: jax.Array,
    combine: Combine,
    update: jax.Array,
    weight: jax.Array,
    rate: jax.Array,
) -> jax.Array:
    """Return a leaf's update in its own dtype, combined with its selected weights."""
    dtype = sort_keys.score_dtype(update.dtype, weight.dtype)
    combined = combine(update.astype(dtype), weight.astype(dtype), rate.astype(dtype))
    return jnp.where(mask, combined.astype(update.dtype), update)
