"""Sums and minima over whole leaves, exact, and several in one reading."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import uint64
from swd_jax._arrays.manual_sharding import Shards, laid_out_as
from swd_jax._arrays.variadic_reduce import joint_reduction

Cost = int | jax.Array | np.ndarray | None
"""What each element of a leaf counts for: one number of at least 1 for all of them, or
unsigned integers of 8, 16 or 32 bits in the leaf's shape, at least 1; None for 1."""

# From this many on, one unsigned 32-bit sum could wrap round.
_WRAPS_FROM = 1 << 32

# So few bits at a time are summed by rows rather than all at once.
_DIGIT_BITS = 8


def count_true(
    leaves: Sequence[Sequence[jax.Array]],
    costs: Sequence[Cost] | None = None,
    shards: Shards | None = None,
) -> jax.Array:
    """How many elements of masks are true, leaf by leaf, or what they cost together.

    Args:
      leaves: for every leaf equally many masks in its shape.
      costs: what each element counts for; 1 if not given.
      shards: how the leaves are divided by hand, if they are.

    Returns:
      Wide numbers, shape (leaves, masks, 4).
    """
    costs = [None] * len(leaves) if costs is None else costs
    sums = []
    for masks, cost in zip(leaves, costs, strict=True):
        ones = [mask.astype(jnp.uint32) for mask in masks]
        sums.append(sums_and_minima(ones, cost, [])[0])
    below = stacked(sums)
    if shards is None:
        return below
    counted = [shards.once(i, of_leaf) for i, of_leaf in enumerate(below)]
    return uint64.carry(shards.total(jnp.stack(counted)))


def sum_integers(values: jax.Array) -> jax.Array:
    """The sum of unsigned integers of at most 32 bits: a wide number, shape (4,)."""
    everywhere = jnp.ones(values.shape, bool)
    return count_true([[everywhere]], [values])[0, 0]


def sums_as_float(
    leaves: Sequence[jax.Array], shards: Shards | None = None
) -> jax.Array:
    """The sums of leaves of such integers as floats: float32, shape (leaves,).

    The nearest ones, or nearly, which is less to compile.
    """
    sizes = [
        values.size * (1 if shards is None else shards.parts(i))
        for i, values in enumerate(leaves)
    ]
    pairs = zip(leaves, sizes, strict=True)
    bits = [_digit_bits(values, size) for values, size in pairs]
    sums: list[list[jax.Array]] = []
    for values, of_digit in zip(leaves, bits, strict=True):
        ones = laid_out_as(jnp.ones(values.shape, jnp.uint32), values)
        digits = _digits(ones, values, of_digit)
        sums.append(_reduced(digits, 1 << of_digit, [])[0])
    if shards is not None:
        # As if the leaves were whole, to the last bit: wide where those would be.
        is_wide = [
            size << of_digit >= _WRAPS_FROM
            for size, of_digit in zip(sizes, bits, strict=True)
        ]
        counted = [
            [shards.once(i, _widened(each) if is_wide[i] else each) for each in of_leaf]
            for i, of_leaf in enumerate(sums)
        ]
        sums = [
            [uint64.carry(each) if each.ndim else each for each in of_leaf]
            for of_leaf in shards.total(counted)
        ]
    total = jnp.zeros(len(leaves), jnp.float32)
    for i in reversed(range(max(map(len, sums), default=0))):
        none = jnp.zeros((), jnp.uint32)
        column = [of_leaf[i] if i < len(of_leaf) else none for of_leaf in sums]
        # Products with a power of two are exact: nothing depends on how it is compiled.
        places = np.array([2.0 ** (i * of_digit) for of_digit in bits], np.float32)
        total = total + _to_float32(column) * places
    return total


def largest(leaves: Sequence[jax.Array], shards: Shards | None = None) -> jax.Array:
    """The largest key of each leaf, shape (leaves,); 0 if there is none."""
    greatest = jnp.array(jnp.iinfo(leaves[0].dtype).max, leaves[0].dtype)
    least: list[jax.Array] = []
    for keys in leaves:
        ones = laid_out_as(jnp.ones(keys.shape, jnp.uint32), keys)
        least += _reduced([ones], 1, [greatest - keys])[1]
    stacked = jnp.stack(least)
    return greatest - (stacked if shards is None else shards.least(stacked))


