"""Where the channels that may be pruned lie in the leaves that an optimizer has."""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._allocation.prunable_leaves import (
    Prunable,
    PrunableLeaf,
    find_prunable,
    is_weight,
)
from swd_jax._arrays import tree_paths
from swd_jax._arrays.manual_sharding import laid_out_as
from swd_jax._coupling import array_types, path_prefix
from swd_jax._coupling.channel_groups import ChannelGroup
from swd_jax._ranking import channel_costs
from swd_jax.structures._coupled_channels import CoupledChannels, Score

Place: TypeAlias = tuple[int, int, array_types.Ints]
"""Leaf, axis, and the indices of each channel along it: (channels, positions)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """The channels of the groups that may be pruned, one group after the other."""

    groups: tuple[ChannelGroup, ...]
    score: Score
    least_kept: tuple[int, ...]
    """Of each group."""
    together: tuple[int, ...]
    """How many channels of each group go at once."""
    places: tuple[tuple[tuple[int, array_types.Ints], ...], ...]
    """Of each leaf: axes, and the channel at every index of it, or their number."""
    scored_members: tuple[tuple[Place, ...], ...]
    """Of each group."""
    counting: channel_costs.Counting
    dearest: int
    """No less than what channels that go at once take away when all others stay."""

    @property
    def size(self) -> int:
        """How many channels there are."""
        return sum(group.size for group in self.groups)

    @property
    def offsets(self) -> list[int]:
        """The first channel of each group, and the number of all."""
        return [0, *np.cumsum([group.size for group in self.groups]).tolist()]

    @property
    def group_of(self) -> np.ndarray:
        """The group of each channel: int32, shape (channels,)."""
        sizes = [group.size for group in self.groups]
        return np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)

    def of_channels(self, of_groups: Sequence[int]) -> np.ndarray:
        """Each channel's group's number: int32, shape (channels,)."""
        return np.array(of_groups, np.int32)[self.group_of]

    @property
    def sizes(self) -> np.ndarray:
        """The size of each channel's group: int32, shape (channels,)."""
        return self.of_channels([group.size for group in self.groups])

    @property
    def first(self) -> np.ndarray:
        """The first channel of each channel's group: int32, shape (channels,)."""
        return self.of_channels(self.offsets)

    @property
    def in_multiples(self) -> bool:
        """Whether some channels go together."""
        return any(n > 1 for n in self.together)

    @functools.cached_property
    def scored_leaves(self) -> list[int]:
        """The leaves by which channels are ranked."""
        return sorted({place[0] for group in self.scored_members for place in group})

    @functools.cached_property
    def most_removable(self) -> int:
        """What disappears when every group keeps as little as it may."""
        ranks = np.concatenate(
            [np.argsort(np.argsort(-group.parameters)) for group in self.groups]
        )
        least = self.of_channels(self.least_kept)
        stays = np.append(ranks >= self.sizes - least, True)
        gone = (~stays)[self.counting.channels].sum(axis=1)
        return self.counting.total - self.counting.known_left(gone)

    def leaf_mask(self, number: int, channels: jax.Array, leaf: jax.Array) -> jax.Array:
        """Which weights of a leaf belong to one of some channels.

        Args:
          number: of the leaf.
          channels: bools, shape (channels,).
          leaf: the leaf, for its shape and layout.
        """
        padded = jnp.concatenate([channels, jnp.zeros(1, bool)])
        mask = jnp.zeros((1,) * leaf.ndim, bool)
        for axis, channel_of in self.places[number]:
            along = padded[channel_of]
            shape = [1] * leaf.ndim
            shape[axis] = len(channel_of)
            mask |= along.reshape(shape)
        return laid_out_as(jnp.broadcast_to(mask, leaf.shape), leaf)


