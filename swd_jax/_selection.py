"""The selection engine: exact order statistics by counting, leaf by leaf.

It knows arrays and counts only. Every leaf comes as an *operand* (any pytree of
arrays) that an elementwise function turns into unsigned integer keys; the keys are
never stored. The bits of a threshold are settled from the highest down, by counting
the keys below a few candidates: what is read is the weights, and what is kept is a few
integers, however many weights there are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax import _wide

Operand = Any
"""What the key function takes: a leaf, alone or with its statistics."""

KeyFunction = Callable[[Operand], jax.Array]
"""Elementwise: operand -> unsigned integer keys in the shape of its leaf."""

Groups = tuple[tuple[int, ...], ...]
"""Which operands are ranked together: one tuple of positions for each threshold."""


_BITS_PER_PASS = 2
_CANDIDATES = (1 << _BITS_PER_PASS) - 1

# Thresholds, how many keys are below them, candidates (candidates, groups), and these
# once more as one array for each group.
_Carry = tuple[jax.Array, jax.Array, jax.Array, list[jax.Array]]


def order_statistics(
    key: KeyFunction,
    operands: Sequence[Operand],
    groups: Groups,
    ranks: jax.Array,
    *,
    bits: int,
    largest: int,
    renew: jax.Array | None = None,
    kept: jax.Array | None = None,
) -> tuple[list[jax.Array], jax.Array]:
    """The rank-th smallest key of every group, ranks counted from zero.

    Finds, two bits at a time from the highest, the greatest `v <= largest` of which
    `#{keys < v} <= rank` holds: three candidates are counted in one reading.

    Args:
      key: elementwise function from an operand to its keys.
      operands: one for each leaf.
      groups: the positions in `operands` that are ranked together.
      ranks: wide numbers, shape (groups, 4).
      bits: how many bits a key has.
      largest: greatest threshold to return; keys above it count as large, whatever
        their order among themselves.
      renew: where it is false, nothing is looked for: the `kept` thresholds are
        returned, after one reading to count what is below them. (A condition inside
        the loop: for the branches of a `cond` round it, XLA copies all weights.)
      kept: keys, shape (groups,); with `renew`.

    Returns:
      A threshold for every group: unsigned integers of the keys' dtype, shape ();
      `largest` where a group has no more than rank keys below it. And how many keys
      are below them: wide numbers, shape (groups, 4).
    """
    dtype = jax.eval_shape(key, operands[0]).dtype
    passes = -(-bits // _BITS_PER_PASS)
    multiples = jnp.arange(1, _CANDIDATES + 1, dtype=dtype)[:, None]

    def candidates_at(step: jax.Array, thresholds: jax.Array) -> jax.Array:
        """Shape (candidates, groups); the thresholds alone after the last step."""
        steps_left = passes - 1 - step
        shift = (_BITS_PER_PASS * jnp.maximum(steps_left, 0)).astype(dtype)
        settled = steps_left < 0 if renew is None else (steps_left < 0) | ~renew
        return thresholds[None] + jnp.where(settled, 0, multiples << shift)

    def split(candidates: jax.Array) -> list[jax.Array]:
        # One array for each group and not one for all, of which every leaf would read
        # its own part: so leaves of one shape share one compiled loop.
        return [candidates[:, i] for i in range(len(groups))]

    def settle_bits(step: jax.Array, carry: _Carry) -> _Carry:
        thresholds, below, candidates, of_groups = carry
        counts = count_below(key, operands, groups, of_groups)
        fits = (candidates <= largest) & ~_wide.less(ranks[None], counts)
        if renew is not None:
            fits = fits | ~renew
        for fit, candidate, count in zip(fits, candidates, counts, strict=True):
            thresholds = jnp.where(fit, candidate, thresholds)
            below = jnp.where(fit[:, None], count, below)
        candidates = candidates_at(step + 1, thresholds)
        return thresholds, below, candidates, split(candidates)

    start, last = jnp.zeros(len(groups), dtype), jnp.array(passes)
    if renew is not None and kept is not None:
        start, last = jnp.where(renew, start, kept), jnp.where(renew, passes, 1)
    first = candidates_at(jnp.array(0), start)
    _, below, _, of_groups = jax.lax.fori_loop(
        0, last, settle_bits, (start, jnp.zeros_like(ranks), first, split(first))
    )
    return [thresholds[0] for thresholds in of_groups], below


def count_below(
    key: KeyFunction,
    operands: Sequence[Operand],
    groups: Groups,
    thresholds: list[jax.Array],
) -> jax.Array:
    """How many keys of every group are below several thresholds.

    Args:
      key: elementwise function from an operand to its keys.
      operands: one for each leaf.
      groups: the positions in `operands` that are counted together.
      thresholds: keys, shape (thresholds,), for every group.

    Returns:
      Wide numbers, shape (thresholds, groups, 4).
    """
    # Inside a loop the compiler would move the keys, which no threshold changes, out
    # of it and keep a copy of all of them. The barrier ties them to the thresholds.
    operands, thresholds = jax.lax.optimization_barrier((operands, thresholds))
    group_of = {i: position for position, group in enumerate(groups) for i in group}
    masks = []
    for i, operand in enumerate(operands):
        keys = key(operand)
        masks.append([keys < limit for limit in thresholds[group_of[i]]])
    counts = jnp.swapaxes(_wide.count_true(masks), 0, 1)
    if all(group == (i,) for i, group in enumerate(groups)):
        return counts
    return jnp.stack(
        [_wide.sum_last_but_one(counts[:, np.array(group)]) for group in groups], axis=1
    )


def position_cutoffs(
    chosen: Callable[[Operand], jax.Array],
    operands: Sequence[Operand],
    shapes: Sequence[tuple[int, ...]],
    quotas: jax.Array,
) -> list[jax.Array]:
    """Where each leaf's first `quota` chosen elements end, in row-major order.

    Settles one bit of a coordinate at a time by counting, as `order_statistics` does
    with keys; no running sum over a leaf is stored.

    Args:
      chosen: elementwise function from an operand to booleans in its leaf's shape.
      operands: one for each leaf.
      shapes: the leaves' shapes.
      quotas: wide numbers, shape (leaves, 4).

    Returns:
      A cutoff for every leaf, shape (dimensions,): the chosen elements before it
      (`is_before`) are the first `quota` ones, or all if there are fewer.
    """
    moves = [_cutoff_moves(shape) for shape in shapes]
    steps = max((len(move) for move in moves), default=0)
    moves = [np.pad(move, [(0, steps - len(move)), (0, 0)]) for move in moves]

    def settle_bit(step: jax.Array, cutoffs: list[jax.Array]) -> list[jax.Array]:
        held, cutoffs = jax.lax.optimization_barrier((list(operands), cutoffs))
        candidates = [
            cutoff + jnp.asarray(move)[step]
            for cutoff, move in zip(cutoffs, moves, strict=True)
        ]
        before = [
            [chosen(operand) & is_before(shape, candidate)]
            for operand, shape, candidate in zip(held, shapes, candidates, strict=True)
        ]
        fits = ~_wide.less(quotas, _wide.count_true(before)[:, 0])
        return [
            jnp.where(fit, candidate, cutoff)
            for fit, candidate, cutoff in zip(fits, candidates, cutoffs, strict=True)
        ]

    start = [jnp.zeros(move.shape[1], jnp.uint32) for move in moves]
    if steps == 0:
        return start
    last = jnp.where(jnp.any(quotas > 0), steps, 0)
    return jax.lax.fori_loop(0, last, settle_bit, start)


def is_before(shape: tuple[int, ...], cutoff: jax.Array) -> jax.Array:
    """Which positions of a leaf come before a cutoff's coordinates, in row-major order.

    Coordinates rather than one flat index: they never exceed 32 bits, they leave a
    sharded leaf as it lies, and there is no array of indices to store.
    """
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
