"""The n largest keys of every set, for sets that are too large for a sorting network.

The n-th largest key of a set is found from its highest bits to its lowest, two at a
time: of three candidates, the largest is taken that at least n keys reach. So the
number of comparisons of a key does not grow with the size of its set.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from swd_jax._arrays import variadic_reduce
from swd_jax._arrays.manual_sharding import pcast_like

_BITS_AT_ONCE = 2
# The number of members whose counting is unrolled in a loop.
_UNROLLED = 4


def is_among_largest(n: int, keys: jax.Array, axis: int) -> jax.Array:
    """Return which keys are among the n largest along an axis, the last of equals.

    Args:
      n: less than the length of the axis, which is at most 256.
      keys: int32 or int64, of at least 0; -1 for padding.
      axis: the axis along which the members of a set lie.
    """
    num_bits = 8 * keys.dtype.itemsize
    # Padding becomes 0, and every key is greater. The members come first, so that those
    # at one position, which are read together, are neighbours.
    members = jnp.moveaxis(keys.astype(f"uint{num_bits}") + 1, axis, 0)
    limit, num_reached = _limit(n, members, num_bits)
    num_looked_at = jnp.asarray(len(members))
    if not variadic_reduce.may_be_sharded():
        # Scores seldom tie: without ties, the next loops are empty.
        num_looked_at = jnp.where(jnp.any(num_reached > n), num_looked_at, 0)
    [num_greater] = _count(members, lambda key: [key > limit], num_looked_at)
    first_kept_tie = _nth_last_tie(n - num_greater, members, limit, num_looked_at)
    position = jax.lax.broadcasted_iota(jnp.int32, members.shape, 0)
    is_kept_tie = (members == limit[None]) & (position >= first_kept_tie[None])
    return jnp.moveaxis((members > limit[None]) | is_kept_tie, 0, axis)


def _limit(n: int, members: jax.Array, num_bits: int) -> tuple[jax.Array, jax.Array]:
    """Return a limit for every set that n keys reach, and how many do.

    More than n reach it only where they tie.
    """
    num_steps = num_bits // _BITS_AT_ONCE
    digits = range(1, 1 << _BITS_AT_ONCE)

    def is_unsettled(state: tuple[jax.Array, ...]) -> jax.Array:
        step, _, num_reached = state
        is_left = step < num_steps
        if variadic_reduce.may_be_sharded():
            # Devices would have to agree at every step.
            return is_left
        return is_left & jnp.any(num_reached > n)

    def add_bits(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        step, limit, num_reached = state
        shift = (_BITS_AT_ONCE * (num_steps - 1 - step)).astype(limit.dtype)
        candidates = [limit + (limit.dtype.type(digit) << shift) for digit in digits]
        counts = _count(
            members, lambda key: [key >= candidate for candidate in candidates]
        )
        for candidate, count in zip(candidates, counts, strict=True):
            is_reached = count >= n
            limit = jnp.where(is_reached, candidate, limit)
            num_reached = jnp.where(is_reached, count, num_reached)
        return step + 1, limit, num_reached

    zeros = _zeros(members, members.dtype)
    all_members = _zeros(members, jnp.int32) + len(members)
    start = (jnp.zeros((), jnp.int32), zeros, all_members)
    _, limit, num_reached = jax.lax.while_loop(is_unsettled, add_bits, start)
    return limit, num_reached


def _nth_last_tie(
    numbers: jax.Array, members: jax.Array, limit: jax.Array, num_looked_at: jax.Array
) -> jax.Array:
    """Return the position of the last key but `numbers - 1` that equals the limit.

    Args:
      numbers: of every set, at least 1.
      members: their keys, shape (length, ...sets).
      limit: of every set.
      num_looked_at: the number of members to look at, from the last one on. If it is 0,
        the result is 0.
    """

    def look(i: jax.Array, found: tuple[jax.Array, jax.Array]) -> Any:
        position, num_seen = found
        at = len(members) - 1 - i
        is_tie = _member(members, at) == limit
        num_seen = num_seen + is_tie.astype(jnp.int32)
        is_kept = is_tie & (num_seen <= numbers)
        return jnp.where(is_kept, at, position), num_seen

    zeros = _zeros(members, jnp.int32)
    position, _ = jax.lax.fori_loop(0, num_looked_at, look, (zeros, zeros))
    return position


def _count(
    members: jax.Array,
    conditions: Callable[[jax.Array], Sequence[jax.Array]],
    num_looked_at: jax.Array | None = None,
) -> list[jax.Array]:
    """Count the members of every set that meet each of some conditions.

    Args:
      members: their keys, shape (length, ...sets).
      conditions: from the keys of one member of every set to masks.
      num_looked_at: the number of members to look at; all if not given.
    """
    length = len(members)
    dtype = jnp.uint8 if length < 256 else jnp.uint16

    def add(i: jax.Array, counts: list[jax.Array]) -> list[jax.Array]:
        masks = conditions(_member(members, i))
        pairs = zip(counts, masks, strict=True)
        return [count + mask.astype(dtype) for count, mask in pairs]

    num_conditions = len(jax.eval_shape(conditions, _member(members, 0)))
    start = [_zeros(members, dtype) for _ in range(num_conditions)]
    if num_looked_at is None:
        counts = jax.lax.fori_loop(0, length, add, start, unroll=_UNROLLED)
    else:
        counts = jax.lax.fori_loop(0, num_looked_at, add, start)
    return [count.astype(jnp.int32) for count in counts]


def _member(members: jax.Array, i: jax.Array | int) -> jax.Array:
    """Return the i-th member of every set."""
    return jax.lax.dynamic_index_in_dim(members, i, 0, keepdims=False)


def _zeros(members: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Return a zero for every set."""
    return pcast_like(jnp.zeros_like(_member(members, 0), dtype=dtype), [members])
