"""Pruning for good: exact zeros, masks, and fine-tuning that keeps the zeros."""

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.typing import ArrayLike

from swd_jax._arrays import tree_paths
from swd_jax._arrays.manual_sharding import AxisName, laid_out_as, placed_as
from swd_jax._ranking import exact_k
from swd_jax._targets import resolve
from swd_jax._targets.target import Targets, as_targets
from swd_jax._transforms import match_updates

Tree = TypeVar("Tree")


def prune(
    params: Tree,
    target: Targets,
    *,
    step: ArrayLike | None = None,
    axis_name: AxisName = None,
    evidence: Mapping[str, Any] | None = None,
) -> Tree:
    """Set the weights that the target prunes to exactly zero.

        w_i <- 0   for the k = floor(s n) prunable weights with the lowest scores

    exactly k of them (with a structure of larger groups, as many groups as k weights
    allow): where scores tie at the threshold, the first ones go, by the
    order of the leaves, then by row-major position. Weights that are NaN or infinite
    are never pruned; `summarize` counts them.

    Where it stands: after training, in place of a chain's next step, with the target
    that the training had. It can be jitted.

    Args:
      params: any tree of arrays.
      target: what is pruned, or just the sparsity s, in [0, 1), or a schedule of it; or
        several targets, each for leaves of its own.
      step: where the target's sparsity is a schedule, the optimizer step at which it is
        wanted; by default the value on which the schedule settles.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the weights are
        divided. Ties are then taken by the order of the leaves, of their parts' devices
        and of positions within the part: as for whole leaves, where these are divided
        along their first dimension.
      evidence: what the criterion looks at besides the weights, by name: trees like the
        parameters.

    Returns:
      The same tree with the same dtypes and shardings, and zeros.

    Raises:
      ValueError: if the target does not fit the parameters, its schedule has no final
        value and no step is given, or evidence is missing.

    Examples:
      >>> import jax.numpy as jnp, swd_jax
      >>> params = {
      ...     "bias": jnp.zeros(2),
      ...     "kernel": jnp.array([[0.1, -4.0], [2.0, 0.1]]),
      ... }
      >>> print(swd_jax.prune(params, 0.25)["kernel"])
      [[ 0.  -4. ]
       [ 2.   0.1]]

    Source: the last step of algorithm 1 of arXiv 2011.10520.
    """
    targets = as_targets(target)
    resolve.check_evidence(targets, evidence)
    tree, ranked = resolve.rank(params, targets, axis_name, evidence=evidence)
    pruned = {
        leaf.position: placed_as(weights, leaf.weights)
        for each in ranked
        for leaf, weights in zip(
            each.leaves,
            exact_k.map_lost(_with_zeros, each.ranking, each.counts(step)),
            strict=True,
        )
    }
    return tree.rebuilt(pruned)


def prune_mask(
    params: Tree,
    target: Targets,
    *,
    step: ArrayLike | None = None,
    axis_name: AxisName = None,
    evidence: Mapping[str, Any] | None = None,
) -> Tree:
    """Which weights `prune` keeps: True = kept.

    Args:
      params: any tree of arrays.
      target: what is pruned, or just the sparsity s, in [0, 1), or a schedule of it; or
        several targets, each for leaves of its own.
      step: as for `prune`.
      axis_name: as for `prune`.
      evidence: as for `prune`.

    Returns:
      The tree of the parameters with arrays of bools in their shapes; all True for
      leaves that are not prunable. What is no array is True too.

    Raises:
      ValueError: as `prune`.

    Examples:
      >>> import jax.numpy as jnp, swd_jax
      >>> params = {
      ...     "bias": jnp.zeros(2),
      ...     "kernel": jnp.array([[0.1, -4.0], [2.0, 0.1]]),
      ... }
      >>> print(swd_jax.prune_mask(params, 0.25)["kernel"])
      [[False  True]
       [ True  True]]
    """
    targets = as_targets(target)
    resolve.check_evidence(targets, evidence)
    tree, ranked = resolve.rank(params, targets, axis_name, evidence=evidence)
    masks = {
        i: _all_true(leaf) if tree_paths.is_array(leaf) else True
        for i, leaf in enumerate(tree.leaves)
    }
    for each in ranked:
        kept = exact_k.map_lost(_is_kept, each.ranking, each.counts(step))
        pairs = zip(each.leaves, kept, strict=True)
        masks |= {leaf.position: placed_as(mask, leaf.weights) for leaf, mask in pairs}
    return tree.rebuilt(masks)


def keep_pruned(mask: Any) -> optax.GradientTransformationExtraArgs:
    """Hold pruned weights at exactly zero while the others train on. Goes LAST.

        u_i <- -w_i   where the mask is False

    so that `w_i + u_i` is exactly 0, whatever momentum, moments and decay the
    optimizer has gathered for that weight.

    Where it stands: after everything else, `optax.chain(optax.adam(1e-4),
    keep_pruned(mask))`, since it is the final update that must not move a zero.

    Args:
      mask: a tree of bools in the structure and the shapes of the parameters, True =
        kept, as from `prune_mask`. Parameters that are pruned already give the same
        mask again: `prune_mask(pruned, target)`.

    Returns:
      A transformation without state. Its update needs `params`, and keeps the dtype of
      every leaf of the updates. Unknown extra arguments are ignored.

    Raises:
      ValueError: if a leaf of the mask is not of bools; in `init` and `update`, if the
        mask does not fit, or in `update` `params` is missing.

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
            raise ValueError(
                "mask must hold bools, True = kept, but holds "
                f"{getattr(leaf, 'dtype', leaf)} at {path!r}. "
                "For masks of numbers: jax.tree.map(lambda m: m != 0, mask)"
            )

    def init_fn(params: optax.Params) -> optax.EmptyState:
        _mask_positions(masks, tree_paths.flatten(params))
        return optax.EmptyState()

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        del extra_args
        matched = match_updates.match(updates, params, "keep_pruned")
        tree = tree_paths.flatten(params)
        mask_positions = _mask_positions(masks, tree)
        held = {}
        for i, position in matched.positions.items():
            update = jnp.asarray(matched.flat.leaves[position])
            to_zero = -jnp.asarray(tree.leaves[i]).astype(update.dtype)
            kept = jnp.asarray(masks.leaves[mask_positions[i]])
            kept = laid_out_as(jnp.broadcast_to(kept, update.shape), update)
            held[position] = jnp.where(kept, update, to_zero)
        return matched.flat.rebuilt(held), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _all_true(leaf: Any) -> jax.Array:
    if isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer):
        return jnp.ones(leaf.shape, bool, device=leaf.sharding)
    return laid_out_as(jnp.ones(leaf.shape, bool), leaf)


def _with_zeros(weights: jax.Array, lost: jax.Array) -> jax.Array:
    return jnp.where(lost, jnp.zeros_like(weights), weights)


def _is_kept(weights: jax.Array, lost: jax.Array) -> jax.Array:
    del weights
    return ~lost


def _mask_positions(masks: tree_paths.Flat, params: tree_paths.Flat) -> dict[int, int]:
    """Where the mask of every array among the parameters is."""
    # Optax looks at the structure of a state by way of a tree without leaves.
    if not tree_paths.arrays(params):
        return {}
    return tree_paths.matched_positions("mask", masks, params)
