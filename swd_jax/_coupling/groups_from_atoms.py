"""Channel groups from the classes of united atoms."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from swd_jax._coupling import leaf_kinds, parameter_and_flop_counts, type_aliases
from swd_jax._coupling.channel_groups import (
    ChannelGroup,
    ChannelGroups,
    ChannelMember,
    FrozenAxis,
)
from swd_jax._coupling.coupling_analysis import OTHER, PRODUCER, CouplingAnalysis

_LeafAxis: TypeAlias = tuple[int, int]

_Positions: TypeAlias = Mapping[int, Mapping[_LeafAxis, list[int]]]
"""Positions of each class of atoms, by its root and by leaf and axis."""


def build_groups(
    analysis: CouplingAnalysis,
    entries: Sequence[tuple[int, str, Any]],
    params: Any,
) -> ChannelGroups:
    """Build channel groups from the classes of atoms that are not frozen.

    A class is a channel. Channels with equally many positions along the same axes of
    the same leaves form one channel group.

    Args:
      analysis: after the whole program.
      entries: position, path and array of each leaf.
      params: the tree of the leaves.

    Returns:
      The channel groups in the order of the program.
    """
    paths = [path for _, path, _ in entries]
    unused = {paths[leaf] for leaf in _freeze_unused_leaves(analysis, len(paths))}
    statistics = leaf_kinds.find_running_statistics(params, paths)
    outputs = leaf_kinds.find_kept_outputs(params, paths, unused)
    order = {leaf_axis: number for number, leaf_axis in enumerate(analysis.roles)}
    positions, frozen = _positions_by_class(analysis, entries)
    roots_by_axes: dict[Any, list[int]] = defaultdict(list)
    for root, by_axis in positions.items():
        axes = sorted(by_axis, key=order.__getitem__)
        roots_by_axes[
            tuple((order[axis], axis, len(by_axis[axis])) for axis in axes)
        ].append(root)
    names = _UniqueNames()
    named_members: list[tuple[str, tuple[ChannelMember, ...]]] = []
    channel_roots: list[type_aliases.AtomIds] = []
    for key in sorted(roots_by_axes):
        leaf_axes = [leaf_axis for _, leaf_axis, _ in key]
        roots = sorted(
            roots_by_axes[key], key=lambda root: positions[root][leaf_axes[0]]
        )
        members = tuple(
            ChannelMember(
                entries[leaf][1],
                axis,
                np.array([positions[root][leaf, axis] for root in roots]),
                "statistic"
                if entries[leaf][1] in statistics
                else analysis.roles[leaf, axis],
            )
            for leaf, axis in leaf_axes
        )
        named_members.append((names.add(_first_layer(members)), members))
        channel_roots.append(np.array(roots, np.int64))
    counter = parameter_and_flop_counts.ExtentCounter(analysis, channel_roots)
    parameter_costs = parameter_and_flop_counts.parameter_costs(
        analysis, counter, entries, statistics | outputs
    )
    flop_costs = parameter_and_flop_counts.flop_costs(analysis, counter)
    groups: list[ChannelGroup] = []
    for number, (name, members) in enumerate(named_members):
        size = len(channel_roots[number])
        groups.append(
            ChannelGroup(
                name,
                size,
                members,
                *[
                    parameter_and_flop_counts.removed_with_each(costs, number, size)
                    for costs in (parameter_costs, flop_costs)
                ],
            )
        )
    shapes = {path: tuple(array.shape) for _, path, array in entries}
    return ChannelGroups(tuple(groups), frozen, shapes, parameter_costs, flop_costs)


def _freeze_unused_leaves(analysis: CouplingAnalysis, num_leaves: int) -> set[int]:
    """Freeze the leaves that no operation uses; axes without a role get OTHER.

    Returns:
      The numbers of these leaves.
    """
    used = {leaf for leaf, _ in analysis.roles}
    for leaf, axis, ids in analysis.leaf_axis_atoms():
        analysis.roles.setdefault((leaf, axis), OTHER)
        if leaf not in used:
            analysis.atoms.freeze(ids, "the model does not use it")
    return set(range(num_leaves)) - used


def _positions_by_class(
    analysis: CouplingAnalysis, entries: Sequence[tuple[int, str, Any]]
) -> tuple[_Positions, tuple[FrozenAxis, ...]]:
    """Return the positions of each class of atoms, and of the frozen ones by reason."""
    positions: dict[int, dict[_LeafAxis, list[int]]] = defaultdict(
        lambda: defaultdict(list)
    )
    frozen: list[FrozenAxis] = []
    for leaf, axis, ids in analysis.leaf_axis_atoms():
        frozen_indices: dict[str, list[int]] = defaultdict(list)
        for index, root in enumerate(analysis.atoms.roots(ids).tolist()):
            reason = analysis.atoms.frozen_reason(root)
            if reason is None:
                positions[root][leaf, axis].append(index)
            else:
                frozen_indices[reason].append(index)
        for reason, indices in frozen_indices.items():
            frozen.append(FrozenAxis(entries[leaf][1], axis, np.array(indices), reason))
    return positions, tuple(frozen)


def _first_layer(members: Sequence[ChannelMember]) -> str:
    """Return the path of the layer that computes the channels first."""
    producers = [member for member in members if member.role == PRODUCER]
    path = (producers or members)[0].path
    return path.rpartition("/")[0] or path


class _UniqueNames:
    """Names for channel groups: the second one of a layer gets the suffix "#2"."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, name: str) -> str:
        self._counts[name] += 1
        count = self._counts[name]
        return name if count == 1 else f"{name}#{count}"
