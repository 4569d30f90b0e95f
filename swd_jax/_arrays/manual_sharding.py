"""Leaves divided by hand: inside `shard_map` or `pmap`, where each device has its part.

There the compiler knows of no other device. Whoever wants counts of whole leaves names
the mesh axes over which they are divided, and the counts are added up along them.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

AxisName = str | tuple[str, ...] | None
"""Mesh axes over which leaves are divided by hand; None if they are not."""

Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True)
class Shards:
    """Over which mesh axes each leaf is divided.

    Attributes:
      axes: along which there are parts of the leaves.
      of_leaf: the axes among these over which each leaf is divided. Along the others
        every device has the same part of it.
    """

    axes: tuple[str, ...]
    of_leaf: tuple[tuple[str, ...], ...]

    def parts(self, i: int) -> int:
        """How many parts a leaf has."""
        return math.prod(jax.lax.axis_size(axis) for axis in self.of_leaf[i])

    def part(self, i: int) -> jax.Array:
        """Which of them is here: shape=(), dtype=uint32."""
        part = jnp.zeros((), jnp.uint32)
        for axis in self.of_leaf[i]:
            here = jax.lax.axis_index(axis).astype(jnp.uint32)
            part = part * np.uint32(jax.lax.axis_size(axis)) + here
        return part

    def once(self, i: int, sums: jax.Array) -> jax.Array:
        """Sums over a leaf's part, to be counted once.

        On all but one of the devices that have the same part they are zeros.
        """
        # In the order of the axes: all processes must trace the same program.
        for axis in self.axes:
            if axis not in self.of_leaf[i]:
                first = jax.lax.axis_index(axis) == 0
                sums = jnp.where(first, sums, jnp.zeros_like(sums))
        return sums

    def total(self, sums: Tree) -> Tree:
        """The sums along the axes of what is counted `once`."""
        return jax.lax.psum(sums, self.axes)

    def least(self, numbers: Tree) -> Tree:
        """The minima along the axes."""
        return jax.lax.pmin(numbers, self.axes)


def find_shards(leaves: Sequence[jax.Array], axis_name: AxisName) -> Shards | None:
    """How leaves are divided over the named axes.

    A `shard_map` that checks replication knows which leaves are the same all along an
    axis; where it does not check, and under `pmap`, all count as divided.

    Raises:
      ValueError: if an axis is not there to be named.
    """
    if axis_name is None:
        return None
    axes = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)
    try:
        positions = [jax.lax.axis_index(axis) for axis in axes]
    except NameError as error:
        raise ValueError(
            f"axis_name is {axis_name!r}, but there is no such axis here: it names "
            "mesh axes inside shard_map or pmap. Under jit alone leave it out: the "
            "counts are of whole arrays there"
        ) from error
    checked = {
        axis
        for axis, position in zip(axes, positions, strict=True)
        if axis in varying_axes(position)
    }
    of_leaf = [
        tuple(
            axis for axis in axes if axis not in checked or axis in varying_axes(leaf)
        )
        for leaf in leaves
    ]
    return Shards(axes, tuple(of_leaf))


def varying_axes(array: Any) -> frozenset[str]:
    """The mesh axes along which an array is known to differ from device to device."""
    if not isinstance(array, jax.Array):
        return frozenset()  # numbers, and arrays of NumPy
    kind = jax.typeof(array)
    # It has had two names.
    manual = getattr(kind, "mat", None)
    varying = getattr(kind, "vma", frozenset()) if manual is None else manual.varying
    return frozenset(varying)


def vary_as(tree: Tree, others: Iterable[Any], shards: Shards | None = None) -> Tree:
    """Mark arrays as differing along the axes along which any of the others does.

    A loop wants that of what it starts with. Along axes over which counts are added up
    nothing that follows from them differs.
    """
    axes = frozenset[str]().union(*map(varying_axes, others))
    if shards is not None:
        axes -= set(shards.axes)

    def marked(array: jax.Array) -> jax.Array:
        new = tuple(sorted(axes - varying_axes(array)))
        return jax.lax.pcast(array, new, to="varying") if new else array

    return jax.tree.map(marked, tree)


def is_divided(array: Any) -> bool:
    """Whether the type of an array tells that devices have parts of it."""
    return any(names is not None for names in jax.typeof(array).sharding.spec)


def laid_out_as(array: jax.Array, other: Any) -> jax.Array:
    """The array divided as another is, where that is known (the explicit mode)."""
    if not is_divided(other):
        return array
    return jax.sharding.reshard(array, jax.typeof(other).sharding)


def placed_as(array: jax.Array, other: Any) -> jax.Array:
    """The array on the devices on which another is, where both are at hand."""
    if isinstance(array, Tracer) or isinstance(other, Tracer):
        return array
    if not isinstance(other, jax.Array):
        return array
    if array.sharding.is_equivalent_to(other.sharding, array.ndim):
        return array
    return jax.device_put(array, other.sharding)


def undivided(array: jax.Array) -> jax.Array:
    """The array as a whole on all devices, where it is known to be divided."""
    if not is_divided(array):
        return array
    sharding = jax.typeof(array).sharding
    whole = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
    return jax.sharding.reshard(array, whole)
