"""What `channel_groups` gives: coupled channels, what is frozen, and what it costs."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

Kept: TypeAlias = Sequence[Any] | Mapping[str, Any]
"""One vector of bools per group, in their order or by their names."""


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelMember:
    """An axis of a leaf along which the channels of a group lie."""

    path: str
    axis: int
    indices: np.ndarray
    """Where each channel is along the axis: shape (channels, positions of each)."""
    role: str
    """What the axis is there for.

    "producer": the weights compute the channels; "consumer": they compute others from
    them; "scale" and "bias": they multiply them, or are added; "statistic": a mean or
    variance of them; "other".
    """


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that lie side by side in the same leaves, each removable by itself.

    Removing channel c means to cut `indices[c]` out of the axis of every member.
    """

    name: str
    """After the layer that computes them first."""
    size: int
    """The number of channels."""
    members: tuple[ChannelMember, ...]
    """In the order in which the model uses them."""
    parameters: np.ndarray
    """How many parameters go with each channel when all others stay, shape (size,)."""
    flops: np.ndarray
    """How many operations go with each channel when all others stay, shape (size,)."""

    def channels_in(self, multiple: int) -> int:
        """How many channels make up a multiple of some number along every axis."""
        positions = [member.indices.shape[1] for member in self.members]
        return math.lcm(*[multiple // math.gcd(multiple, n) for n in positions])

    def rounded_up(self, count: int, multiple: int) -> int:
        """So many channels, or more to make up a multiple, as far as there are any."""
        together = self.channels_in(multiple)
        return min(-(-count // together) * together, self.size)


@dataclasses.dataclass(frozen=True, eq=False)
class FrozenAxis:
    """Positions along an axis of a leaf that cannot be removed, and why."""

    path: str
    axis: int
    indices: np.ndarray
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Extent:
    """How many positions an axis has, for the groups along it."""

    fixed: int
    """Positions that are always there."""
    of_groups: tuple[tuple[int, np.ndarray], ...]
    """By number of the group: the positions of each of its channels."""

    def count(self, kept: Sequence[Any]) -> Any:
        """The positions that are left."""
        total: Any = self.fixed
        for group, positions in self.of_groups:
            total = total + _dot(kept[group], positions)
        return total

    @property
    def full(self) -> int:
        """All positions."""
        return self.fixed + sum(int(n.sum()) for _, n in self.of_groups)


@dataclasses.dataclass(frozen=True, eq=False)
class Cost:
    """A number of parameters or operations: `times` the product of some extents."""

    times: int
    extents: tuple[Extent, ...]

    def count(self, kept: Sequence[Any]) -> Any:
        """What is left of it."""
        total: Any = self.times
        for extent in self.extents:
            total = total * extent.count(kept)
        return total


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelGroups(Sequence[ChannelGroup]):
    """The coupled channels of a model. Print it, or go through the groups.

    Examples:
      >>> import jax, jax.numpy as jnp, swd_jax
      >>> params = {"first": jnp.ones((4, 3)), "second": jnp.ones((3, 2))}
      >>> groups = swd_jax.channels.channel_groups(
      ...     lambda p, x: jax.nn.relu(x @ p["first"]) @ p["second"],
      ...     params,
      ...     jnp.ones((1, 4)),
      ... )
      >>> [group] = groups
      >>> [(member.path, member.axis, member.role) for member in group.members]
      [('first', 1, 'producer'), ('second', 0, 'consumer')]
      >>> group.parameters
      array([6, 6, 6])
      >>> groups.parameters([[True, False, True]])
      12
    """

    groups: tuple[ChannelGroup, ...]
    frozen: tuple[FrozenAxis, ...]
    shapes: Mapping[str, tuple[int, ...]]
    """Of every array of the tree, by its path."""
    parameter_costs: tuple[Cost, ...]
    flop_costs: tuple[Cost, ...]

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            for group in self.groups:
                if group.name == index:
                    return group
            raise KeyError(index)
        return self.groups[index]

    def __iter__(self) -> Iterator[ChannelGroup]:
        return iter(self.groups)

    def parameters(self, kept: Kept | None = None) -> Any:
        """The number of parameters with some of the channels.

        Floating-point leaves count, but for running statistics.

        Args:
          kept: one vector of bools per group, shape (channels,), in their order or by
            name; by default all are kept.

        Returns:
          An exact int. Under `jit` a float32 scalar.
        """
        return self._count(self.parameter_costs, kept)

    def flops(self, kept: Kept | None = None) -> Any:
        """The number of floating-point operations with some of the channels.

        Two for each multiply-add in convolutions and matrix products, for the example
        arguments, so of one batch. Products with padding are not computed and not
        counted. Everything else is not counted either.

        Args:
          kept: one vector of bools per group, shape (channels,), in their order or by
            name; by default all are kept.

        Returns:
          An exact int. Under `jit` a float32 scalar.
        """
        return self._count(self.flop_costs, kept)

    def vectors(self, kept: Kept) -> list[Any]:
        """One vector of bools per group, in their order.

        Raises:
          ValueError: if there is one too many or too few, or a shape is wrong.
        """
        if isinstance(kept, Mapping):
            names = [group.name for group in self.groups]
            unknown = [name for name in kept if name not in names]
            if unknown or len(kept) != len(names):
                what = (
                    f"{unknown[0]!r} is none of them"
                    if unknown
                    else (f"{next(n for n in names if n not in kept)!r} is missing")
                )
                raise ValueError(
                    f"kept must have a vector for each group, and {what}. The groups "
                    f"are {names}."
                )
            kept = [kept[name] for name in names]
        if not isinstance(kept, Sequence) or len(kept) != len(self.groups):
            count = len(kept) if isinstance(kept, Sequence) else type(kept).__name__
            raise ValueError(
                f"kept must have one vector of bools for each of the "
                f"{len(self.groups)} groups, got {count}."
            )
        vectors: list[Any] = []
        for group, vector in zip(self.groups, kept, strict=True):
            array = vector if isinstance(vector, jax.Array) else np.asarray(vector)
            if array.shape != (group.size,) or array.dtype != np.bool_:
                raise ValueError(
                    f"kept must be {group.size} bools for the group {group.name!r}, "
                    f"got shape {array.shape} and dtype {array.dtype}."
                )
            vectors.append(array)
        return vectors

    def _count(self, costs: Sequence[Cost], kept: Kept | None) -> Any:
        if kept is None:
            vectors: list[Any] = [np.ones(group.size, bool) for group in self.groups]
        else:
            vectors = self.vectors(kept)
        vectors = [v if isinstance(v, Tracer) else np.asarray(v) for v in vectors]
        return sum(cost.count(vectors) for cost in costs)

    def __str__(self) -> str:
        lines = [f"{len(self.groups)} groups of channels"]
        for group in self.groups:
            most, least = int(group.parameters.max()), int(group.parameters.min())
            each = f"{least}" if most == least else f"{least} to {most}"
            lines.append(f"{group.name}: {group.size} channels, {each} parameters each")
            width = max(len(member.path) for member in group.members)
            for member in group.members:
                per = member.indices.shape[1]
                positions = f", {per} positions each" if per > 1 else ""
                lines.append(
                    f"    {member.path:<{width}}  axis {member.axis}  "
                    f"{member.role}{positions}"
                )
        if self.frozen:
            lines.append("frozen")
        by_reason: dict[str, dict[str, list[str]]] = {}
        for axis in self.frozen:
            paths = by_reason.setdefault(axis.reason, {})
            paths.setdefault(axis.path, []).append(str(axis.axis))
        for reason, paths in by_reason.items():
            lines.append(f"  {reason}:")
            lines += [f"    {p} axis {', '.join(axes)}" for p, axes in paths.items()]
        return "\n".join(lines)


def _dot(kept: Any, positions: np.ndarray) -> Any:
    if isinstance(kept, Tracer):
        return jnp.sum(
            jnp.where(kept, positions.astype(np.float32), np.float32(0)),
            dtype=jnp.float32,
        )
    return int(positions[kept].sum())


def cost(times: int, extents: Sequence[Extent]) -> Cost:
    """A cost whose fixed extents are multiplied out."""
    moving = tuple(extent for extent in extents if extent.of_groups)
    fixed = math.prod(extent.fixed for extent in extents if not extent.of_groups)
    return Cost(times * fixed, moving)
