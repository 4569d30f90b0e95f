"""Functions of a leaf that are computed for some of its rows at a time.

XLA:TPU pads an array whose last axis is short to 128 elements along it: 4 x 4 blocks of
weights, stored as an array with two axes of length 4, take 64 times the bytes of the
weights. A few rows at a time fit into vector memory however they are padded, so that
nothing but the results is stored in the device's memory (libtpu 0.0.50).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from swd_jax._arrays import explicit_sharding, packed_masks
from swd_jax._arrays.manual_sharding import pcast_like

_CHUNK_SIZE = 1 << 16
"""The most elements that are computed at a time. Padded to 256 times their bytes, as
for blocks of 2 x 2, they fit into the 128 MiB of vector memory of a TPU v5e."""


def map_rows(
    function: Callable[[Any], jax.Array],
    inputs: Any,
    rows_per_unit: int,
    *,
    growth: int = 1,
) -> jax.Array:
    """Apply a function of a leaf to some of its rows at a time.

    Args:
      function: from a tree of arrays to an array with as many dimensions. Each unit of
        rows determines the rows of the result that belong to it.
      inputs: a tree of arrays of one shape. Rows are the indices of the last axis but
        one, or those of the only axis.
      rows_per_unit: the number of rows of a unit.
      growth: how many times as many elements as an input the result has, if more.

    Returns:
      What the function makes of the whole leaf. It is applied to the whole leaf if that
      is small or empty, or if a unit may extend over several shards.
    """
    first = jax.tree.leaves(inputs)[0]
    if first.size == 0:
        return function(inputs)
    axis = packed_masks.row_axis(first)
    num_shards = packed_masks.most_shards(first)
    shard_rows = first.shape[axis] // num_shards
    # A row is one of every shard: they are computed at the same time.
    row_size = growth * first.size // shard_rows
    rows = _rows_of_chunk(shard_rows, row_size, rows_per_unit)
    crosses_shards = num_shards > 1 and shard_rows % rows_per_unit != 0
    if rows >= shard_rows or crosses_shards or explicit_sharding.is_sharded(first):
        return function(inputs)
    num_chunks = shard_rows // rows

    def split(array: jax.Array) -> jax.Array:
        """Give the shards an axis of their own."""
        if num_shards == 1:
            return array
        shape = list(array.shape)
        shape[axis : axis + 1] = [num_shards, array.shape[axis] // num_shards]
        return array.reshape(shape)

    def merge(array: jax.Array) -> jax.Array:
        if num_shards == 1:
            return array
        shape = list(array.shape)
        shape[axis : axis + 2] = [num_shards * array.shape[axis + 1]]
        return array.reshape(shape)

    split_axis = axis if num_shards == 1 else axis + 1
    by_shard = jax.tree.map(split, inputs)

    def of_rows(start: Any, length: int) -> jax.Array:
        """Return the results of some rows of every shard."""
        slice_rows = functools.partial(
            jax.lax.dynamic_slice_in_dim,
            start_index=start,
            slice_size=length,
            axis=split_axis,
        )
        part = jax.tree.map(lambda array: merge(slice_rows(array)), by_shard)
        # Sliced once for all that reads it.
        return split(function(jax.lax.optimization_barrier(part)))

    rest = shard_rows - num_chunks * rows
    chunk = jax.eval_shape(lambda: of_rows(0, rows))
    rows_in_chunk = chunk.shape[split_axis]
    rows_in_rest = 0
    if rest:
        rows_in_rest = jax.eval_shape(lambda: of_rows(0, rest)).shape[split_axis]
    shape = list(chunk.shape)
    shape[split_axis] = num_chunks * rows_in_chunk + rows_in_rest

    # Not `lax.map`: XLA:TPU may lay out the stack of its results with the rows of a
    # chunk as the fastest axis, padded to 128.
    def put_chunk(i: jax.Array, results: jax.Array) -> jax.Array:
        part = of_rows(i * rows, rows)
        start = i * rows_in_chunk
        return jax.lax.dynamic_update_slice_in_dim(results, part, start, split_axis)

    empty = pcast_like(jnp.zeros(shape, chunk.dtype), jax.tree.leaves(inputs))
    results = jax.lax.fori_loop(0, num_chunks, put_chunk, empty)
    if rest:
        last = of_rows(num_chunks * rows, rest)
        results = jax.lax.dynamic_update_slice_in_dim(
            results, last, num_chunks * rows_in_chunk, split_axis
        )
    return merge(results)


def _rows_of_chunk(num_rows: int, row_size: int, rows_per_unit: int) -> int:
    """Return how many rows to compute at a time, at least those of one unit."""
    most = _CHUNK_SIZE // max(row_size, 1)
    # Results of 8 rows fill a tile of float32: chunks of them need not be realigned.
    step = 8 * rows_per_unit if 8 * rows_per_unit <= most else rows_per_unit
    most = max(most // step * step, step)
    # Chunks of one length need not be concatenated with a shorter one.
    even = (n for n in range(most, most // 4, -step) if num_rows % n == 0)
    return next(even, most)
