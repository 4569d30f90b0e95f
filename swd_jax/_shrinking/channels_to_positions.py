"""From kept channels to the kept positions along every axis of every array."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from swd_jax._arguments.short_text import shown
from swd_jax._arrays import tree_paths
from swd_jax._coupling import type_aliases
from swd_jax._coupling.channel_groups import ChannelGroups

KeptPositions: TypeAlias = Mapping[int, type_aliases.Bools]
"""By axis of an array: bools, shape (length of the axis,), True = kept."""


def kept_positions(
    groups: ChannelGroups, vectors: Sequence[type_aliases.Bools]
) -> dict[str, KeptPositions]:
    """The kept positions of every array that has channels, by path.

    Args:
      groups: the channel groups.
      vectors: one vector per channel group, shape (channels,), True = kept.
    """
    positions: dict[str, dict[int, type_aliases.Bools]] = {}
    for group, vector in zip(groups, vectors, strict=True):
        for member in group.members:
            length = groups.shapes[member.path][member.axis]
            axes = positions.setdefault(member.path, {})
            along = axes.setdefault(member.axis, np.ones(length, np.bool_))
            along[member.indices[~vector].ravel()] = False
    return dict(positions)


def check_not_emptied(
    groups: ChannelGroups, vectors: Sequence[type_aliases.Bools]
) -> None:
    """Raise if an axis keeps no position."""
    for path, axes in kept_positions(groups, vectors).items():
        for axis, along in axes.items():
            if not along.any():
                names = [
                    group.name
                    for group in groups
                    if any((m.path, m.axis) == (path, axis) for m in group.members)
                ]
                raise ValueError(
                    f"kept leaves nothing of {path!r} along axis {axis}: it removes "
                    f"all channels of {' and '.join(map(repr, names))}. Keep at least "
                    "one, or take the layer out of the model."
                )


def check_groups(groups: Any) -> None:
    """Raise if a value is not what `channel_groups` returns."""
    if not isinstance(groups, ChannelGroups):
        raise ValueError(
            f"groups must be what channel_groups(...) returns, got {shown(groups)}"
        )


def check_shapes(groups: ChannelGroups, flat: tree_paths.FlatTree, name: str) -> None:
    """Raise if the groups were found in a tree of other paths or shapes."""
    check_groups(groups)
    arrays = tree_paths.arrays_by_path(name, flat)
    shapes = {path: tuple(leaf.shape) for path, leaf in arrays.items()}
    paths = [path for path in shapes if shapes[path] != groups.shapes.get(path)]
    paths += [path for path in groups.shapes if path not in shapes]
    if paths:
        path = paths[0]
        raise ValueError(
            f"groups do not fit {name}: at {path!r} it has "
            f"{shapes.get(path, 'nothing')}, and the groups were found where there was "
            f"{groups.shapes.get(path, 'nothing')}. Find the groups of this model with "
            "channel_groups."
        )
