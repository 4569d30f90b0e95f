"""Sums and minima over whole leaves, exact, and without storing what they reduce.

Several are taken in one reading, by one joint reduction. That is more than thrift:
XLA's CPU backend splits a reduction of a single array in two and stores all the numbers
between, as many as there are weights; a joint one it does not.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax import _wide

Cost = int | jax.Array | np.ndarray | None
"""What each element of a leaf counts for: one number of at least 1 for all of them, or
unsigned integers of 8, 16 or 32 bits in the leaf's shape, at least 1; None for 1."""

# From this many on, one unsigned 32-bit sum could wrap round.
_WRAPS_FROM = 1 << 32

# Costs are summed eight bits at a time.
_DIGIT_BITS = 8
_DIGIT = 1 << _DIGIT_BITS


class Tally(NamedTuple):
    """What one reading of the leaves tells of several thresholds."""

    below: jax.Array
    """How much is below each: wide numbers, shape (leaves, thresholds, 4)."""
    next: jax.Array
    """The smallest key that is not below it; the largest integer if there is none.
    shape=(leaves, thresholds)"""


def tally(
    keys: Sequence[jax.Array],
    thresholds: Sequence[Sequence[jax.Array]],
    costs: Sequence[Cost] | None = None,
) -> Tally:
    """Count what is below each threshold, and find the key that comes next.

    Args:
      keys: unsigned integers for every leaf, in its shape.
      thresholds: for every leaf equally many keys of shape ().
      costs: what each element counts for; 1 if not given.
    """
    sums, minima = [], []
    for leaf, limits, cost in zip(keys, thresholds, _each(costs, keys), strict=True):
        masks = [leaf < limit for limit in limits]
        greatest = np.array(np.iinfo(leaf.dtype).max, leaf.dtype)
        rest = [jnp.where(mask, greatest, leaf) for mask in masks]
        of_leaf, next_keys = _sums_and_minima(masks, cost, rest)
        sums.append(of_leaf)
        minima.append(jnp.stack(next_keys))
    return Tally(_stacked(sums), jnp.stack(minima))


def count_true(
    leaves: Sequence[Sequence[jax.Array]], costs: Sequence[Cost] | None = None
) -> jax.Array:
    """How many elements of masks are true, leaf by leaf, or what they cost together.

    Args:
      leaves: for every leaf equally many masks in its shape.
      costs: what each element counts for; 1 if not given.

    Returns:
      Wide numbers, shape (leaves, masks, 4).
    """
    return _stacked(
        [
            _sums_and_minima(masks, cost, [])[0]
            for masks, cost in zip(leaves, _each(costs, leaves), strict=True)
        ]
    )


def sum_integers(values: jax.Array) -> jax.Array:
    """The sum of unsigned integers of at most 32 bits: a wide number, shape (4,)."""
    everywhere = jnp.ones(values.shape, bool)
    return count_true([[everywhere]], [values])[0, 0]


def sum_integers_as_float(values: jax.Array) -> jax.Array:
    """The same as the nearest float32, or nearly, which is less to compile."""
    everywhere = jnp.ones(values.shape, bool)
    sums, _ = _reduced(_digits([everywhere], values), _DIGIT - 1, [])
    digits = sums.astype(jnp.float32) if sums.ndim == 1 else _wide.to_float32(sums)
    total = jnp.zeros((), jnp.float32)
    for digit in digits[::-1]:
        # Products with a power of two are exact: nothing depends on how it is compiled.
        total = total * _DIGIT + digit
    return total


def largest(keys: jax.Array) -> jax.Array:
    """The largest key of a leaf, shape (); 0 if there is none."""
    everything = jnp.ones(keys.shape, bool)
    _, [least] = _sums_and_minima([everything], None, [~keys])
    return ~least


def _each(costs: Sequence[Cost] | None, leaves: Sequence[object]) -> Sequence[Cost]:
    return [None] * len(leaves) if costs is None else costs


