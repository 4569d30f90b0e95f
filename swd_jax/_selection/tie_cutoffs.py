"""Ties at a threshold: which of a leaf's tied elements are taken, up to a quota.

The first ones in row-major order are taken. A *cutoff* is the position at which they
end, given as coordinates.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import exact_sums, uint64, xla_cpu
from swd_jax._arrays.manual_sharding import Shards, pcast_like
from swd_jax._selection.order_statistics import LeafInputs


def find_tie_cutoffs(
    is_tied: Callable[[LeafInputs], jax.Array],
    inputs: Sequence[LeafInputs],
    shapes: Sequence[tuple[int, ...]],
    quotas: jax.Array,
    *,
    costs: Sequence[exact_sums.Cost] | None = None,
    shards: Shards | None = None,
) -> list[jax.Array]:
    """Find where each leaf's first tied elements end that its quota pays for.

    The search settles one bit of a coordinate per pass, by counting. No running sum
    over a leaf is stored.

    Args:
      is_tied: elementwise function from a leaf's inputs to a mask in its shape.
      inputs: of each leaf.
      shapes: the leaves' shapes.
      quotas: emulated uint64, shape (leaves, 4).
      costs: the cost of each element, at least 1; 1 if not given.
      shards: how the leaves are sharded manually, if they are. A leaf then has one more
        coordinate, in front: the index of the shard.

    Returns:
      A cutoff for every leaf, shape (coordinates,): the tied elements before it
      (`is_before`) are the first that cost at most `quota` together, or all if all cost
      less.
    """
    indices = [
        None if shards is None else shards.shard_index(i) for i in range(len(shapes))
    ]
    if shards is None:
        lengths = shapes
    else:
        lengths = [(shards.num_shards(i), *shape) for i, shape in enumerate(shapes)]
    leaf_bits = [_coordinate_bits(shape) for shape in lengths]
    num_steps = max((len(bits) for bits in leaf_bits), default=0)
    leaf_bits = [
        np.pad(bits, [(0, num_steps - len(bits)), (0, 0)]) for bits in leaf_bits
    ]

    def try_next_bit(step: jax.Array, cutoffs: list[jax.Array]) -> list[jax.Array]:
        candidates = [
            cutoff + jnp.asarray(bits)[step]
            for cutoff, bits in zip(cutoffs, leaf_bits, strict=True)
        ]
        loop_inputs, loop_candidates = xla_cpu.keep_in_loop(list(inputs), candidates)
        masks = [
            [is_tied(leaf_inputs) & is_before(shape, candidate, index)]
            for leaf_inputs, shape, candidate, index in zip(
                loop_inputs, shapes, loop_candidates, indices, strict=True
            )
        ]
        counts = exact_sums.count_true(masks, costs, shards)[:, 0]
        fits = ~uint64.less(quotas, counts)
        return [
            jnp.where(fit, candidate, cutoff)
            for fit, candidate, cutoff in zip(fits, candidates, cutoffs, strict=True)
        ]

    start = [jnp.zeros(bits.shape[1], jnp.uint32) for bits in leaf_bits]
    if num_steps == 0:
        return start
    start = pcast_like(start, jax.tree.leaves((list(inputs), costs, quotas)), shards)
    stop = jnp.where(jnp.any(quotas > 0), num_steps, 0)
    return jax.lax.fori_loop(0, stop, try_next_bit, start)


def is_before(
    shape: tuple[int, ...], cutoff: jax.Array, shard_index: jax.Array | None = None
) -> jax.Array:
    """Return the mask of positions before a cutoff, in row-major order.

    A cutoff has coordinates instead of one flat index: coordinates fit into 32 bits, a
    sharded leaf is not reshaped, and no array of indices is stored.

    Args:
      shape: of the leaf, or of its local shard.
      cutoff: the coordinates, shape (dimensions,).
      shard_index: index of the local shard, if the leaf is sharded manually; the first
        coordinate is then that of the shard.
    """
    if shard_index is not None:
        in_shard = is_before(shape, cutoff[1:]) if shape else jnp.zeros((), bool)
        is_same_shard = shard_index == cutoff[0]
        return (shard_index < cutoff[0]) | (is_same_shard & in_shard)
    if not shape:
        return cutoff[0] > 0
    mask = jnp.zeros(shape, bool)
    for axis in reversed(range(len(shape))):
        index = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        mask = (index < cutoff[axis]) | ((index == cutoff[axis]) & mask)
    return mask


def _coordinate_bits(shape: tuple[int, ...]) -> np.ndarray:
    """Return the bits of a cutoff in the order of the search: (steps, dimensions).

    Each row adds one bit to one coordinate, the highest bit of the first one first.
    """
    # A scalar has one coordinate, like an array of shape (1,): 0 or 1 elements are
    # before the cutoff.
    lengths = shape or (1,)
    rows = [
        [(axis == i) << shift for i in range(len(lengths))]
        for axis, length in enumerate(lengths)
        for shift in reversed(range(length.bit_length()))
    ]
    return np.array(rows, np.uint32).reshape(-1, len(lengths))
