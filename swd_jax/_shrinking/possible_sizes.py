"""New values that a size kept in a module may have, from what is cut around it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from swd_jax._arrays import tree_paths
from swd_jax._coupling import type_aliases
from swd_jax._coupling.channel_groups import ChannelGroups
from swd_jax._shrinking.frameworks.shapes_before_and_after import BeforeAndAfter


class CutLength(NamedTuple):
    """A number that the cut makes smaller: of positions along an axis, or channels."""

    path: str
    """The array."""
    is_read: bool
    """Whether the array reads these channels, as a consumer. Others compute them."""
    before: int
    after: int


def cut_lengths(
    shapes: Mapping[str, BeforeAndAfter],
    groups: ChannelGroups,
    vectors: Sequence[type_aliases.Bools],
) -> list[CutLength]:
    """All numbers that the cut makes smaller, those of axes first.

    Args:
      shapes: the shapes of the arrays before and after the cut, by path.
      groups: the channel groups.
      vectors: the kept channels of each.
    """
    consumers = {
        (member.path, member.axis)
        for group in groups
        for member in group.members
        if member.role == "consumer"
    }
    axes = [
        CutLength(path, (path, axis) in consumers, *lengths)
        for path, pair in shapes.items()
        for axis, lengths in enumerate(zip(*pair, strict=True))
        if lengths[0] != lengths[1]
    ]
    # A head and a group of a norm have several positions, and a module counts them.
    channels = [
        CutLength(
            member.path, member.role == "consumer", group.size, int(np.sum(vector))
        )
        for group, vector in zip(groups, vectors, strict=True)
        for member in group.members
        if not np.all(vector)
    ]
    return [*axes, *channels]


def possible_sizes(prefix: str, value: int, lengths: Sequence[CutLength]) -> list[int]:
    """The new values that a module's number may have, the most probable first.

    The number was the length of an axis, a number of channels, or a divisor or a
    multiple of such a length. Arrays inside the module come first, then the nearest
    ones.
    """
    near = sorted(lengths, key=lambda length: _distance(prefix, length))
    equal = [length.after for length in near if length.before == value]
    inside = [length for length in near if tree_paths.is_inside(length.path, prefix)]
    proportional = list(_proportional(value, inside))
    return list(dict.fromkeys([*equal, *proportional]))


def _proportional(value: int, lengths: Sequence[CutLength]) -> Iterator[int]:
    for *_, before, after in lengths:
        is_part = before % value == 0 or value % before == 0
        if is_part and before != value and value * after % before == 0:
            yield value * after // before


def _distance(prefix: str, length: CutLength) -> tuple[int, int, bool, bool]:
    """How far from a module: levels up, layers along a sequence, later, wrong side.

    A module without arrays has the channels that the layer before it computes, and that
    the layer after it reads.
    """
    own, other = prefix.split("/") if prefix else [], length.path.split("/")
    common = 0
    for left, right in zip(own, other, strict=False):
        if left != right:
            break
        common += 1
    ups = len(own) - common
    if not ups or not (own[common].isdecimal() and other[common].isdecimal()):
        return ups, 0, False, False
    steps = int(other[common]) - int(own[common])
    return ups, abs(steps), steps > 0, length.is_read != (steps > 0)
