"""`ChannelGroups`: coupled channels of a model, frozen axes, and counted costs."""

import dataclasses
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

Kept: TypeAlias = Sequence[Any] | Mapping[str, Any]
"""One vector of bools per channel group, True = kept, in their order or by name."""


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelMember:
    """An axis of a leaf that has positions for the channels of a channel group."""

    path: str
    axis: int
    indices: np.ndarray
    """Positions of each channel along the axis: shape (channels, positions)."""
    role: str
    """The use of the leaf.

    "producer": the weights compute the channels; "consumer": the weights compute other
    channels from these; "scale" and "bias": the leaf multiplies the channels or is
    added to them; "statistic": a running mean or variance of the channels; "other".
    """


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels side by side in the same leaves, each of which can be removed alone.

    To remove channel c, cut `indices[c]` out of the axis of every member.
    """

    name: str
    """Path of the layer that computes the channels first."""
    size: int
    """The number of channels."""
    members: tuple[ChannelMember, ...]
    """Axes in the order in which the model uses them."""
    parameters: np.ndarray
    """Number of parameters removed with each channel alone: int64, shape (size,)."""
    flops: np.ndarray
    """Number of operations removed with each channel alone: int64, shape (size,)."""

    def bundle_size(self, multiple_of: int) -> int:
        """Least number of channels with a multiple of positions along every axis."""
        positions = [member.indices.shape[1] for member in self.members]
        return math.lcm(*[multiple_of // math.gcd(multiple_of, n) for n in positions])

    def round_up(self, count: int, multiple_of: int) -> int:
        """Round a number of channels up to whole bundles, but at most to the size."""
        bundle = self.bundle_size(multiple_of)
        return min(-(-count // bundle) * bundle, self.size)


@dataclasses.dataclass(frozen=True, eq=False)
class FrozenAxis:
    """Positions along an axis of a leaf that cannot be removed, and the reason."""

    path: str
    axis: int
    indices: np.ndarray
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Extent:
    """Length of an axis as a function of the kept channels."""

    fixed: int
    """Number of positions that belong to no channel."""
    channel_positions: tuple[tuple[int, np.ndarray], ...]
    """Number of a channel group, and its channels' numbers of positions."""

    def count(self, kept: Sequence[Any]) -> Any:
        """Number of positions that remain with the kept channels."""
        total: Any = self.fixed
        for group, positions in self.channel_positions:
            total = total + _count_kept_positions(kept[group], positions)
        return total

    @property
    def size(self) -> int:
        """Number of positions with all channels."""
        return self.fixed + sum(int(n.sum()) for _, n in self.channel_positions)


@dataclasses.dataclass(frozen=True, eq=False)
class Cost:
    """Number of parameters or operations: `times` the product of the extents."""

    times: int
    extents: tuple[Extent, ...]

    def count(self, kept: Sequence[Any]) -> Any:
        """Number that remains with the kept channels."""
        total: Any = self.times
        for extent in self.extents:
            total = total * extent.count(kept)
        return total


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelGroups(Sequence[ChannelGroup]):
    """The coupled channels of a model: a sequence of `ChannelGroup`, and printable.

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
    """Shape of every array of the parameter tree, by path."""
    parameter_costs: tuple[Cost, ...]
    flop_costs: tuple[Cost, ...]
    tied: tuple[tuple[str, str], ...] = ()
    """Pairs of paths that hold one parameter: `tied`, and shared NNX Variables."""
    # `shrink` reads the traced program here instead of tracing the model again.
    _analysis: Any = dataclasses.field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        # Jaxprs cannot be pickled; `shrink` traces again for a copy without analysis.
        return {**self.__dict__, "_analysis": None}

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            for group in self.groups:
                if group.name == index:
                    return group
            names = [group.name for group in self.groups]
            raise KeyError(f"no channel group is called {index!r}: they are {names}")
        return self.groups[index]

    def __iter__(self) -> Iterator[ChannelGroup]:
        return iter(self.groups)

    def parameters(self, kept: Kept | None = None) -> Any:
        """Number of parameters of the model with some of the channels.

        Floating-point leaves count, except running statistics. Tied leaves count once.

        Args:
          kept: one vector of bools per channel group, shape (channels,), in their order
            or by name; by default all are kept.

        Returns:
          An exact int. Under `jit` a float32 scalar.
        """
        return self._count(self.parameter_costs, kept)

    def flops(self, kept: Kept | None = None) -> Any:
        """Number of floating-point operations of the model with some of the channels.

        Each multiply-add of a convolution or a matrix product counts 2, for the batch
        in the example arguments. Products with padding and all other operations do not
        count.

        Args:
          kept: one vector of bools per channel group, shape (channels,), in their order
            or by name; by default all are kept.

        Returns:
          An exact int. Under `jit` a float32 scalar.
        """
        return self._count(self.flop_costs, kept)

    def vectors(self, kept: Kept) -> list[Any]:
        """One vector of bools per channel group, in their order.

        Raises:
          ValueError: if the number of vectors, a name, a shape or a dtype is wrong.
        """
        if isinstance(kept, Mapping):
            names = [group.name for group in self.groups]
            unknown = [name for name in kept if name not in names]
            if unknown or len(kept) != len(names):
                difference = (
                    f"{unknown[0]!r} is none of them"
                    if unknown
                    else (f"{next(n for n in names if n not in kept)!r} is missing")
                )
                raise ValueError(
                    f"kept must have a vector for each channel group, and {difference}."
                    f" The channel groups are {names}."
                )
            kept = [kept[name] for name in names]
        if not isinstance(kept, Sequence) or len(kept) != len(self.groups):
            count = len(kept) if isinstance(kept, Sequence) else type(kept).__name__
            raise ValueError(
                f"kept must have one vector of bools for each of the "
                f"{len(self.groups)} channel groups, got {count}."
            )
        vectors: list[Any] = []
        for group, vector in zip(self.groups, kept, strict=True):
            array = vector if isinstance(vector, jax.Array) else np.asarray(vector)
            if array.shape != (group.size,) or array.dtype != np.bool_:
                raise ValueError(
                    f"kept must have {group.size} bools for the channel group "
                    f"{group.name!r}, got shape {array.shape} and dtype {array.dtype}."
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
            cost = f"{least}" if most == least else f"{least} to {most}"
            lines.append(f"{group.name}: {group.size} channels, {cost} parameters each")
            width = max(len(member.path) for member in group.members)
            for member in group.members:
                num_positions = member.indices.shape[1]
                note = f", {num_positions} positions each" if num_positions > 1 else ""
                lines.append(
                    f"    {member.path:<{width}}  axis {member.axis}  "
                    f"{member.role}{note}"
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


get_analysis: Callable[[ChannelGroups], Any] = operator.attrgetter("_analysis")
"""The model's `find_channel_groups.Analysis`; None for a pickled copy."""


def _count_kept_positions(kept: Any, positions: np.ndarray) -> Any:
    if isinstance(kept, Tracer):
        return jnp.sum(
            jnp.where(kept, positions.astype(np.float32), np.float32(0)),
            dtype=jnp.float32,
        )
    return int(positions[kept].sum())


def make_cost(times: int, extents: Sequence[Extent]) -> Cost:
    """A cost whose fixed extents are multiplied into `times`."""
    variable = tuple(extent for extent in extents if extent.channel_positions)
    fixed = math.prod(
        extent.fixed for extent in extents if not extent.channel_positions
    )
    return Cost(times * fixed, variable)
