"""`keep_pruned`: fine-tuning in which pruned weights stay exactly zero."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from swd_jax._arguments import parameter_trees
from swd_jax._arguments.short_text import shown
from swd_jax._arrays import tree_paths
from swd_jax._arrays.explicit_sharding import device_put_like, reshard_like
from swd_jax._targets.state_checks import check_fields
from swd_jax._transforms.match_updates import check_params, match_updates


class KeepPrunedState(NamedTuple):
    """The mask of `keep_pruned`: an argument of the compiled step, not a constant."""

    mask: Any
    """A tree like the parameters of bools, True = kept, sharded like the parameters;
    `optax.MaskedNode` where these have no array."""


def keep_pruned(mask: Any) -> optax.GradientTransformationExtraArgs:
    """Hold pruned weights at exactly zero while the others train on. Goes LAST.

        u_i <- -w_i   where the mask is False

    so that `w_i + u_i` is exactly 0, whatever momentum, moments and decay the optimizer
    has for that weight.

    Where it stands: after everything else, `optax.chain(optax.adam(1e-4),
    keep_pruned(mask))`, since it is the final update that must not move a zero.

    The mask is kept in the state, one byte a weight. It is saved, restored, donated and
    sharded with the rest of the optimizer's state. On several processes, call `init`
    outside of `jax.jit`, or pass the mask into the jitted function as an argument,
    `jax.jit(lambda params, mask: keep_pruned(mask).init(params))`: jax refuses to
    compile a sharded array into a program as a constant.

    Args:
      mask: a tree of bools in the structure and the shapes of the parameters, True =
        kept, as from `prune_mask`. Parameters that are pruned already give the same
        mask again: `prune_mask(pruned, target)`.

    Returns:
      A transformation whose state is a `KeepPrunedState`. Its update needs `params`,
      and keeps the dtype of every leaf of the updates. Unknown extra arguments are
      ignored.

    Raises:
      ValueError: if a leaf of the mask is not of bools; in `init`, if the mask does not
        fit the parameters; in `update`, if `params` is missing or the updates or the
        state have another structure.

    Examples:
      >>> import jax.numpy as jnp, optax, swd_jax
      >>> params = swd_jax.prune({"kernel": jnp.array([[0.1, -4.0]])}, 0.5)
      >>> mask = swd_jax.prune_mask(params, 0.5)
      >>> tx = optax.chain(optax.sgd(0.5, momentum=0.9), swd_jax.keep_pruned(mask))
      >>> gradient = {"kernel": jnp.ones((1, 2))}
      >>> updates, state = tx.update(gradient, tx.init(params), params)
      >>> print(optax.apply_updates(params, updates)["kernel"])
      [[ 0.  -4.5]]
    """
    masks = tree_paths.flatten(mask)
    for path, leaf in zip(masks.paths, masks.leaves, strict=True):
        if not isinstance(leaf, bool) and getattr(leaf, "dtype", None) != np.bool_:
            place = f" at {path!r}" if path else ""
            raise ValueError(
                "mask must be a tree of bools, True = kept, as prune_mask returns, and "
                f"has {shown(leaf)}{place}. For masks of numbers: "
                "jax.tree.map(lambda m: m != 0, mask)"
            )

    def init_fn(params: optax.Params) -> KeepPrunedState:
        parameter_trees.check_parameters(params)
        tree = tree_paths.flatten(params)
        # `optax.tree.map_params` calls `init` with placeholders that are no arrays.
        entries = {}
        if tree_paths.arrays(tree):
            positions = tree_paths.match_positions("mask", masks, tree)
            for param, position in positions.items():
                entries[param] = _full_mask(masks.leaves[position], tree.leaves[param])
        return KeepPrunedState(tree.rebuild_masked(entries))

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, KeepPrunedState]:
        del extra_args
        check_params(params, "keep_pruned")
        check_fields("keep_pruned", state, KeepPrunedState._fields)
        tree = tree_paths.flatten(params)
        matched = match_updates(updates, tree)
        state_masks = tree_paths.flatten(state.mask)
        mask_positions = tree_paths.match_positions(
            "the state's mask", state_masks, tree
        )
        new_updates = {}
        for param, position in matched.position_of_param.items():
            update = jnp.asarray(matched.tree.leaves[position])
            to_zero = -jnp.asarray(tree.leaves[param]).astype(update.dtype)
            is_kept = reshard_like(state_masks.leaves[mask_positions[param]], update)
            new_updates[position] = jnp.where(is_kept, update, to_zero)
        return matched.tree.rebuild(new_updates), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _full_mask(mask: Any, leaf: Any) -> jax.Array:
    """Return a copy of a leaf's mask, which may be donated, sharded like the leaf."""
    copy = jnp.copy(jnp.broadcast_to(jnp.asarray(mask), leaf.shape))
    return device_put_like(reshard_like(copy, leaf), leaf)
