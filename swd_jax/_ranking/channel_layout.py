"""`ChannelLayout`: where the channels of channel groups lie in an optimizer's tree.

All channels of the chosen channel groups are numbered consecutively, one channel group
after the other. Arrays of shape (channels,) are in this order.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays.axis_norms import Norm
from swd_jax._arrays.explicit_sharding import reshard_like
from swd_jax._coupling import type_aliases
from swd_jax._coupling.channel_groups import ChannelGroup, ChannelGroups
from swd_jax._ranking import cost_without_channels

Count: TypeAlias = Literal["parameters", "flops"]
ChannelNorm: TypeAlias = Norm | Literal["bn_scale"]

Place: TypeAlias = tuple[int, int, type_aliases.Ints]
"""Leaf, axis, and the positions of each channel along it: (channels, positions)."""


class ChannelOptions(Protocol):
    """The options of `CoupledChannels` that a layout depends on. Hashable."""

    @property
    def groups(self) -> ChannelGroups:
        """The channel groups of the model."""
        ...

    @property
    def norm(self) -> ChannelNorm:
        """The norm that scores a channel."""
        ...

    @property
    def count(self) -> Count:
        """The quantity that the sparsity is a fraction of."""
        ...

    @property
    def multiple_of(self) -> int:
        """The number that divides the lengths of pruned axes."""
        ...

    @property
    def scored_roles(self) -> tuple[str, ...]:
        """The roles of the members that a channel is scored by."""
        ...

    @property
    def decayed_roles(self) -> tuple[str, ...]:
        """The roles of the members that are penalised and pruned."""
        ...

    def min_channels_of(self, group: ChannelGroup) -> int:
        """Return the number of channels that a channel group keeps at least."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelLayout:
    """The channels that may be pruned, one channel group after the other."""

    all_groups: ChannelGroups
    """All channel groups of the model, pruned or not."""
    groups: tuple[ChannelGroup, ...]
    """The channel groups that may be pruned."""
    norm: ChannelNorm
    count: Count
    min_channels: tuple[int, ...]
    """The number of channels that each channel group keeps at least."""
    bundle_sizes: tuple[int, ...]
    """The number of channels of each channel group that are removed at once."""
    places: tuple[tuple[tuple[int, type_aliases.Ints], ...], ...]
    """For each leaf (axis, channel at each position) pairs. `num_channels` marks
    positions without a channel."""
    scored_members: tuple[tuple[Place, ...], ...]
    """For each channel group the members that its channels are scored by."""
    cost_model: cost_without_channels.CostModel
    max_bundle_cost: int
    """An upper bound on the cost that the removal of one bundle saves."""

    @property
    def num_channels(self) -> int:
        """The number of channels of all groups that may be pruned."""
        return sum(group.size for group in self.groups)

    @property
    def offsets(self) -> list[int]:
        """The first channel of each channel group, and the number of all channels."""
        return [0, *np.cumsum([group.size for group in self.groups]).tolist()]

    def slices(self) -> list[tuple[ChannelGroup, slice]]:
        """Return each channel group with the slice of its channels."""
        ends = self.offsets
        return [
            (group, slice(start, start + group.size))
            for group, start in zip(self.groups, ends[:-1], strict=True)
        ]

    @property
    def group_of_channel(self) -> np.ndarray:
        """The channel group of each channel: int32, shape (channels,)."""
        sizes = [group.size for group in self.groups]
        return np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)

    def repeat_per_channel(self, values: Sequence[int]) -> np.ndarray:
        """Return the value of each channel's group: int32, shape (channels,)."""
        return np.array(values, np.int32)[self.group_of_channel]

    @property
    def group_sizes(self) -> np.ndarray:
        """The size of each channel's group: int32, shape (channels,)."""
        return self.repeat_per_channel([group.size for group in self.groups])

    @property
    def first_channels(self) -> np.ndarray:
        """The first channel of each channel's group: int32, shape (channels,)."""
        return self.repeat_per_channel(self.offsets)

    @property
    def has_bundles(self) -> bool:
        """Whether some channels are removed several at once."""
        return any(size > 1 for size in self.bundle_sizes)

    @functools.cached_property
    def scored_leaves(self) -> list[int]:
        """The leaves by which channels are scored."""
        return sorted({place[0] for places in self.scored_members for place in places})

    @functools.cached_property
    def max_removable(self) -> int:
        """The cost saved when every channel group keeps as little as it may."""
        ranks = np.concatenate(
            [np.argsort(np.argsort(-group.parameters)) for group in self.groups]
        )
        min_channels = self.repeat_per_channel(self.min_channels)
        is_kept = np.append(ranks >= self.group_sizes - min_channels, True)
        num_removed = (~is_kept)[self.cost_model.channels].sum(axis=1)
        return self.cost_model.total - self.cost_model.remaining_int(num_removed)

    def leaf_mask(self, leaf: int, channels: jax.Array, array: jax.Array) -> jax.Array:
        """Return the weights of a leaf that belong to at least one of some channels.

        Args:
          leaf: the leaf's position.
          channels: bools, shape (channels,).
          array: the leaf, for its shape and sharding.
        """
        padded = jnp.concatenate([channels, jnp.zeros(1, bool)])
        mask = jnp.zeros((1,) * array.ndim, bool)
        for axis, channel_at in self.places[leaf]:
            shape = [1] * array.ndim
            shape[axis] = len(channel_at)
            mask |= padded[channel_at].reshape(shape)
        return reshard_like(jnp.broadcast_to(mask, array.shape), array)

    def min_over_channels(
        self, leaf: int, values: jax.Array, array: jax.Array
    ) -> jax.Array:
        """Return for each weight the least value of the channels that it belongs to.

        Args:
          leaf: the leaf's position.
          values: floats, shape (channels,).
          array: the leaf, for its shape and sharding.

        Returns:
          An array in the leaf's shape, infinity for weights of no channel.
        """
        padded = jnp.concatenate([values, jnp.full(1, jnp.inf, values.dtype)])
        least = jnp.full((1,) * array.ndim, jnp.inf, values.dtype)
        for axis, channel_at in self.places[leaf]:
            shape = [1] * array.ndim
            shape[axis] = len(channel_at)
            least = jnp.minimum(least, padded[channel_at].reshape(shape))
        return reshard_like(jnp.broadcast_to(least, array.shape), array)


