"""Selective weight decay before the optimizer, and the machinery of all its forms."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from swd_jax._arguments import validation
from swd_jax._arrays import sort_keys
from swd_jax._arrays.manual_sharding import AxisName
from swd_jax._targets.target import Targets, as_targets
from swd_jax._transforms import match_updates, threshold_state


class SwdState(NamedTuple):
    """What selective weight decay remembers: scalars to log and to start from.

    (And what the criterion gathers, if it is one that does.) All but the count are
    those of the last update, and 0 before the first. Read them with
    `optax.tree_utils.tree_get(state, "threshold")`. (The count has namesakes in the
    states of most optimizers, so ask a chain for it by its position.)
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    """Optimizer steps so far. shape=(), dtype=int32"""
    multiplier: jax.Array
    """a(t). shape=(), dtype=float32"""
    coefficient: jax.Array
    """a(t) * mu. shape=(), dtype=float32"""
    threshold: jax.Array
    """tau, below which scores are selected. shape=() for a single target with
    scope="global", else (thresholds,): one for each group of leaves that is ranked
    together, target by target; float32, or float64 among float64 weights."""
    threshold_change: jax.Array
    """How far tau moved when it was last renewed: where to look for it next. In the
    shape and type of the threshold; 0 while that is infinite."""
    selected_fraction: jax.Array
    """Selected weights over prunable weights, when tau was last renewed. shape=(),
    dtype=float32"""
    tracked: Any = ()
    """What the criterion gathers from step to step, if it does: a tree like the
    parameters, float32, empty where nothing is pruned. Else ()."""


Combine = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""(update, weight, coefficient) -> update of a selected weight."""


def swd(
    target: Targets,
    *,
    weight_decay: validation.Number | optax.Schedule,
    a: validation.Number | optax.Schedule,
    update_every: int = 1,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Selective weight decay as in the paper. Goes BEFORE the optimizer.

    At every step the k = floor(s n) weights that the target would prune now, and only
    those, get a decay that grows over training:

    .. math::

        \tau_t &= \text{the (k+1)-th smallest } |w| \text{ of all prunable weights} \\
        g_i &\leftarrow g_i + a(t)\, \mu\, w_i \quad\text{where } |w_i| < \tau_t

    (with the scores of the target's criterion in place of :math:`|w|`, where it has
    another). The selection is renewed from the current weights, so a weight that grows
    leaves it. At the end the selected weights are so small that `prune` changes
    nothing. Ordinary decay of all weights is separate: `optax.add_decayed_weights`.

    Where it stands: first, `optax.chain(swd(...), optax.adam(lr))`, so that momentum
    and Adam's moments see the decay as part of the gradient. An optimizer that
    normalises its gradients (Adam, Lion, LAMB, ...) then moves a selected weight by at
    most about the learning rate a step. With SGD a selected weight shrinks by
    `lr * a * mu` of itself a step, and training diverges once that passes
    `2 * (1 + momentum)`: wrap `a` in `bound_multiplier`, which keeps it below, or use
    `proximal_swd`, which no value makes unstable. Clipping of gradients belongs before
    `swd`: after it, a penalty that grows would shrink everyone's gradient.

    Args:
      target: what is pruned, or just the sparsity s, in [0, 1), or a schedule of it; or
        several targets, each for leaves of its own.
      weight_decay: mu, at least 0; a number or a schedule of the optimizer step.
      a: the multiplier a(t), at least 0; a number or a schedule of the optimizer step,
        such as `exponential_growth(...)`.
      update_every: the threshold is renewed every so many optimizer steps; the
        selection `|w| < tau` is made anew at every step all the same.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the weights are
        divided, so that counts are of all devices' weights. Not under `jit` alone.

    Returns:
      A transformation whose state is an `SwdState`: a few scalars, no masks. Its update
      needs `params`, and keeps the dtype of every leaf of the updates. A criterion that
      looks at gradients takes the updates for them, or the extra argument `gradient`;
      one that looks at something else takes the extra argument of that name. Other
      extra arguments are ignored.

    Raises:
      ValueError: at construction, if a number is out of range; in `init`, if the target
        does not fit the parameters; in `update`, if `params` is missing or the updates
        have another structure.

    Examples:
      >>> import jax.numpy as jnp, optax, swd_jax
      >>> params = {"kernel": jnp.array([[0.1, -0.2, 3.0, 4.0]])}
      >>> tx = optax.chain(swd_jax.swd(0.5, weight_decay=0.1, a=2.0), optax.sgd(1.0))
      >>> state = tx.init(params)
      >>> gradient = {"kernel": jnp.zeros((1, 4))}
      >>> updates, state = tx.update(gradient, state, params)
      >>> print(optax.apply_updates(params, updates)["kernel"])
      [[ 0.08 -0.16  3.    4.  ]]
      >>> print(optax.tree_utils.tree_get(state, "selected_fraction"))
      0.5

    Source: section 3.1 and algorithm 1 of arXiv 2011.10520.
    """

    def add_decay(update: jax.Array, weight: jax.Array, c: jax.Array) -> jax.Array:
        return update + c * weight

    return selective_decay(
        target,
        add_decay,
        weight_decay=weight_decay,
        a=a,
        update_every=update_every,
        axis_name=axis_name,
        updates_are_gradients=True,
    )


