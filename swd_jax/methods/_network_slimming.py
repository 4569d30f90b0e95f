"""Network slimming: sparsity of channels by a penalty on normalisation scales."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from swd_jax._allocation import prunable_leaves
from swd_jax._arguments import validation
from swd_jax._arrays import sort_keys, tree_paths
from swd_jax._transforms import match_updates, threshold_state

_SCALE_NAMES = {"scale", "scales", "gamma"}


def is_scale(path: str, leaf: Any) -> bool:
    """Whether a leaf is the scale of a normalisation layer, by its name.

    Args:
      path: the keys that lead to the leaf, joined by "/": "BatchNorm_0/scale".
      leaf: ignored; here so that it is a predicate `(path, leaf) -> bool`.

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
    prunable: prunable_leaves.Prunable = is_scale,
) -> optax.GradientTransformationExtraArgs:
    r"""Press normalisation scales towards zero. Goes BEFORE the optimizer.

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
    prunable_leaves.check_prunable(prunable)

    def leaves(params: Any) -> list[prunable_leaves.PrunableLeaf]:
        return prunable_leaves.find_prunable(
            prunable, tree_paths.flatten(params), params
        )

    def init_fn(params: optax.Params) -> optax.ScaleByScheduleState:
        leaves(params)
        return optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32))

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.ScaleByScheduleState]:
        del extra_args
        matched = match_updates.match(updates, params, "network_slimming")
        rate = validation.coefficient_at(strength, state.count)
        found = leaves(params)
        pressed = [_pressed(matched.of(leaf), leaf.weights, rate) for leaf in found]
        count = threshold_state.next_count(state.count)
        return matched.replaced(found, pressed), optax.ScaleByScheduleState(count)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _pressed(update: jax.Array, scales: jax.Array, rate: jax.Array) -> jax.Array:
    dtype = sort_keys.score_dtype(update.dtype, scales.dtype)
    slope = jnp.clip(jnp.asarray(scales).astype(dtype), -1, 1)
    return (update.astype(dtype) + rate.astype(dtype) * slope).astype(update.dtype)
