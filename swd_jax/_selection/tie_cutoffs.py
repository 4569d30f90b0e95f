"""Where the first few of a leaf's chosen elements end, in row-major order."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import exact_sums, uint64
from swd_jax._arrays.manual_sharding import Shards, vary_as
from swd_jax._selection.order_statistics import Operand


def position_cutoffs(
    chosen: Callable[[Operand], jax.Array],
    operands: Sequence[Operand],
    shapes: Sequence[tuple[int, ...]],
    quotas: jax.Array,
    *,
    costs: Sequence[exact_sums.Cost] | None = None,
    shards: Shards | None = None,
) -> list[jax.Array]:
    """Where each leaf's first `quota` chosen elements end, in row-major order.

    Settles one bit of a coordinate at a time by counting, as `order_statistics` does
    with keys; no running sum over a leaf is stored.

    Args:
      chosen: elementwise function from an operand to booleans in its leaf's shape.
      operands: one for each leaf.
      shapes: the leaves' shapes.
      quotas: wide numbers, shape (leaves, 4).
      costs: what each element counts for, at least 1; 1 if not given.
      shards: how the leaves are divided by hand, if they are. A leaf then has one more
        dimension, in front: the parts in the order of their devices.

    Returns:
      A cutoff for every leaf, shape (dimensions,): the chosen elements before it
      (`is_before`) are the first that cost no more than `quota` together, or all if
      all cost less.
    """
    parts = [None if shards is None else shards.part(i) for i in range(len(shapes))]
    if shards is None:
        lengths = shapes
    else:
        lengths = [(shards.parts(i), *shape) for i, shape in enumerate(shapes)]
    moves = [_cutoff_moves(shape) for shape in lengths]
    steps = max((len(move) for move in moves), default=0)
    moves = [np.pad(move, [(0, steps - len(move)), (0, 0)]) for move in moves]

    def settle_bit(step: jax.Array, cutoffs: list[jax.Array]) -> list[jax.Array]:
        candidates = [
            cutoff + jnp.asarray(move)[step]
            for cutoff, move in zip(cutoffs, moves, strict=True)
        ]
        # As in a search: else a copy of what each leaf has chosen would be kept.
        held, tied = jax.lax.optimization_barrier((list(operands), candidates))
        before = [
            [chosen(operand) & is_before(shape, candidate, part)]
            for operand, shape, candidate, part in zip(
                held, shapes, tied, parts, strict=True
            )
        ]
        counts = exact_sums.count_true(before, costs, shards)[:, 0]
        fits = ~uint64.less(quotas, counts)
        return [
            jnp.where(fit, candidate, cutoff)
            for fit, candidate, cutoff in zip(fits, candidates, cutoffs, strict=True)
        ]

    start = [jnp.zeros(move.shape[1], jnp.uint32) for move in moves]
    if steps == 0:
        return start
    varying = jax.tree.leaves((list(operands), costs, quotas))
    start = vary_as(start, varying, shards)
    last = jnp.where(jnp.any(quotas > 0), steps, 0)
    return jax.lax.fori_loop(0, last, settle_bit, start)


def is_before(
    shape: tuple[int, ...], cutoff: jax.Array, part: jax.Array | None = None
) -> jax.Array:
    """Which positions of a leaf come before a cutoff's coordinates, in row-major order.

    Coordinates rather than one flat index: they never exceed 32 bits, they leave a
    sharded leaf as it lies, and there is no array of indices to store.

    Args:
      shape: of the leaf, or of the part of it that is here.
      cutoff: the coordinates, shape (dimensions,).
      part: which part of a leaf is here, if it is divided by hand: then the first of
        the coordinates is that of the part.
    """
    if part is not None:
        within = is_before(shape, cutoff[1:]) if shape else jnp.zeros((), bool)
        return (part < cutoff[0]) | ((part == cutoff[0]) & within)
    if not shape:
        return cutoff[0] > 0
    before = jnp.zeros(shape, bool)
    for axis in reversed(range(len(shape))):
        index = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        before = (index < cutoff[axis]) | ((index == cutoff[axis]) & before)
    return before


def _cutoff_moves(shape: tuple[int, ...]) -> np.ndarray:
    """How a cutoff is settled, one bit of one coordinate at a time: (steps, axes)."""
    # A number without dimensions is cut at before or after it, like a row of one.
    lengths = shape or (1,)
    rows = [
        [(axis == i) << shift for i in range(len(lengths))]
        for axis, length in enumerate(lengths)
        for shift in reversed(range(length.bit_length()))
    ]
    return np.array(rows, np.uint32).reshape(-1, len(lengths))
