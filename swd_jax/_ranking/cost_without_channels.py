"""`CostModel`: what a model costs without some of its channels, exactly, under jit too.

The cost of a model is a number of parameters or of operations. It is a sum of products
of axis lengths (`ChannelGroups.parameter_costs`, `ChannelGroups.flop_costs`), and an
axis is as long as its fixed positions and those of its channels.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import uint64
from swd_jax._arrays.manual_sharding import pcast_like
from swd_jax._coupling import type_aliases
from swd_jax._coupling.channel_groups import ChannelGroups, Extent


@dataclasses.dataclass(frozen=True, eq=False)
class CostModel:
    """The cost of a model as arrays.

    Channels of one channel group that have the same positions along all axes are of one
    *kind*. The cost depends on the number of channels of each kind only.
    """

    channels: type_aliases.Ints
    """The channels of each kind, padded with the number of all channels: shape
    (kinds, largest kind)."""
    sizes: np.ndarray
    """The number of channels of each kind: uint32, shape (kinds,)."""
    fixed: np.ndarray
    """The positions of each length that are always kept: uint32, shape (lengths,). The
    last length is 1."""
    positions: np.ndarray
    """The positions that a channel of each kind adds to each length: uint32, shape
    (lengths, kinds)."""
    factors: type_aliases.Ints
    """The lengths that each product multiplies, padded with the last length: shape
    (products, most factors)."""
    times: np.ndarray
    """The constant factor of each product: emulated uint64, shape (products, 4)."""
    total: int
    """The cost of the whole model."""

    def remaining(self, num_removed: jax.Array) -> jax.Array:
        """Return the cost without so many channels of each kind: uint64, shape (4,)."""
        num_kept = self.sizes - num_removed
        positions = self.positions * num_kept[None]
        lengths = jnp.sum(positions, axis=1, dtype=jnp.uint32) + self.fixed
        product = jnp.asarray(self.times)
        for column in self.factors.T:
            product = uint64.multiply_uint32(product, lengths[column])
        return uint64.sum_short_axis(product)

    def remaining_int(self, num_removed: type_aliases.Ints) -> int:
        """Return the cost as a Python integer, for numbers that are not traced."""
        num_kept = self.sizes.astype(object) - num_removed
        lengths = (self.positions.astype(object) * num_kept).sum(axis=1) + self.fixed
        pairs = zip(self.times, self.factors, strict=True)
        return sum(
            uint64.to_int(times) * math.prod(lengths[row]) for times, row in pairs
        )

    def removed(self, ranks: jax.Array, count: jax.Array) -> jax.Array:
        """Return the cost that the first channels save: emulated uint64, shape (4,).

        Args:
          ranks: each channel's rank in the order of removal, int32, shape (channels,).
          count: the number of channels to remove, int32.
        """
        padded = jnp.concatenate([ranks, jnp.full(1, len(ranks), ranks.dtype)])
        is_removed = padded[self.channels] < count
        num_removed = jnp.sum(is_removed, axis=1, dtype=jnp.uint32)
        total = jnp.asarray(uint64.from_int(self.total))
        return uint64.subtract(total, self.remaining(num_removed))

    def max_removable(
        self, ranks: jax.Array, removable: jax.Array, budget: jax.Array
    ) -> jax.Array:
        """Return how many of the first channels save no more than the budget.

        Args:
          ranks: each channel's rank in the order of removal, int32, shape (channels,).
          removable: the number of channels that may be removed, int32.
          budget: emulated uint64, shape (4,), at most the total.
        """

        def bisect(
            _: jax.Array, bracket: tuple[jax.Array, jax.Array]
        ) -> tuple[jax.Array, jax.Array]:
            low, high = bracket
            middle = (low + high) // 2
            fits = ~uint64.less(budget, self.removed(ranks, middle))
            return jnp.where(fits, middle, low), jnp.where(fits, high, middle)

        bracket = jnp.zeros_like(removable), removable + 1
        bracket = pcast_like(bracket, [ranks, removable, budget])
        num_rounds = (len(ranks) + 1).bit_length()
        count, _ = jax.lax.fori_loop(0, num_rounds, bisect, bracket)
        return count


def cost_model(
    groups: ChannelGroups,
    count: Literal["parameters", "flops"],
    chosen: Sequence[int],
) -> CostModel:
    """Return the cost of a model as a function of the channels of some groups.

    Args:
      groups: all channel groups of the model.
      count: the quantity to count.
      chosen: the numbers of the channel groups that may be pruned. Their channels are
        numbered consecutively, one channel group after the other.
    """
    if count == "parameters":
        costs, total = groups.parameter_costs, groups.parameters()
    else:
        costs, total = groups.flop_costs, groups.flops()
    extents: dict[Any, Extent] = {}
    number_of_extent: dict[Any, int] = {}
    products: dict[tuple[int, ...], int] = {}
    for cost in costs:
        factors, times = [], cost.times
        for extent in cost.extents:
            if not any(group in chosen for group, _ in extent.channel_positions):
                times *= extent.size
                continue
            identity = (
                extent.fixed,
                *(
                    (group, array.tobytes())
                    for group, array in extent.channel_positions
                ),
            )
            extents.setdefault(identity, extent)
            number = number_of_extent.setdefault(identity, len(number_of_extent))
            factors.append(number)
        product = tuple(sorted(factors))
        products[product] = products.get(product, 0) + times
    kinds, positions = _kinds(groups, list(extents.values()), chosen)
    num_channels = sum(groups[number].size for number in chosen)
    channels = np.full((len(kinds), max(map(len, kinds))), num_channels)
    for kind, members in enumerate(kinds):
        channels[kind, : len(members)] = members
    most_factors = max(map(len, products), default=0)
    factors = np.full((len(products), most_factors), len(extents))
    for number, product in enumerate(products):
        factors[number, : len(product)] = product
    fixed = [
        extent.fixed
        + sum(
            int(n.sum()) for group, n in extent.channel_positions if group not in chosen
        )
        for extent in extents.values()
    ]
    no_positions = np.zeros((1, len(kinds)), np.uint32)
    return CostModel(
        channels=channels,
        sizes=np.array([len(members) for members in kinds], np.uint32),
        fixed=np.array([*fixed, 1], np.uint32),
        positions=np.concatenate([positions.astype(np.uint32), no_positions]),
        factors=factors,
        times=np.stack([uint64.from_int(times) for times in products.values()]),
        total=total,
    )


def _kinds(
    groups: ChannelGroups, extents: Sequence[Extent], chosen: Sequence[int]
) -> tuple[list[type_aliases.Ints], type_aliases.Ints]:
    """Return the channels of each kind, and their positions along each extent."""
    kinds: list[type_aliases.Ints] = []
    positions_of_kind: list[type_aliases.Ints] = []
    first_channel = 0
    for number in chosen:
        size = groups[number].size
        positions = np.zeros((len(extents), size), np.int64)
        for row, extent in enumerate(extents):
            for group, positions_of_channel in extent.channel_positions:
                if group == number:
                    positions[row] += positions_of_channel
        distinct, kind_of_channel = np.unique(positions, axis=1, return_inverse=True)
        for kind in range(distinct.shape[1]):
            members = np.flatnonzero(kind_of_channel.ravel() == kind)
            kinds.append(first_channel + members)
            positions_of_kind.append(distinct[:, kind])
        first_channel += size
    return kinds, np.stack(positions_of_kind, axis=1)
