"""Pruning of latent weights, whose memory of what was pruned decays."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from swd_jax._arguments import validation
from swd_jax._arguments.short_text import shown
from swd_jax._arrays import xla_cpu
from swd_jax._arrays.manual_sharding import AxisName
from swd_jax._targets.by_platform import compute_by_platform
from swd_jax._targets.resolve import ResolvedTargets, resolve
from swd_jax._targets.state_checks import check_fields
from swd_jax._targets.target import Target, Targets, as_targets
from swd_jax._transforms import continuous_threshold, latent_weights, threshold_state
from swd_jax._transforms.latent_optimizer import optimize_latents
from swd_jax._transforms.match_updates import check_params, match_updates
from swd_jax._transforms.threshold_state import ThresholdState


class LatentState(NamedTuple):
    """The state of `sparsify` and `latent_pruning`: scalars, and the memory.

    Read the scalars with `optax.tree_utils.tree_get(state, "threshold")`, at any depth.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    """Optimizer steps so far. shape=(), dtype=int32"""
    relative_update: jax.Array
    """The L2 norm of the last updates of the prunable weights over that of the weights
    which are kept. shape=(), dtype=float32"""
    selection: ThresholdState
    """The thresholds, and the fraction of the weights that is pruned."""
    rise_end: jax.Array
    """The step from which the whole target is pruned, as `sparsify` was told; 0 if
    unknown. shape=(), dtype=int32"""
    total_steps: jax.Array
    """The number of steps that `sparsify` was told; 0 if unknown. shape=(),
    dtype=int32"""
    memory: Any
    """The latent weights minus the weights: a tree like the parameters, with
    `optax.MaskedNode` where nothing is pruned."""


class _Pruned(NamedTuple):
    """What pruning makes of the leaves."""

    updates: list[jax.Array]
    memory: dict[int, jax.Array]
    """By the positions of the leaves."""
    selection: ThresholdState
    squares: jax.Array
    """The sums of squares of all updates and of all kept weights. shape=(2,)"""