# Cached, so that every step has the same layout, for which `jax.jit` finds the program
# that it has compiled.
@functools.lru_cache(maxsize=64)
def build_layout(
    options: ChannelOptions, chosen: tuple[int, ...], paths: tuple[str, ...]
) -> ChannelLayout:
    """Return where the channels of some channel groups lie in some leaves.

    Args:
      options: the structure's options.
      chosen: the numbers of the channel groups that may be pruned.
      paths: the paths of the leaves, as the channel groups have them.

    Raises:
      ValueError: if no leaf scores the channels of a channel group.
    """
    groups = tuple(options.groups[number] for number in chosen)
    leaf_of_path = {path: leaf for leaf, path in enumerate(paths)}
    num_channels = sum(group.size for group in groups)
    bundle_sizes = tuple(group.bundle_size(options.multiple_of) for group in groups)
    places: list[dict[int, type_aliases.Ints]] = [{} for _ in paths]
    scored_members: list[tuple[Place, ...]] = []
    first_channel = 0
    for group in groups:
        scored: list[Place] = []
        for member in group.members:
            leaf = leaf_of_path.get(member.path)
            if leaf is None:
                continue
            if member.role in options.scored_roles:
                scored.append((leaf, member.axis, member.indices))
            if member.role in options.decayed_roles:
                length = options.groups.shapes[member.path][member.axis]
                channel_at = places[leaf].setdefault(
                    member.axis, np.full(length, num_channels)
                )
                channels = first_channel + np.arange(group.size)
                channel_at[member.indices] = channels[:, None]
        if not scored:
            raise ValueError(
                f"params have nothing to rank the channels of {group.name!r} by: "
                f"norm={options.norm!r} reads the roles {options.scored_roles}. Leave "
                "the channel group out with prunable=..."
            )
        scored_members.append(tuple(scored))
        first_channel += group.size
    return ChannelLayout(
        all_groups=options.groups,
        groups=groups,
        norm=options.norm,
        count=options.count,
        min_channels=tuple(map(options.min_channels_of, groups)),
        bundle_sizes=bundle_sizes,
        places=tuple(
            tuple(sorted(axes.items(), key=lambda item: item[0])) for axes in places
        ),
        scored_members=tuple(scored_members),
        cost_model=cost_without_channels.cost_model(
            options.groups, options.count, chosen
        ),
        max_bundle_cost=max(
            # A bundle costs less once others are removed, so this is an upper bound.
            size * int(_costs_of_channels(group, options.count).max())
            for size, group in zip(bundle_sizes, groups, strict=True)
        ),
    )


def _costs_of_channels(group: ChannelGroup, count: Count) -> Any:
    """Return the cost that each channel's removal saves while all others are kept."""
    return group.parameters if count == "parameters" else group.flops
