"""Leaves sharded manually: inside `shard_map` or `pmap`, which see one shard each.

The caller names the mesh axes over which the leaves are sharded (`axis_name`), and
counts are summed over these axes.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

AxisName = str | tuple[str, ...] | None
"""Mesh axes over which leaves are sharded manually; None if they are not."""

Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True)
class Shards:
    r"""The sharding of some leaves, inside `shard_map` or `pmap`.

    A criterion whose statistics are of whole leaves, such as a norm or a mean, receives
    it with the local shards of the leaves, and reduces over shards with it:

    .. math:: S_i = \text{psum}(\text{mask\_replicas}(i, s_i))

    is the sum over the whole of leaf i of what :math:`s_i` sums over the local shard.
    Floats summed in this way depend on the order of the devices; integers do not.

    Instances are made by the library, which passes None instead where the leaves are
    not sharded manually. Leaves are known by their position in the list of leaves that
    comes with the instance. Methods may be called only while the function inside
    `shard_map` or `pmap` is traced, and all devices must call them in the same order.

    Args:
      axes: the mesh axes over which some of the leaves are sharded, in the order in
        which the user named them.
      leaf_axes: for every leaf, those of `axes` over which it is sharded. Along the
        others all devices hold the same shard (a replica).

    Examples:
      A criterion that scores weights by their share of the leaf's L1 norm:

      >>> import jax, jax.numpy as jnp
      >>> from jax.sharding import AxisType, PartitionSpec
      >>> from swd_jax.typing import Shards
      >>> def l1_norms(leaves, shards=None):
      ...     sums = [jnp.sum(jnp.abs(leaf)) for leaf in leaves]
      ...     if shards is None:
      ...         return sums
      ...     return shards.psum(
      ...         [shards.mask_replicas(i, value) for i, value in enumerate(sums)]
      ...     )
      >>> mesh = jax.make_mesh((1,), ("x",), axis_types=(AxisType.Auto,))
      >>> mapped = jax.shard_map(
      ...     lambda leaf: l1_norms([leaf], Shards(("x",), (("x",),)))[0],
      ...     mesh=mesh,
      ...     in_specs=PartitionSpec("x"),
      ...     out_specs=PartitionSpec(),
      ... )
      >>> float(mapped(jnp.array([1.0, -2.0])))
      3.0
    """

    axes: tuple[str, ...]
    leaf_axes: tuple[tuple[str, ...], ...]

    def num_shards(self, i: int) -> int:
        """Return the number of shards of leaf i: the product of its axes' sizes."""
        return math.prod(jax.lax.axis_size(axis) for axis in self.leaf_axes[i])

    def shard_index(self, i: int) -> jax.Array:
        """Return the index of the local shard of leaf i, in [0, num_shards(i)).

        Indices are in row-major order of the leaf's axes. shape=(), dtype=uint32
        """
        index = jnp.zeros((), jnp.uint32)
        for axis in self.leaf_axes[i]:
            axis_index = jax.lax.axis_index(axis).astype(jnp.uint32)
            index = index * np.uint32(jax.lax.axis_size(axis)) + axis_index
        return index

    def mask_replicas(self, i: int, sums: jax.Array) -> jax.Array:
        """Return sums over the local shard of leaf i; zeros on all replicas but one.

        A `psum` of the results counts every shard once.

        Args:
          i: position of the leaf.
          sums: any shape and dtype.
        """
        # In the order of `axes`: all processes must trace the same program.
        for axis in self.axes:
            if axis not in self.leaf_axes[i]:
                is_first = jax.lax.axis_index(axis) == 0
                sums = jnp.where(is_first, sums, jnp.zeros_like(sums))
        return sums

    def psum(self, sums: Tree) -> Tree:
        """Return the sums over all devices along `axes`, of a tree of arrays."""
        return jax.lax.psum(sums, self.axes)

    def pmin(self, values: Tree) -> Tree:
        """Return the minima over all devices along `axes`, of a tree of arrays."""
        return jax.lax.pmin(values, self.axes)


def find_shards(leaves: Sequence[jax.Array], axis_name: AxisName) -> Shards | None:
    """Return how leaves are sharded over the named axes; None without an axis.

    A `shard_map` that checks replication tells which leaves are equal along an axis.
    Without that check, and under `pmap`, all leaves count as sharded over all axes.

    Raises:
      ValueError: if an axis of that name does not exist.
    """
    if axis_name is None:
        return None
    if not isinstance(axis_name, str | tuple | list):
        raise ValueError(
            "axis_name must be the name of a mesh axis, or a tuple of names, got "
            f"{axis_name!r}"
        )
    axes = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)
    try:
        indices = [jax.lax.axis_index(axis) for axis in axes]
    except NameError as error:
        raise ValueError(
            f"axis_name is {axis_name!r}, but there is no such axis here: it names "
            "mesh axes inside shard_map or pmap. Under jit alone leave it out: the "
            "counts are of whole arrays there"
        ) from error
    checked_axes = {
        axis
        for axis, index in zip(axes, indices, strict=True)
        if axis in varying_axes(index)
    }
    leaf_axes = [
        tuple(
            axis
            for axis in axes
            if axis not in checked_axes or axis in varying_axes(leaf)
        )
        for leaf in leaves
    ]
    return Shards(axes, tuple(leaf_axes))


def varying_axes(array: Any) -> frozenset[str]:
    """Return the mesh axes along which an array's type says that it varies."""
    if not isinstance(array, jax.Array):
        return frozenset()  # Python numbers and NumPy arrays
    array_type = jax.typeof(array)
    # jax 0.10 has the attribute `vma`, jax 0.12 has `mat.varying`.
    manual = getattr(array_type, "mat", None)
    if manual is None:
        return frozenset(getattr(array_type, "vma", frozenset()))
    return frozenset(manual.varying)


def pcast_like(
    tree: Tree, references: Iterable[Any], shards: Shards | None = None
) -> Tree:
    """Mark arrays as varying along every axis along which a reference varies.

    `while_loop` and `fori_loop` demand it of their initial carry. The axes of `shards`
    are left out: results of a `psum` over them do not vary.

    Args:
      tree: tree of arrays.
      references: arrays.
      shards: how the leaves are sharded manually, if they are.
    """
    axes = frozenset[str]().union(*map(varying_axes, references))
    if shards is not None:
        axes -= set(shards.axes)

    def pcast(array: jax.Array) -> jax.Array:
        new_axes = tuple(sorted(axes - varying_axes(array)))
        return jax.lax.pcast(array, new_axes, to="varying") if new_axes else array

    return jax.tree.map(pcast, tree)
