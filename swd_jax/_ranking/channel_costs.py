"""How much is left of a model without some of its channels: exact, also under jit."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import uint64
from swd_jax._arrays.manual_sharding import vary_as
from swd_jax._coupling import array_types
from swd_jax._coupling.channel_groups import ChannelGroups, Cost, Extent


@dataclasses.dataclass(frozen=True, eq=False)
class Counting:
    """The costs of a model as arrays.

    A cost is a number times the product of the lengths of some axes. A length is what
    is fixed of it and so many positions for each channel. Channels of a group that are
    alike in all of that are of one *kind*: only their numbers matter.
    """

    channels: array_types.Ints
    """Of each kind, padded with the number of all channels: shape (kinds, most)."""
    sizes: np.ndarray
    """Channels of each kind, uint32, shape (kinds,)."""
    fixed: np.ndarray
    """uint32, shape (lengths,); the last is 1."""
    positions: np.ndarray
    """What a channel of each kind adds, uint32, shape (lengths, kinds)."""
    factors: array_types.Ints
    """Which lengths each cost multiplies, padded with the last: (costs, most)."""
    times: np.ndarray
    """By which number: wide, shape (costs, 4)."""
    total: int
    """What the whole model costs."""

    def left(self, gone: jax.Array) -> jax.Array:
        """What the model costs without so many of each kind: wide, shape (4,)."""
        kept = self.sizes - gone
        lengths = (
            jnp.sum(self.positions * kept[None], axis=1, dtype=jnp.uint32) + self.fixed
        )
        product = jnp.asarray(self.times)
        for column in self.factors.T:
            product = uint64.multiply_each(product, lengths[column])
        return uint64.sum_last_but_one(product)

    def known_left(self, gone: array_types.Ints) -> int:
        """The same as a Python integer, where it is known how many go."""
        kept = self.sizes.astype(object) - gone
        lengths = (self.positions.astype(object) * kept).sum(axis=1) + self.fixed
        pairs = zip(self.times, self.factors, strict=True)
        return sum(
            uint64.to_int(times) * math.prod(lengths[row]) for times, row in pairs
        )

    def lost(self, ranks: jax.Array, count: jax.Array) -> jax.Array:
        """What the model loses with the first channels: a wide number, shape (4,).

        Args:
          ranks: the place of each channel in the order in which they go, int32, shape
            (channels,).
          count: how many go, int32.
        """
        padded = jnp.concatenate([ranks, jnp.full(1, len(ranks), ranks.dtype)])
        gone = jnp.sum(padded[self.channels] < count, axis=1, dtype=jnp.uint32)
        total = jnp.asarray(uint64.from_int(self.total))
        return uint64.subtract(total, self.left(gone))

    def longest_cut(
        self, ranks: jax.Array, removable: jax.Array, budget: jax.Array
    ) -> jax.Array:
        """How many of the first channels cost no more than the budget.

        Args:
          ranks: as for `lost`.
          removable: how many may go, int32.
          budget: a wide number, shape (4,), at most the total.
        """

        def halved(
            _: jax.Array, bracket: tuple[jax.Array, jax.Array]
        ) -> tuple[jax.Array, jax.Array]:
            low, high = bracket
            middle = (low + high) // 2
            fits = ~uint64.less(budget, self.lost(ranks, middle))
            return jnp.where(fits, middle, low), jnp.where(fits, high, middle)

        start = jnp.zeros_like(removable), removable + 1
        start = vary_as(start, [ranks, removable, budget])
        rounds = (len(ranks) + 1).bit_length()
        count, _ = jax.lax.fori_loop(0, rounds, halved, start)
        return count


def counting(
    groups: ChannelGroups, costs: Sequence[Cost], chosen: Sequence[int], total: int
) -> Counting:
    """The costs with the channels of the chosen groups, one group after the other."""
    extents: dict[Any, Extent] = {}
    numbers: dict[Any, int] = {}
    merged: dict[tuple[int, ...], int] = {}
    for cost in costs:
        moving, times = [], cost.times
        for extent in cost.extents:
            if any(group in chosen for group, _ in extent.of_groups):
                same = (
                    extent.fixed,
                    *((g, positions.tobytes()) for g, positions in extent.of_groups),
                )
                extents.setdefault(same, extent)
                moving.append(numbers.setdefault(same, len(numbers)))
            else:
                times *= extent.full
        row = tuple(sorted(moving))
        merged[row] = merged.get(row, 0) + times
    rows = list(merged)
    kinds, columns = _kinds(groups, list(extents.values()), chosen)
    count = sum(groups[number].size for number in chosen)
    channels = np.full((len(kinds), max(map(len, kinds))), count)
    for kind, members in enumerate(kinds):
        channels[kind, : len(members)] = members
    factors = np.full((len(rows), max(map(len, rows), default=0)), len(extents))
    for number, row in enumerate(rows):
        factors[number, : len(row)] = row
    fixed = [
        extent.fixed + sum(int(n.sum()) for g, n in extent.of_groups if g not in chosen)
        for extent in extents.values()
    ]
    none = np.zeros((1, len(kinds)), np.uint32)
    return Counting(
        channels=channels,
        sizes=np.array([len(members) for members in kinds], np.uint32),
        fixed=np.array([*fixed, 1], np.uint32),
        positions=np.concatenate([columns.astype(np.uint32), none]),
        factors=factors,
        times=np.stack([uint64.from_int(times) for times in merged.values()]),
        total=total,
    )


def _kinds(
    groups: ChannelGroups, extents: Sequence[Extent], chosen: Sequence[int]
) -> tuple[list[array_types.Ints], array_types.Ints]:
    """Channels that are alike: their numbers, and their positions along each axis."""
    kinds: list[array_types.Ints] = []
    columns: list[array_types.Ints] = []
    first = 0
    for number in chosen:
        size = groups[number].size
        along = np.zeros((len(extents), size), np.int64)
        for row, extent in enumerate(extents):
            for group, positions in extent.of_groups:
                if group == number:
                    along[row] += positions
        different, kind_of = np.unique(along, axis=1, return_inverse=True)
        for kind in range(different.shape[1]):
            members = np.flatnonzero(kind_of.ravel() == kind)
            kinds.append(first + members)
            columns.append(different[:, kind])
        first += size
    return kinds, np.stack(columns, axis=1)
