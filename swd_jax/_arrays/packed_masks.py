"""Masks of a leaf with a bit for each weight, up to 32 rows to a word.

A mask that is stored between two passes takes 1/32 of the bytes of float32 weights.
Rows are the indices of the last axis but one, so that XLA:TPU, which tiles the last two
axes of an array by 8 x 128, broadcasts a word to its rows without a copy, and in the
loop that reads the weights (libtpu 0.0.50).
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import tiling, variadic_reduce
from swd_jax._arrays.explicit_sharding import reshape_sharded

_WORD_BITS = 32
_TILE_ROWS = 8
"""XLA:TPU stores arrays in tiles of so many rows, or of a multiple."""


def row_axis(array: Any) -> int:
    """Return the axis of the rows of an array of at least one dimension."""
    return max(array.ndim - 2, 0)


def most_shards(array: jax.Array) -> int:
    """Return the most shards that the rows of an array may be divided into."""
    axis = row_axis(array)
    num_shards = tiling.shards_per_axis(array)[axis]
    if num_shards == 1 and variadic_reduce.may_be_sharded():
        # In Auto mode the sharding is unknown while tracing. The number of shards
        # divides the length of the axis and the number of devices.
        num_shards = max(math.gcd(array.shape[axis], jax.device_count()), 1)
    return num_shards


def rows_per_word(array: jax.Array) -> int | None:
    """Return how many rows of a leaf share a word, all of them in one shard.

    None if no number of rows suits: XLA:TPU stores a mask that it has to cut to the
    rows of the leaf, or whose words are not of whole tiles. Bools are smaller.
    """
    rows_of_shard = array.shape[row_axis(array)] // most_shards(array)
    if 0 < rows_of_shard <= _WORD_BITS:
        return rows_of_shard
    whole_tiles = range(_WORD_BITS, 0, -_TILE_ROWS)
    return next((rows for rows in whole_tiles if rows_of_shard % rows == 0), None)


def pack(mask: jax.Array, rows: int) -> jax.Array:
    """Return the words of a mask.

    Args:
      mask: bools of at least one dimension.
      rows: the rows that share a word, at most 32. They divide those of the mask.

    Returns:
      uint32 in the shape of the mask, with fewer rows.
    """
    axis = row_axis(mask)
    bits = _split_rows(mask, rows).astype(jnp.uint32)
    position = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis + 1)
    return jnp.sum(bits << position, axis=axis + 1, dtype=jnp.uint32)


def unpack(
    words: jax.Array, shape: Sequence[int], rows: int, repeats: int = 1
) -> jax.Array:
    """Return the mask of packed words, repeated along the rows.

    Args:
      words: from `pack`.
      shape: of the result.
      rows: as for `pack`.
      repeats: the number of rows of the result that each packed row becomes.
    """
    axis = row_axis(words)
    num_rows = shape[axis]
    length = rows * repeats
    split = list(words.shape)
    split.insert(axis + 1, length)
    spec: list[Any] = list(jax.typeof(words).sharding.spec)
    position = jax.lax.broadcasted_iota(jnp.uint32, split, axis + 1)
    position = position // np.uint32(repeats)
    bits = jnp.expand_dims(words, axis + 1) >> position & np.uint32(1)
    split[axis : axis + 2] = [split[axis] * length]
    mask = reshape_sharded(bits.astype(bool), split, spec)
    return jax.lax.slice_in_dim(mask, 0, num_rows, axis=axis)


def _split_rows(array: jax.Array, rows: int) -> jax.Array:
    """Split the axis of the rows in two, the second one of a given length."""
    axis = row_axis(array)
    shape: list[int] = list(array.shape)
    spec: list[Any] = list(jax.typeof(array).sharding.spec)
    shape[axis : axis + 1] = [shape[axis] // rows, rows]
    spec.insert(axis + 1, None)
    return reshape_sharded(array, shape, spec)
