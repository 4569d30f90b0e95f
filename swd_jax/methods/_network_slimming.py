"""Network slimming: sparsity of channels by a penalty on normalisation scales."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from swd_jax._allocation.prunable_leaves import (
    Prunable,
    as_prunable,
    find_prunable,
)
from swd_jax._arguments import parameter_trees, validation
from swd_jax._arrays import sort_keys, tree_paths
from swd_jax._targets.state_checks import check_fields
from swd_jax._transforms import threshold_state
from swd_jax._transforms.match_updates import check_params, match_updates

_SCALE_NAMES = {"scale", "scales", "gamma"}


def is_scale(path: str, leaf: Any) -> bool:
    """Return whether a leaf is the scale of a normalisation layer, by its name.

    Args:
      path: the keys that lead to the leaf, joined by "/": "BatchNorm_0/scale".
      leaf: ignored; a parameter of every predicate `(path, leaf) -> bool`.

    Returns:
      True for a leaf named "scale", "scales" or "gamma".

    Examples:
      >>> import swd_jax
      >>> swd_jax.methods.is_scale("BatchNorm_0/scale", None)
      True
      >>> swd_jax.methods.is_scale("BatchNorm_0/bias", None)
      False
    """
    del leaf
    return path.rsplit("/", 1)[-1] in _SCALE_NAMES


def network_slimming(
    strength: validation.Number | optax.Schedule,
    *,
    prunable: Prunable = is_scale,
) -> optax.GradientTransformationExtraArgs:
    r"""Penalise normalisation scales towards zero. Goes BEFORE the optimizer.

    .. math:: g_i \leftarrow g_i + \lambda \operatorname{clip}(\gamma_i, -1, 1)

    the gradient of :math:`\lambda` times the smooth L1 norm, :math:`\gamma^2 / 2` up to
    1 and :math:`|\gamma| - 1/2` beyond, on either side of zero. (The code published
    with the SWD paper has :math:`\gamma` for :math:`|\gamma|`, which pushes scales
    below -1 away from zero; this does not.) Channels whose scale ends near zero are
    what a target over scales prunes: `prune(params, Target(0.5, prunable=is_scale))`.

    Where it stands: first, `optax.chain(network_slimming(1e-4), optax.sgd(lr))`, as a
    term of the loss would.

    Args:
      strength: lambda, at least 0; a number or a schedule of the optimizer step. The
        paper has 1e-4 and 1e-5.
      prunable: which leaves, as in `Target(prunable=...)`. By default those named
        "scale", "scales" or "gamma".

    Returns:
      A transformation whose state is a count of steps. Its update needs `params`, and
      keeps the dtype of every leaf of the updates. Unknown extra arguments are ignored.

    Raises:
      ValueError: at construction, if the strength is out of range; in `init`, if no
        leaf matches; in `update`, if `params` is missing or the updates have another
        structure.

    Examples:
      >>> import jax.numpy as jnp, optax, swd_jax
      >>> params = {"bn": {"scale": jnp.array([0.5, 3.0, -2.0, 0.0])}}
      >>> tx = swd_jax.methods.network_slimming(0.1)
      >>> zero = {"bn": {"scale": jnp.zeros(4)}}
      >>> updates, state = tx.update(zero, tx.init(params), params)
      >>> print(updates["bn"]["scale"])
      [ 0.05  0.1  -0.1   0.  ]

    Source: Liu et al., "Learning efficient convolutional networks through network
    slimming" (arXiv 1708.06519), equation 1 with the smooth norm that its section 3
    mentions.
    """
    validation.check_coefficient("strength", strength)
    prunable = as_prunable(prunable)

    def init_fn(params: optax.Params) -> optax.ScaleByScheduleState:
        parameter_trees.check_parameters(params)
        find_prunable(prunable, tree_paths.flatten(params), params)
        return optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32))

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.ScaleByScheduleState]:
        del extra_args
        check_params(params, "network_slimming")
        check_fields("network_slimming", state, ("count",))
        tree = tree_paths.flatten(params)
        matched = match_updates(updates, tree)
        rate = validation.coefficient_at(strength, state.count)
        leaves = find_prunable(prunable, tree, params)
        new_updates = [
            _add_penalty(matched.at(leaf), leaf.weights, rate) for leaf in leaves
        ]
        count = threshold_state.increment(state.count)
        return matched.replaced(leaves, new_updates), optax.ScaleByScheduleState(count)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _add_penalty(update: jax.Array, scales: jax.Array, rate: jax.Array) -> jax.Array:
    """Add the gradient of the smooth L1 norm, in the update's own dtype."""
    dtype = sort_keys.score_dtype(update.dtype, scales.dtype)
    slope = jnp.clip(jnp.asarray(scales).astype(dtype), -1, 1)
    return (update.astype(dtype) + rate.astype(dtype) * slope).astype(update.dtype)