def find_leaves(
    structure: CoupledChannels, prunable: Prunable, tree: tree_paths.Flat, params: Any
) -> list[PrunableLeaf]:
    """The leaves that lose channels, in the tree's order. None of an empty tree.

    Raises:
      ValueError: if the parameters are not those of the groups, or none of the groups
        is prunable.
    """
    if not tree_paths.arrays(tree):
        return []
    prefix = path_prefix.prefix(structure.groups, tree)
    chosen = _chosen(structure, prunable, tree, params, prefix)
    wanted = _decayed(structure, chosen)
    found = [
        PrunableLeaf(position, path, leaf)
        for position, path, leaf in tree_paths.arrays(tree)
        if prefix + path in wanted and jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    there = {prefix + path for path in tree.paths}
    for path in wanted:
        own = path.removeprefix(prefix)
        if path not in there and not tree_paths.is_masked(own, tree):
            raise ValueError(
                f"params have no {path!r}, a part of the channels of "
                f"{wanted[path]!r}. Give all parameters that the groups have, or leave "
                "the group out with prunable=..."
            )
    return found


def layout(
    structure: CoupledChannels,
    prunable: Prunable,
    tree: tree_paths.Flat,
    params: Any,
    leaves: Sequence[PrunableLeaf],
) -> Layout:
    """Where the channels of the prunable groups lie in the leaves found."""
    prefix = path_prefix.prefix(structure.groups, tree)
    chosen = _chosen(structure, prunable, tree, params, prefix)
    return _layout(structure, chosen, tuple(prefix + leaf.path for leaf in leaves))


# One layout for all steps: what is compiled for it is found again.
@functools.lru_cache(maxsize=64)
def _layout(
    structure: CoupledChannels, chosen: tuple[int, ...], paths: tuple[str, ...]
) -> Layout:
    groups = tuple(structure.groups[number] for number in chosen)
    number_of = {path: number for number, path in enumerate(paths)}
    count = sum(group.size for group in groups)
    together = tuple(group.channels_in(structure.multiple_of) for group in groups)
    places: list[dict[int, array_types.Ints]] = [{} for _ in paths]
    scored_members: list[tuple[Place, ...]] = []
    first = 0
    for group in groups:
        scored: list[Place] = []
        for member in group.members:
            leaf = number_of.get(member.path)
            if leaf is None:
                continue
            if member.role in structure.scored_roles:
                scored.append((leaf, member.axis, member.indices))
            if member.role in structure.decayed_roles:
                length = structure.groups.shapes[member.path][member.axis]
                along = places[leaf].setdefault(member.axis, np.full(length, count))
                channels = first + np.arange(group.size)
                along[member.indices] = channels[:, None]
        if not scored:
            raise ValueError(
                f"params have nothing to rank the channels of {group.name!r} by: "
                f"score={structure.score!r} looks at the roles "
                f"{structure.scored_roles}. Leave the group out with prunable=..."
            )
        scored_members.append(tuple(scored))
        first += group.size
    return Layout(
        groups=groups,
        score=structure.score,
        least_kept=tuple(structure.least_kept(group) for group in groups),
        together=together,
        places=tuple(tuple(sorted(p.items(), key=lambda i: i[0])) for p in places),
        scored_members=tuple(scored_members),
        counting=channel_costs.counting(
            structure.groups, structure.costs, chosen, structure.total()
        ),
        dearest=max(
            # Fewer channels make each of the others cheaper.
            n * int(structure.channel_costs(group).max())
            for n, group in zip(together, groups, strict=True)
        ),
    )


def _chosen(
    structure: CoupledChannels,
    prunable: Prunable,
    tree: tree_paths.Flat,
    params: Any,
    prefix: str,
) -> tuple[int, ...]:
    """The numbers of the groups that are eligible and whose producers are prunable."""
    if prunable is is_weight:
        return structure.eligible
    matching = {
        prefix + leaf.path
        for leaf in find_prunable(_of_weights(prunable), tree, params)
    }
    chosen = tuple(
        number
        for number in structure.eligible
        if all(path in matching for path in _producers(structure.groups[number]))
    )
    if not chosen:
        names = [structure.groups[number].name for number in structure.eligible]
        raise ValueError(
            f"prunable={prunable!r} matches all producers of none of the groups, which "
            f"are:{tree_paths.listing(names)}"
        )
    return chosen


def _of_weights(prunable: Prunable) -> Prunable:
    """A pattern for paths, which says nothing about leaves that are no weights."""
    if not isinstance(prunable, str | re.Pattern):
        return prunable
    pattern = re.compile(prunable)

    def matches(path: str, leaf: Any) -> bool:
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return bool(floating) and pattern.search(path) is not None

    return matches


def _producers(group: ChannelGroup) -> list[str]:
    """The leaves that compute a group's channels."""
    found = [member.path for member in group.members if member.role == "producer"]
    return found or [member.path for member in group.members]


def _decayed(structure: CoupledChannels, chosen: Sequence[int]) -> dict[str, str]:
    """The paths of the leaves that lose channels, each with the name of a group."""
    return {
        member.path: structure.groups[number].name
        for number in reversed(chosen)
        for member in structure.groups[number].members
        if member.role in structure.decayed_roles
    }