def selective_decay(
    target: Targets,
    combine: Combine,
    *,
    weight_decay: validation.Number | optax.Schedule,
    a: validation.Number | optax.Schedule,
    update_every: int,
    axis_name: AxisName,
    learning_rate: validation.Number | optax.Schedule = 1.0,
    updates_are_gradients: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """A transformation that changes the updates of the selected weights, and no others.

    Args:
      target: as for `swd`.
      combine: how the update of a selected weight changes; it is given the coefficient
        `learning_rate * a(t) * mu`.
      weight_decay: as for `swd`.
      a: as for `swd`.
      update_every: as for `swd`.
      axis_name: as for `swd`.
      learning_rate: a factor of the coefficient, for the forms that need it.
      updates_are_gradients: whether criteria may take them for that.

    Returns:
      The transformation.
    """
    targets = as_targets(target)
    validation.check_coefficient("weight_decay", weight_decay)
    validation.check_coefficient("a", a)
    validation.check_coefficient("learning_rate", learning_rate)
    validation.check_step_count("update_every", update_every, least=1)

    def init_fn(params: optax.Params) -> SwdState:
        first = threshold_state.start(targets, params)
        return SwdState(
            count=first.step,
            multiplier=jnp.zeros((), jnp.float32),
            coefficient=jnp.zeros((), jnp.float32),
            threshold=first.threshold,
            threshold_change=first.threshold_change,
            selected_fraction=first.fraction,
            tracked=first.tracked,
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SwdState]:
        matched = match_updates.match(updates, params, "selective weight decay")
        multiplier = validation.coefficient_at(a, state.count)
        decay = multiplier * validation.coefficient_at(weight_decay, state.count)
        rate = decay * validation.coefficient_at(learning_rate, state.count)
        last = threshold_state.Remembered(
            state.count,
            state.threshold,
            state.threshold_change,
            state.selected_fraction,
            state.tracked,
        )
        due = threshold_state.is_due(state.count, update_every)
        selection = threshold_state.select(
            targets,
            params,
            last,
            due,
            axis_name,
            gradient=updates if updates_are_gradients else None,
            extra_args=extra_args,
        )
        decayed = [
            _where_selected(
                selected, combine, matched.of(leaf), jnp.asarray(leaf.weights), rate
            )
            for leaf, selected in zip(selection.leaves, selection.masks, strict=True)
        ]
        return matched.replaced(selection.leaves, decayed), SwdState(
            count=threshold_state.next_count(state.count),
            multiplier=multiplier.astype(jnp.float32),
            coefficient=decay.astype(jnp.float32),
            threshold=selection.threshold,
            threshold_change=selection.threshold_change,
            selected_fraction=selection.fraction,
            tracked=selection.tracked,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _where_selected(
    selected: jax.Array,
    combine: Combine,
    update: jax.Array,
    weight: jax.Array,
    rate: jax.Array,
) -> jax.Array:
    """A leaf's update, combined with its weights where selected, in its own dtype."""
    dtype = sort_keys.score_dtype(update.dtype, weight.dtype)
    combined = combine(update.astype(dtype), weight.astype(dtype), rate.astype(dtype))
    return jnp.where(selected, combined.astype(update.dtype), update)
