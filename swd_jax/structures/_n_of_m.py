"""N of every m weights along an axis."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import sort_keys, tiling
from swd_jax._arrays.manual_sharding import laid_out_as
from swd_jax._arrays.xla_cpu import stored
from swd_jax.structures import _structure

# Up to so many weights that stand together, a network sorts them: one pass over memory,
# but a program that grows faster than they.
_SORTED = 32

# How many comparisons of a loop are compiled together.
_UNROLLED = 8


@dataclasses.dataclass(frozen=True)
class NM:
    """Of every m consecutive weights along an axis, the best n are never pruned.

    At the sparsity 1 - n/m exactly n of every m are left, as the sparse matrix units of
    GPUs want it: 2 of 4 along the axis that a product sums over. Below it, as while a
    scheduled target rises, it is the worst of the others that go.

    Args:
      n: how many of every m weights are kept, at least 1.
      m: how many weights stand together, more than n and at most 256.
      axis: along which they stand. By default the last but one, the inputs of a dense
        or convolution kernel in JAX.

    Where m does not divide the axis, the last few weights stand together, and up to n
    of them are kept. Among equal scores the last are kept.

    Raises:
      ValueError: if a number is out of range; when the target meets the parameters, if
        a leaf has no such axis.

    Examples:
      >>> import jax.numpy as jnp, swd_jax
      >>> target = swd_jax.Target(0.5, structure=swd_jax.NM(2, 4, axis=-1))
      >>> kernel = jnp.array([[1.0, 5, 3, 2, 9, 8, 7, 6]])
      >>> print(swd_jax.prune({"kernel": kernel}, target)["kernel"])
      [[0. 5. 3. 0. 9. 8. 0. 0.]]

    Source: Mishra et al., "Accelerating sparse deep neural networks"
    (arXiv 2104.08378), section 3.
    """

    n: int
    m: int
    axis: int = -2

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"{name} of NM must be a whole number, got {value!r}")
        if not 1 <= self.n < self.m <= 256:
            raise ValueError(
                f"NM(n, m) needs 1 <= n < m <= 256, got n={self.n}, m={self.m}"
            )

    def scores(self, scores: jax.Array) -> jax.Array:
        """The scores, infinity for those weights that are never pruned."""
        protected = self.protected(scores, scores, sort_keys.to_key)
        return jnp.where(protected, jnp.inf, scores)

    def protected(
        self, leaf: jax.Array, arrays: Any, key: Callable[[Any], jax.Array]
    ) -> jax.Array:
        """Which weights of a leaf are never pruned: bools in its shape.

        Args:
          leaf: the weights, or anything in their shape and layout.
          arrays: any tree of such.
          key: elementwise, from the arrays to integers of at least 0 in the order of
            the scores.
        """
        axis = self.axis % leaf.ndim
        length = min(self.m, leaf.shape[axis])
        if length <= self.n:
            return laid_out_as(jnp.ones(leaf.shape, bool), leaf)
        if length > _SORTED:
            # Beyond the far edge stands what is worse than any.
            keys = tiling.split(key(arrays), self._lengths(leaf.shape), fill=-1)
            return tiling.joined(_best(self.n, keys, 2 * axis + 1), leaf)

        def found(arrays: Any) -> tuple[jax.Array, jax.Array]:
            return _worst_kept(self.n, self._members(leaf, arrays, key))

        # Else a group would be sorted anew for each of its weights.
        worst, place = stored(found, arrays)

        def of_each(found: jax.Array) -> jax.Array:
            """Each weight's group's entry."""
            groups = jnp.expand_dims(found, 2 * axis + 1)
            shape = list(groups.shape)
            shape[2 * axis + 1] = length
            return tiling.joined(jnp.broadcast_to(groups, shape), leaf)

        # In the shape of the leaf: what is read in another order is not updated in
        # place.
        keys, worst, first = key(arrays), of_each(worst), of_each(place)
        at = jax.lax.broadcasted_iota(jnp.int32, leaf.shape, axis) % length
        return (keys > worst) | ((keys == worst) & (at >= first))

    def _members(
        self, leaf: jax.Array, arrays: Any, key: Callable[[Any], jax.Array]
    ) -> list[jax.Array]:
        """The keys of each first, second, ... weight of those that stand together.

        From parts of the arrays: parts of keys would be stored.
        """
        axis = self.axis % leaf.ndim
        lengths = self._lengths(leaf.shape)
        split = jax.tree.map(lambda array: tiling.split(array, lengths), arrays)
        length = min(self.m, leaf.shape[axis])
        left_over = leaf.shape[axis] % length or length
        members = []
        for i in range(length):
            take = functools.partial(
                jax.lax.index_in_dim, index=i, axis=2 * axis + 1, keepdims=False
            )
            keys = key(jax.tree.map(take, split))
            if i >= left_over:  # beyond the far edge of the last group
                group = jax.lax.broadcasted_iota(jnp.int32, keys.shape, 2 * axis)
                is_last = group == keys.shape[2 * axis] - 1
                keys = jnp.where(is_last, -1, keys)
            members.append(keys)
        return members

    def sizes(self, shape: tuple[int, ...]) -> int:
        """One weight each."""
        _structure.normalized_axes([self.axis], shape)
        return 1

    def expand(self, groups: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The groups themselves."""
        del shape
        return groups

    def fits_part(self, shape: tuple[int, ...]) -> bool:
        """Whether all of the m weights are in the same part of a leaf."""
        return shape[self.axis % len(shape)] % self.m == 0

    def fits_mesh(self, shape: tuple[int, ...], parts: tuple[int, ...]) -> bool:
        """The same of a whole leaf that has parts along its axes."""
        axis = self.axis % len(shape)
        return parts[axis] == 1 or shape[axis] % (self.m * parts[axis]) == 0

    def _lengths(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        axis = self.axis % len(shape)
        return tuple(self.m if i == axis else 1 for i in range(len(shape)))

    @property
    def greatest_sparsity(self) -> tuple[int, int]:
        """The largest fraction that can be pruned, as numerator and denominator."""
        return self.m - self.n, self.m


def _worst_kept(
    count: int, members: Sequence[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """The least of the best, and from which place on its equals are among them.

    Args:
      count: how many are the best, fewer than there are.
      members: integers, the first of each group, the second, and so on.

    Returns:
      Of each group, in the shape of a member.
    """
    limit = _sorted(members)[len(members) - count]
    return limit, _first_kept(count, members, limit)


def _sorted(members: Sequence[jax.Array]) -> list[jax.Array]:
    """The members in ascending order, element by element.

    Source: Batcher's odd-even merge sort, "Sorting networks and their applications"
    (1968).
    """
    ordered = list(members)
    for i, j in _network(len(members)):
        pair = ordered[i], ordered[j]
        ordered[i], ordered[j] = jnp.minimum(*pair), jnp.maximum(*pair)
    return ordered


@functools.cache
def _network(length: int) -> list[tuple[int, int]]:
    """The pairs of places to compare and exchange, in their order."""
    pairs = []
    run = 1
    while run < length:  # runs of this length are sorted, and merged two by two
        apart = run
        while apart:
            for start in range(apart % run, length - apart, 2 * apart):
                for i in range(start, min(start + apart, length - apart)):
                    if i // (2 * run) == (i + apart) // (2 * run):
                        pairs.append((i, i + apart))
            apart //= 2
        run *= 2
    return pairs


def _first_kept(
    count: int, members: Sequence[jax.Array], limit: jax.Array
) -> jax.Array:
    """From which place on those that equal the limit are among the best."""
    greater = [(member > limit).astype(jnp.uint8) for member in members]
    left = np.uint8(count) - sum(greater[1:], greater[0])
    place, found = jnp.zeros_like(left), jnp.zeros_like(left)
    for i in reversed(range(len(members))):
        equal = members[i] == limit
        found = found + equal.astype(jnp.uint8)
        place = jnp.where(equal & (found <= left), np.uint8(i), place)
    return place


def _best(count: int, keys: jax.Array, axis: int) -> jax.Array:
    """Which keys are the best along an axis, of equal ones the last.

    Each is compared with all others, in a loop.
    """
    place = jax.lax.broadcasted_iota(jnp.int32, keys.shape, axis)

    def compare(i: jax.Array, better: jax.Array) -> jax.Array:
        other = jax.lax.dynamic_index_in_dim(keys, i, axis)
        wins = jnp.where(i > place, other >= keys, other > keys)
        return better + wins.astype(jnp.uint8)

    zeros = jnp.zeros_like(keys, dtype=jnp.uint8)
    length = keys.shape[axis]
    found = jax.lax.fori_loop(0, length, compare, zeros, unroll=_UNROLLED)
    return found < count
