"""An optimizer that has the latent weights as its parameters."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from swd_jax._targets.resolve import resolve
from swd_jax._targets.state_checks import check_fields
from swd_jax._targets.target import Target
from swd_jax._transforms.latent_weights import with_memory
from swd_jax._transforms.match_updates import check_params, match_updates


class LatentOptimizerState(NamedTuple):
    """The state of `sparsify` and `latent_pruning` with an optimizer inside."""

    inner: optax.OptState
    """The state of the optimizer inside."""
    pruning: Any
    """The `LatentState` of the pruning."""


def optimize_latents(
    name: str,
    optimizer: optax.GradientTransformation,
    pruning: optax.GradientTransformationExtraArgs,
    targets: tuple[Target, ...],
    pruned_gradient_scale: ArrayLike | None,
) -> optax.GradientTransformationExtraArgs:
    """Chain an optimizer, which is given latent weights, and the pruning of these.

    Args:
      name: the public function, for errors.
      optimizer: any.
      pruning: that of `prune_latents`.
      targets: what `pruning` prunes.
      pruned_gradient_scale: what the gradients of pruned weights are multiplied by
        before the optimizer reads them; None for 1.

    Returns:
      A transformation whose update passes the extra arguments to both. If `gradient`
      is not among them, the pruning gets the gradients that the update was called with.
    """
    inner = optax.with_extra_args_support(optimizer)

    def init_fn(params: optax.Params) -> LatentOptimizerState:
        return LatentOptimizerState(inner.init(params), pruning.init(params))

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, LatentOptimizerState]:
        check_params(params, name)
        check_fields(name, state, LatentOptimizerState._fields)
        inner_state, pruning_state = state
        resolved = resolve(targets, params)
        matched = match_updates(updates, resolved.tree)
        leaves, gradients, latents = [], [], {}
        for leaf, latent in with_memory(resolved, pruning_state.memory):
            old, gradient = jnp.asarray(leaf.weights), matched.at(leaf)
            if pruned_gradient_scale is not None:
                scaled = gradient * jnp.asarray(pruned_gradient_scale, gradient.dtype)
                is_pruned = (old == 0) & (latent != 0)
                gradient = jnp.where(is_pruned, scaled, gradient)
            leaves.append(leaf)
            gradients.append(gradient)
            # In the type of the parameters, for which the optimizer's state was made.
            latents[leaf.position] = latent.astype(old.dtype)
        new_updates, inner_state = inner.update(
            matched.replaced(leaves, gradients),
            inner_state,
            resolved.tree.rebuild(latents),
            **extra_args,
        )
        new_updates, pruning_state = pruning.update(
            new_updates, pruning_state, params, **{"gradient": updates, **extra_args}
        )
        return new_updates, LatentOptimizerState(inner_state, pruning_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