def _sums_and_minima(
    masks: Sequence[jax.Array], cost: Cost, compared: Sequence[jax.Array]
) -> tuple[jax.Array, list[jax.Array]]:
    """What masks of a leaf cost, and the minima of other arrays in its shape.

    Returns:
      One sum for each mask: 32-bit integers, shape (masks,), where they cannot wrap
      round, else wide numbers, shape (masks, 4). And the minima.
    """
    if cost is None or isinstance(cost, int):
        ones = [mask.astype(jnp.uint32) for mask in masks]
        sums, minima = _reduced(ones, 1, compared)
        if cost is None:
            return sums, minima
        return _wide.multiply(_as_wide(sums), cost), minima
    digits = _digits(masks, jnp.asarray(cost))
    sums, minima = _reduced(digits, _DIGIT - 1, compared)
    return _from_digits(_as_wide(sums).reshape(len(masks), -1, _wide.LIMBS)), minima


def _reduced(
    addends: Sequence[jax.Array], greatest: int, compared: Sequence[jax.Array]
) -> tuple[jax.Array, list[jax.Array]]:
    """Sums of some arrays and minima of others, all in the shape of one leaf.

    Args:
      addends: unsigned 32-bit integers.
      greatest: what none of them exceeds.
      compared: unsigned integers.

    Returns:
      The sums: 32-bit integers, shape (addends,), where they cannot wrap round, else
      wide numbers, shape (addends, 4). And the minima.
    """
    if addends[0].size * greatest < _WRAPS_FROM:
        sums, minima = _joint_reduction(addends, compared, range(addends[0].ndim))
        return jnp.stack(sums), minima
    # Each row has a sum of its own first.
    sums, minima = _joint_reduction(addends, compared, [addends[0].ndim - 1])
    total = _wide.from_uint32(jnp.stack(sums))
    while total.ndim > 2:
        total = _wide.sum_long_axis(total)
    return total, [jnp.min(rows) for rows in minima]


def _digits(masks: Sequence[jax.Array], cost: jax.Array) -> list[jax.Array]:
    """The costs where masks are true, digit by digit: small enough to be summed."""
    shifts = [_DIGIT_BITS * i for i in range(cost.dtype.itemsize)]
    cost = cost.astype(jnp.uint32)
    return [
        jnp.where(mask, (cost >> shift) % _DIGIT, 0)
        for mask in masks
        for shift in shifts
    ]


def _from_digits(sums: jax.Array) -> jax.Array:
    """The numbers, shape (n, 4), whose digits' sums are wide, shape (n, digits, 4)."""
    total = sums[:, 0]
    for i in range(1, sums.shape[1]):
        total = _wide.add(total, _wide.shift_left(sums[:, i], _DIGIT_BITS * i))
    return total


def _joint_reduction(
    added: Sequence[jax.Array], compared: Sequence[jax.Array], axes: Iterable[int]
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Sums of some arrays and minima of others, all of one shape, in one reading."""
    # A single array has company, and a barrier keeps the compiler from dropping it.
    alone = len(added) + len(compared) == 1
    summed = [*added, 1 - added[0]] if alone else [*added]
    operands = [*summed, *compared]
    initial = [np.zeros((), array.dtype) for array in summed]
    initial += [np.array(np.iinfo(array.dtype).max, array.dtype) for array in compared]

    def combine(first: Sequence[jax.Array], second: Sequence[jax.Array]) -> list:
        pairs = list(zip(first, second, strict=True))
        sums = [a + b for a, b in pairs[: len(summed)]]
        return sums + [jnp.minimum(a, b) for a, b in pairs[len(summed) :]]

    reduced = jax.lax.reduce(operands, initial, combine, tuple(axes))
    reduced = jax.lax.optimization_barrier(reduced)
    return list(reduced[: len(added)]), list(reduced[len(summed) :])


def _as_wide(sums: jax.Array) -> jax.Array:
    return _wide.from_uint32(sums) if sums.ndim == 1 else sums


def _stacked(sums: Sequence[jax.Array]) -> jax.Array:
    """Wide numbers, shape (leaves, masks, 4)."""
    if all(of_leaf.ndim == 1 for of_leaf in sums):
        # Widened together: with a thousand leaves, what is compiled counts.
        return _wide.from_uint32(jnp.stack(sums))
    return jnp.stack([_as_wide(of_leaf) for of_leaf in sums])
