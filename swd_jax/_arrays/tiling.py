"""Axes of a leaf tiled into blocks of neighbours, also where the leaf is sharded."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from swd_jax._arrays.explicit_sharding import is_sharded, reshape_sharded, reshard_like


def tile(array: jax.Array, lengths: Sequence[int], fill: float = 0) -> jax.Array:
    """Split each axis into (tiles, length of a tile), padded at the far edge.

    Args:
      array: any array.
      lengths: length of a tile along each axis; one longer than the axis is clipped.
      fill: the padding, where a length does not divide its axis.

    Returns:
      The array with two axes for each of its own.
    """
    shape: list[int] = []
    spec: list[Any] = []
    padding = []
    array_spec = jax.typeof(array).sharding.spec
    for n, length, names in zip(array.shape, lengths, array_spec, strict=True):
        tile_length = max(min(n, length), 1)
        padding.append((0, -n % tile_length))
        shape += [-(-n // tile_length), tile_length]
        spec += [names, None] if n > tile_length else [None, names]
    if any(after for _, after in padding):
        array = jnp.pad(array, padding, constant_values=fill)
    return reshape_sharded(array, shape, spec)


def untile(tiles: jax.Array, reference: jax.Array) -> jax.Array:
    """Undo `tile`: merge pairs of axes and cut the padding off.

    Args:
      tiles: array with two axes for each axis of the reference.
      reference: array with the shape and the sharding of the result.
    """
    pairs = zip(tiles.shape[::2], tiles.shape[1::2], strict=True)
    shape = [num_tiles * tile_length for num_tiles, tile_length in pairs]
    if not is_sharded(reference):
        padded = tiles.reshape(shape)
    else:
        sharding = jax.typeof(reference).sharding
        padded = jax.lax.reshape(tiles, shape, out_sharding=sharding)
    if padded.shape == reference.shape:
        return padded
    unpadded = padded[*(slice(n) for n in reference.shape)]
    return reshard_like(unpadded, reference)


def shards_per_axis(array: Any) -> tuple[int, ...]:
    """Return the number of shards along each axis, as the array's type has it.

    All are 1 outside of Explicit mode, where types have no sharding.
    """
    sharding = jax.typeof(array).sharding
    return tuple(
        math.prod(sharding.mesh.shape[name] for name in _axis_names(entry))
        for entry in sharding.spec
    )


def tiles_fit_shards(
    shape: Sequence[int], lengths: Sequence[int], num_shards: Sequence[int]
) -> bool:
    """Whether each tile lies within one shard along the axes that are tiled.

    Args:
      shape: of the array.
      lengths: length of a tile along each axis.
      num_shards: along each axis.
    """
    return all(
        count == 1 or n <= length or n % (length * count) == 0
        for n, length, count in zip(shape, lengths, num_shards, strict=True)
    )


def _axis_names(entry: Any) -> tuple[str, ...]:
    """Return the mesh axes in one entry of a PartitionSpec."""
    if entry is None:
        return ()
    return (entry,) if isinstance(entry, str) else tuple(entry)