def latent_pruning(
    target: Targets,
    *,
    forgetting: validation.Number | optax.Schedule,
    power: float = 2.0,
    max_rescale: validation.Number = 4.0,
    optimizer: optax.GradientTransformation | None = None,
    pruned_gradient_scale: validation.Number | None = None,
    memory: DTypeLike | None = None,
    tolerance: validation.Number | None = None,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train latent weights of which the network gets the unpruned part. Goes LAST.

    The general form of `sparsify`, with its constants as arguments. A latent weight is
    the weight, plus what pruning has taken from it so far, plus the optimizer's update:

    .. math::

        l_i &\leftarrow w_i + m_i + u_i \\
        S_t &= \{ i : |l_i| < \tau_t \} \\
        f_i &= l_i \, (1 - (\sigma_t / |l_i|)^p)^{1/p}
            \;\text{ where } i \notin S_t, \text{ else } 0 \\
        w_i &\leftarrow f_i \, \min(c,\; \lVert l_{\notin S_t} \rVert / \lVert f \rVert)
            \quad\text{leaf by leaf} \\
        l_i &\leftarrow l_i \,/\,
            (1 + \rho\, \lVert u \rVert / \lVert l_{\notin S_t} \rVert)
            \quad\text{where } i \in S_t, \text{ leaf by leaf} \\
        m_i &\leftarrow l_i - w_i

    with :math:`\tau_t` as in `swd`, of the latent weights and for the sparsity that the
    target has at step t + 1; :math:`\sigma_t`, the largest magnitude that is pruned
    (or score, with another criterion); p the `power`, c `max_rescale`,
    :math:`\rho` `forgetting` and L2 norms. The gradient is that of a network with exact
    zeros, and it moves all latent weights, so a pruned weight may come back. A weight
    that crosses the threshold does not jump, and what the continuous threshold takes
    from the norm of a leaf is given back. Selective decay acts on the memory only: it
    forgets in proportion to the relative change of the leaf, so that what a weight
    learned for a network that no longer exists counts less and less. (A leaf that keeps
    nothing forgets nothing. A leaf with a NaN or an infinity is neither rescaled nor
    forgets.)

    Special cases: forgetting=0, power=inf is straight-through training; forgetting=0,
    power=3, max_rescale=1 is the operator of Feather; a very large `forgetting` with
    power=inf is gradual magnitude pruning.

    Where it stands: last, `optax.chain(optax.adam(lr), latent_pruning(...))`, since it
    reads and replaces the final update. Or around it,
    `latent_pruning(..., optimizer=optax.adamw(lr))`, for an optimizer that reads more
    than each weight's own gradients, as `sparsify` has it.

    Args:
      target: what is pruned, as for `swd`. A constant sparsity is in force from the
        first step on.
      forgetting: :math:`\rho`, at least 0; a number or a schedule of the optimizer
        step. The memory of a leaf decays by a factor of e while the leaf moves
        :math:`1/\rho` times its own norm.
      power: p, greater than 0. Infinity prunes without shrinking what is kept. Scores
        that may be negative always do.
      max_rescale: c, at least 1, which is no rescaling at all.
      optimizer: the whole optimizer, if it is not before this in a chain.
      pruned_gradient_scale: theta, at least 0: what the gradients of pruned weights
        (those that are 0, with a latent weight that is not) are multiplied by before
        `optimizer` reads them. None, the default, leaves them as they are.
      memory: its dtype, by default float32, or float64 for float64 weights. bfloat16
        takes half of the bytes, and rounds what is remembered to 8 bits.
      tolerance: as for `swd`.
      axis_name: as for `swd`.

    Returns:
      A transformation whose state is a `LatentState`: a few scalars, and an array for
      every prunable leaf. With `optimizer`, a `LatentOptimizerState` holds it and the
      optimizer's state. The update needs `params`. It keeps the dtype of the updates,
      except where that has fewer bits than the parameters' (an update could then not
      take a weight to zero). Criteria that read the gradient need the extra argument
      `gradient`, unless there is `optimizer`, which gets all extra arguments.

    Raises:
      ValueError: at construction, if a number is out of range, `optimizer` is no
        transformation, or `pruned_gradient_scale` is given without it; in `init`, if
        the target does not fit the parameters; in `update`, if `params` is missing, or
        the updates or the memory have another structure.

    Examples:
      >>> import jax.numpy as jnp, optax, swd_jax
      >>> params = {"kernel": jnp.array([[3.0, -4.0, 13.0, 0.0]])}
      >>> pruning = swd_jax.methods.latent_pruning(
      ...     0.75, forgetting=0.0, max_rescale=1.0
      ... )
      >>> tx = optax.chain(optax.sgd(1.0), pruning)
      >>> gradient = {"kernel": jnp.array([[0.0, -1.0, 0.0, 0.0]])}
      >>> updates, state = tx.update(gradient, tx.init(params), params)
      >>> print(optax.apply_updates(params, updates)["kernel"])
      [[ 0.        0.       12.649111  0.      ]]
      >>> print(state[-1].memory["kernel"])
      [[ 3.        -3.         0.3508892  0.       ]]

    Source: the latent weights of Vanderschueren & De Vleeschouwer (arXiv 2212.01076),
    the threshold of Feather (arXiv 2310.02448), and the decay of selected weights of
    Tessier et al. (arXiv 2011.10520), put on their memory.
    """
    return prune_latents(
        "latent_pruning",
        as_targets(target),
        forgetting=forgetting,
        power=power,
        max_rescale=max_rescale,
        optimizer=optimizer,
        pruned_gradient_scale=pruned_gradient_scale,
        memory=memory,
        tolerance=tolerance,
        axis_name=axis_name,
    )


def prune_latents(
    name: str,
    targets: tuple[Target, ...],
    *,
    forgetting: validation.Number | optax.Schedule,
    power: float,
    max_rescale: validation.Number,
    optimizer: optax.GradientTransformation | None,
    pruned_gradient_scale: validation.Number | None,
    memory: DTypeLike | None,
    tolerance: validation.Number | None,
    axis_name: AxisName,
    rise_end: int = 0,
    total_steps: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Return `latent_pruning` for a function of another name.

    Args:
      name: the function, for errors.
      targets: what is pruned.
      forgetting: as for `latent_pruning`, like the other arguments without a text.
      power: p.
      max_rescale: c.
      optimizer: the one to wrap, or None.
      pruned_gradient_scale: theta, with an optimizer.
      memory: its dtype.
      tolerance: as for `swd`.
      axis_name: the mesh axes over which the weights are sharded by hand.
      rise_end: as in the state.
      total_steps: as in the state.
    """
    validation.check_coefficient("forgetting", forgetting)
    _check_power(power)
    max_factor = _checked_max_rescale(max_rescale)
    memory_dtype = _checked_memory(memory)
    tolerated = validation.as_tolerance(tolerance)
    gradient_scale = None
    if pruned_gradient_scale is not None:
        gradient_scale = validation.as_factor(
            "pruned_gradient_scale", pruned_gradient_scale
        )

    def init_fn(params: optax.Params) -> LatentState:
        return LatentState(
            count=jnp.zeros((), jnp.int32),
            relative_update=jnp.zeros((), jnp.float32),
            selection=threshold_state.init(targets, params, tolerated),
            rise_end=jnp.asarray(rise_end, jnp.int32),
            total_steps=jnp.asarray(total_steps, jnp.int32),
            memory=latent_weights.init_memory(resolve(targets, params), memory_dtype),
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, LatentState]:
        check_params(params, name)
        check_fields(name, state, LatentState._fields)
        resolved = resolve(targets, params)
        matched = match_updates(updates, resolved.tree)
        # The parameters after this update are those of the next step.
        step = threshold_state.increment(state.count)
        rate = validation.coefficient_at(forgetting, state.count)

        def prune(resolved: ResolvedTargets) -> _Pruned:
            latents = latent_weights.find_latents(resolved, matched, state.memory)
            selection = threshold_state.select(
                resolved.with_weights(
                    {position: latent.weights for position, latent in latents.items()}
                ),
                state.selection,
                step,
                True,
                axis_name,
                gradient=None,
                extra_args=extra_args,
                tolerance=tolerated,
            )
            new_updates: list[jax.Array] = []
            new_memory: dict[int, jax.Array] = {}
            squares = jnp.zeros(2, jnp.float32)
            for selected in selection.by_target():
                of_leaves = [latents[leaf.position] for leaf in selected.leaves]
                pruned = continuous_threshold.prune(
                    selected, of_leaves, power, max_factor
                )
                squares += pruned.total_squares()
                relative = pruned.relative_updates()
                decays = xla_cpu.unstack_unfused(rate.astype(relative.dtype) * relative)
                for i, latent in enumerate(of_leaves):
                    update, arrived = latent_weights.update_to(
                        latent, pruned.weights[i]
                    )
                    decayed = latent.weights / (1 + decays[i].astype(arrived.dtype))
                    remembered = jnp.where(selected.masks[i], decayed, latent.weights)
                    new_updates.append(update)
                    new_memory[latent.leaf.position] = remembered - arrived
            return _Pruned(new_updates, new_memory, selection.state, squares)

        pruned = compute_by_platform(resolved, prune, (updates, state, extra_args))
        return matched.replaced(resolved.leaves, pruned.updates), LatentState(
            count=step,
            relative_update=continuous_threshold.ratio(
                *jnp.sqrt(pruned.squares), otherwise=0.0
            ),
            selection=pruned.selection,
            rise_end=jnp.asarray(rise_end, jnp.int32),
            total_steps=jnp.asarray(total_steps, jnp.int32),
            memory=latent_weights.replace_memory(state.memory, pruned.memory),
        )

    pruning = optax.GradientTransformationExtraArgs(init_fn, update_fn)
    if optimizer is None:
        if pruned_gradient_scale is not None:
            raise ValueError(
                f"pruned_gradient_scale is {pruned_gradient_scale!r}, but without "
                "optimizer there are no gradients to scale: give the optimizer, "
                f"{name}(..., optimizer=...)"
            )
        return pruning
    validation.check_optimizer(optimizer)
    return optimize_latents(name, optimizer, pruning, targets, gradient_scale)


def _check_power(power: Any) -> None:
    validation.refuse_traced("power", power)
    is_number = isinstance(power, int | float) and not isinstance(power, bool)
    if not is_number or not power > 0:
        raise ValueError(f"power must be a number greater than 0, got {shown(power)}")


def _checked_max_rescale(max_rescale: Any) -> float:
    validation.refuse_traced("max_rescale", max_rescale)
    number = validation.as_decimal("max_rescale", max_rescale)
    if number is None or number < 1:
        raise ValueError(
            f"max_rescale must be a number of at least 1, got {shown(max_rescale)}"
        )
    return float(number)


def _checked_memory(memory: Any) -> jnp.dtype | None:
    if memory is None:
        return None
    try:
        dtype = jnp.dtype(memory)
    except TypeError as error:
        raise ValueError(
            f"memory must be a dtype, such as 'bfloat16', got {shown(memory)}"
        ) from error
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            "memory must be a floating-point dtype, such as float32, got "
            f"{shown(memory)}"
        )
    return dtype
