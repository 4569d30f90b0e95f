"""Latent weights: those that the optimizer moves, pruned or not."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from swd_jax._allocation.prunable_leaves import PrunableLeaf
from swd_jax._arrays import sort_keys
from swd_jax._targets.resolve import ResolvedTargets
from swd_jax._targets.state_checks import arrays_of_leaves
from swd_jax._transforms.match_updates import MatchedUpdates


class Latent(NamedTuple):
    """A prunable leaf and its latent weights."""

    leaf: PrunableLeaf
    update: jax.Array
    """The optimizer's update of the leaf."""
    weights: jax.Array
    """weight + memory + update, float32 at least."""


def init_memory(resolved: ResolvedTargets, dtype: DTypeLike | None) -> Any:
    """Return zeros for the prunable leaves, and `optax.MaskedNode` for the others.

    Args:
      resolved: the targets and their leaves.
      dtype: of the memory; None for float32, or float64 for float64 weights.
    """
    return resolved.tree.rebuild_masked(
        {
            leaf.position: jnp.zeros_like(
                leaf.weights, dtype=dtype or sort_keys.score_dtype(leaf.weights.dtype)
            )
            for leaf in resolved.leaves
        }
    )


def find_latents(
    resolved: ResolvedTargets, matched: MatchedUpdates, memory: Any
) -> dict[int, Latent]:
    """Return the latent weights of the prunable leaves, by position.

    Args:
      resolved: the targets and their leaves.
      matched: the optimizer's updates.
      memory: the tree of the previous step, from `init_memory` at first.

    Raises:
      ValueError: if the memory does not fit the leaves.
    """
    latents = {}
    for leaf, remembered in with_memory(resolved, memory):
        update = matched.at(leaf)
        moved = remembered + sort_keys.widen(update, remembered.dtype)
        latents[leaf.position] = Latent(leaf, update, moved)
    return latents


def with_memory(
    resolved: ResolvedTargets, memory: Any
) -> list[tuple[PrunableLeaf, jax.Array]]:
    """Return the prunable leaves in the order of the tree, each with weight + memory.

    Args:
      resolved: the targets and their leaves.
      memory: as for `find_latents`.

    Raises:
      ValueError: if the memory does not fit the leaves.
    """
    leaves = sorted(resolved.leaves, key=lambda leaf: leaf.position)
    arrays = arrays_of_leaves("state.memory", "arrays", memory, leaves)
    pairs = []
    for leaf, array in zip(leaves, arrays, strict=True):
        dtype = sort_keys.score_dtype(leaf.weights.dtype)
        weights = sort_keys.widen(jnp.asarray(leaf.weights), dtype)
        pairs.append((leaf, weights + sort_keys.widen(array, dtype)))
    return pairs


def update_to(latent: Latent, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the update that moves a leaf to new weights, and where it arrives.

    These are what `optax.apply_updates` makes of the leaf. They differ from the new
    weights by rounding, but not where the new weights are zero.
    """
    old = jnp.asarray(latent.leaf.weights)
    dtype = _wide_enough(latent.update.dtype, old.dtype)
    update = (weights - sort_keys.widen(old, weights.dtype)).astype(dtype)
    arrived = (old.astype(dtype) + update).astype(old.dtype)
    return update, sort_keys.widen(arrived, weights.dtype)


def _wide_enough(update: jnp.dtype, weights: jnp.dtype) -> jnp.dtype:
    """Return a dtype for updates that can take any weight to exactly zero."""
    infos = (jnp.finfo(update), jnp.finfo(weights))
    widest = max(infos, key=lambda info: info.nmant)
    if any(info.nexp > widest.nexp for info in infos):  # float16 beside bfloat16
        return jnp.dtype(jnp.float32)
    return widest.dtype


def replace_memory(memory: Any, arrays: Mapping[int, jax.Array]) -> Any:
    """Return the memory with new arrays, given by the positions of their leaves."""
    structure = jax.tree.structure(memory)
    dtypes = [array.dtype for array in jax.tree.leaves(memory)]
    pairs = zip(sorted(arrays), dtypes, strict=True)
    return jax.tree.unflatten(
        structure, [arrays[position].astype(dtype) for position, dtype in pairs]
    )
