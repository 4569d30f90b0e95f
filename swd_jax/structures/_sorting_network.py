"""The n-th largest of m arrays, element by element, by a sorting network."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def nth_largest(n: int, members: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Return the n-th largest of the members, and the first of its equals to keep.

    Args:
      n: less than the number of members.
      members: integer arrays of one shape: the first member of each set, the second,
        and so on.

    Returns:
      The n-th largest member of each set, and the position from which members that
      equal it are among the n largest, where of equal members the last ones count as
      larger. Both in the shape of a member; the position is uint8.
    """
    limit = _sort(members)[len(members) - n]
    return limit, _first_kept_tie(n, members, limit)


def _sort(members: Sequence[jax.Array]) -> list[jax.Array]:
    """Return the members in ascending order, element by element.

    Source: Batcher's odd-even merge sort, "Sorting networks and their applications"
    (1968).
    """
    ordered = list(members)
    for i, j in _comparators(len(members)):
        pair = ordered[i], ordered[j]
        ordered[i], ordered[j] = jnp.minimum(*pair), jnp.maximum(*pair)
    return ordered


@functools.cache
def _comparators(length: int) -> list[tuple[int, int]]:
    """Return the pairs of positions to compare and exchange, in their order."""
    pairs = []
    run = 1
    while run < length:  # runs of this length are sorted, and merged two by two
        distance = run
        while distance:
            for start in range(distance % run, length - distance, 2 * distance):
                for i in range(start, min(start + distance, length - distance)):
                    if i // (2 * run) == (i + distance) // (2 * run):
                        pairs.append((i, i + distance))
            distance //= 2
        run *= 2
    return pairs


def _first_kept_tie(
    n: int, members: Sequence[jax.Array], limit: jax.Array
) -> jax.Array:
    """Return the position from which members that equal the limit are kept."""
    greater = [(member > limit).astype(jnp.uint8) for member in members]
    num_ties_kept = np.uint8(n) - sum(greater[1:], greater[0])
    position = jnp.zeros_like(num_ties_kept)
    num_ties_seen = jnp.zeros_like(num_ties_kept)
    for i in reversed(range(len(members))):
        is_tie = members[i] == limit
        num_ties_seen = num_ties_seen + is_tie.astype(jnp.uint8)
        is_kept = is_tie & (num_ties_seen <= num_ties_kept)
        position = jnp.where(is_kept, np.uint8(i), position)
    return position