def sums_and_minima(
    ones: Sequence[jax.Array], cost: Cost, compared: Sequence[jax.Array]
) -> tuple[jax.Array, list[jax.Array]]:
    """Sums of what ones cost, and minima of other arrays, all in a leaf's shape.

    Args:
      ones: unsigned 32-bit integers, 0 or 1.
      cost: what each element counts for.
      compared: integers.

    Returns:
      The sums: 32-bit integers, shape (ones,), where they cannot wrap round, else wide
      numbers, shape (ones, 4). And the minima.
    """
    if cost is None or isinstance(cost, int):
        sums, minima = _reduced(ones, 1, compared)
        return times(jnp.stack(sums), cost), minima
    bits = _digit_bits(cost, cost.size)
    digits = [digit for each in ones for digit in _digits(each, cost, bits)]
    sums, minima = _reduced(digits, 1 << bits, compared)
    wides = _as_wide(jnp.stack(sums)).reshape(len(ones), -1, uint64.LIMBS)
    return _from_digits(wides, bits), minima


def times(sums: jax.Array, cost: int | None) -> jax.Array:
    """Counts of elements, as 32-bit integers or wide, times what each costs."""
    return sums if cost is None else uint64.multiply(_as_wide(sums), cost)


def _reduced(
    addends: Sequence[jax.Array], greatest: int, compared: Sequence[jax.Array]
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Sums of unsigned integers of at most `greatest`, and minima of others.

    The sums are 32-bit integers, shape (), where they cannot wrap round, else wide.
    """
    if addends[0].size * greatest < _WRAPS_FROM:
        return joint_reduction(addends, compared, range(addends[0].ndim))
    # Each row along the longest axis has a sum of its own first.
    longest = int(np.argmax(addends[0].shape))
    sums, minima = joint_reduction(addends, compared, [longest])
    total = uint64.from_uint32(jnp.stack(sums))
    while total.ndim > 2:
        total = uint64.sum_long_axis(total)
    return list(total), [jnp.min(rows) for rows in minima]


def _digit_bits(values: jax.Array | np.ndarray, size: int) -> int:
    """How many bits of so many integers, or of a row, can be summed in 32.

    Args:
      values: the integers, or a part of them.
      size: how many there are in all parts.
    """
    bits = 31 - (size - 1).bit_length()
    if bits >= _DIGIT_BITS:
        return bits
    return min(_DIGIT_BITS, 31 - (max(values.shape) - 1).bit_length())


def _digits(
    ones: jax.Array, values: jax.Array | np.ndarray, bits: int
) -> list[jax.Array]:
    """The values where there are ones, so many bits at a time, the lowest first."""
    all_bits = 8 * values.dtype.itemsize
    values = jnp.asarray(values).astype(jnp.uint32)
    mask = jnp.uint32((1 << bits) - 1)
    return [ones * (values >> i & mask) for i in range(0, all_bits, bits)]


def _from_digits(sums: jax.Array, bits: int) -> jax.Array:
    """The numbers, shape (n, 4), whose digits' sums are wide, shape (n, digits, 4)."""
    total = sums[:, 0]
    for i in range(1, sums.shape[1]):
        total = uint64.add(total, uint64.shift_left(sums[:, i], bits * i))
    return total


def _as_wide(sums: jax.Array) -> jax.Array:
    return uint64.from_uint32(sums) if sums.ndim == 1 else sums


def _to_float32(sums: Sequence[jax.Array]) -> jax.Array:
    if all(each.ndim == 0 for each in sums):
        return jnp.stack(sums).astype(jnp.float32)
    return uint64.to_float32(jnp.stack([_widened(each) for each in sums]))


def _widened(number: jax.Array) -> jax.Array:
    return number if number.ndim else uint64.from_uint32(number)


def stacked(sums: Sequence[jax.Array]) -> jax.Array:
    """Sums of leaves, as 32-bit integers or wide: wide, shape (leaves, n, 4)."""
    if all(of_leaf.ndim == 1 for of_leaf in sums):
        # Widened together: with a thousand leaves, what is compiled counts.
        return uint64.from_uint32(jnp.stack(sums))
    return jnp.stack([_as_wide(of_leaf) for of_leaf in sums])
