"""Pruning after training: exact zeros, or the masks of the weights to keep."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike

from swd_jax._arrays import tree_paths
from swd_jax._arrays.explicit_sharding import device_put_like, reshard_like
from swd_jax._arrays.manual_sharding import AxisName
from swd_jax._targets.by_platform import compute_by_platform
from swd_jax._targets.resolve import ResolvedTargets, rank, resolve_arguments
from swd_jax._targets.target import Targets

Tree = TypeVar("Tree")


def prune(
    params: Tree,
    target: Targets,
    *,
    step: ArrayLike | None = None,
    axis_name: AxisName = None,
    extra_args: Mapping[str, Any] | None = None,
) -> Tree:
    """Set the weights that the target prunes to exactly zero.

        w_i <- 0   for the k = floor(s n) prunable weights with the lowest scores

    exactly k of them (with a structure of larger units, as many units as k weights
    allow). Where scores tie at the threshold, the first ones are pruned, by the order
    of the leaves, then by row-major position. Weights that are NaN or infinite are
    never pruned; `summarize` counts them.

    Where it stands: after training, in place of a chain's next step, with the target
    that the training had. It can be jitted.

    Args:
      params: any tree of arrays.
      target: what is pruned, or just the sparsity s, in [0, 1), or a schedule of it; or
        several targets, each for leaves of its own.
      step: where the target's sparsity is a schedule, the optimizer step at which it is
        wanted; by default the value on which the schedule settles.
      axis_name: inside `shard_map` or `pmap`, the mesh axes over which the weights are
        sharded. Ties are then broken by the order of the leaves, of the devices of
        their shards and of positions within the shard: as for whole leaves, where
        these are sharded along their first axis.
      extra_args: what the criterion reads besides the weights, by name: trees like the
        parameters.

    Returns:
      The same tree with the same dtypes and shardings, and zeros.

    Raises:
      ValueError: if the target does not fit the parameters, its schedule has no final
        value and no step is given, or an extra argument is missing; if params has no
        arrays, or is the state of an optimizer or has one in it (a `TrainState`).

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
    return _map_prunable(
        _set_zeros,
        lambda leaf: leaf,
        params,
        target,
        step=step,
        axis_name=axis_name,
        extra_args=extra_args,
    )


def prune_mask(
    params: Tree,
    target: Targets,
    *,
    step: ArrayLike | None = None,
    axis_name: AxisName = None,
    extra_args: Mapping[str, Any] | None = None,
) -> Tree:
    """Return the mask of the weights that `prune` keeps: True = kept.

    Args:
      params: any tree of arrays.
      target: what is pruned, or just the sparsity s, in [0, 1), or a schedule of it; or
        several targets, each for leaves of its own.
      step: as for `prune`.
      axis_name: as for `prune`.
      extra_args: as for `prune`.

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
    return _map_prunable(
        _is_kept,
        lambda leaf: _all_true(leaf) if tree_paths.is_array(leaf) else True,
        params,
        target,
        step=step,
        axis_name=axis_name,
        extra_args=extra_args,
    )


def _map_prunable(
    prunable_function: Callable[[jax.Array, jax.Array], jax.Array],
    other_function: Callable[[Any], Any],
    params: Tree,
    target: Targets,
    *,
    step: ArrayLike | None,
    axis_name: AxisName,
    extra_args: Mapping[str, Any] | None,
) -> Tree:
    """Apply a function of (weights, pruned) to prunable leaves, and one to the others.

    `prunable_function` must be a function of this module, so that it is compiled once.
    """
    resolved = resolve_arguments(params, target, extra_args)
    new_leaves = {
        i: other_function(leaf) for i, leaf in enumerate(resolved.tree.leaves)
    }

    def of_prunable(resolved: ResolvedTargets) -> dict[int, jax.Array]:
        found = {}
        for ranked in rank(resolved, axis_name, extra_args=extra_args):
            arrays = ranked.ranking.map_exact_k(prunable_function, ranked.budgets(step))
            for leaf, array in zip(ranked.leaves, arrays, strict=True):
                found[leaf.position] = device_put_like(array, leaf.weights)
        return found

    inputs = (extra_args, step)
    new_leaves |= compute_by_platform(resolved, of_prunable, inputs)
    return resolved.tree.rebuild(new_leaves)


def _set_zeros(weights: jax.Array, pruned: jax.Array) -> jax.Array:
    return jnp.where(pruned, jnp.zeros_like(weights), weights)


def _is_kept(weights: jax.Array, pruned: jax.Array) -> jax.Array:
    del weights
    return ~pruned


def _all_true(leaf: Any) -> jax.Array:
    """Return a mask of a leaf that keeps everything, sharded like the leaf."""
    if isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer):
        return jnp.ones(leaf.shape, bool, device=leaf.sharding)
    return reshard_like(jnp.ones(leaf.shape, bool), leaf)
