"""Accumulators: arrays that criteria gather from step to step, one for each leaf."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from swd_jax._arrays import sort_keys, tree_paths
from swd_jax._arrays.manual_sharding import AxisName
from swd_jax._targets.resolve import ResolvedTargets
from swd_jax._targets.state_checks import arrays_of_leaves


class Accumulated(NamedTuple):
    """What criteria have accumulated after one more step."""

    tree: Any
    """As from `init`."""
    is_incomplete: jax.Array
    """Whether something was left out at this step because it was not finite, on any
    device. shape=(), dtype=bool"""


def init(resolved: ResolvedTargets) -> Any:
    """Return zeros for what criteria accumulate; () if no criterion does.

    Returns:
      A tree like the parameters, of float32 at least, with `optax.MaskedNode` where
      nothing is accumulated.
    """
    accumulating = [
        entry for entry in resolved.targets if entry.target.criterion.accumulator
    ]
    if not accumulating:
        return ()
    entries = {}
    for entry in accumulating:
        for leaf in entry.leaves:
            dtype = sort_keys.score_dtype(leaf.weights.dtype)
            entries[leaf.position] = jnp.zeros_like(leaf.weights, dtype=dtype)
    return resolved.tree.rebuild_masked(entries)


def update(
    resolved: ResolvedTargets,
    accumulated: Any,
    gradient: Any,
    how_to_pass: str,
    axis_name: AxisName = None,
) -> Accumulated | None:
    """Return what criteria have accumulated after one more step; None if nothing.

    A weight whose new value would be NaN or infinite keeps the previous one: gradients
    that overflow, as with a loss scale that is too large, count for one step only.

    Args:
      resolved: the targets and their leaves.
      accumulated: the tree of the previous step, from `init` at first.
      gradient: a tree like the parameters; None if there is none.
      how_to_pass: a format string for errors, which says how the caller's user passes
        the extra argument `name`.
      axis_name: the mesh axes over which the leaves are sharded by hand.

    Raises:
      ValueError: if a criterion accumulates gradients and there are none.
    """
    accumulating = [
        entry for entry in resolved.targets if entry.target.criterion.accumulator
    ]
    if not accumulating:
        arrays_of_leaves("state.selection.accumulated", "arrays", accumulated, [])
        return None
    if gradient is None:
        criterion = accumulating[0].target.criterion
        raise ValueError(
            f"criterion {criterion!r} accumulates gradients: give "
            f"{how_to_pass.format(name='gradient')}"
        )
    find_gradient = tree_paths.array_lookup(
        "gradient", tree_paths.flatten(gradient), resolved.tree
    )
    by_leaf = [
        (leaf, entry.target.criterion.accumulator)
        for entry in accumulating
        for leaf in entry.leaves
    ]
    # The arrays of `accumulated` are in the order of the tree, without gaps.
    by_leaf.sort(key=lambda pair: pair[0].position)
    leaves = [leaf for leaf, _ in by_leaf]
    previous = arrays_of_leaves(
        "state.selection.accumulated", "arrays", accumulated, leaves
    )
    updated, is_incomplete = [], jnp.zeros((), bool)
    for (leaf, accumulator), previous_array in zip(by_leaf, previous, strict=True):
        assert accumulator is not None
        gradient_array = find_gradient(leaf.position)
        if gradient_array is None:
            raise ValueError(f"gradient has no array at {leaf.path!r}")
        weights, gradient_array = (
            sort_keys.widen(jnp.asarray(array), previous_array.dtype)
            for array in (leaf.weights, gradient_array)
        )
        new_array = accumulator.update(previous_array, weights, gradient_array)
        is_finite = jnp.isfinite(new_array)
        updated.append(jnp.where(is_finite, new_array, previous_array))
        is_incomplete |= ~jnp.all(is_finite)
    if axis_name is not None:
        is_incomplete = jax.lax.pmax(is_incomplete.astype(jnp.int32), axis_name) > 0
    structure = jax.tree.structure(accumulated)
    return Accumulated(jax.tree.unflatten(structure, updated), is_incomplete)
