"""`Labels`: the atom of every position along the axes of one array in the program."""

import dataclasses
from collections.abc import Iterable, Mapping

import jax
import jax.export
import numpy as np

from swd_jax._coupling import type_aliases, union_find


@dataclasses.dataclass(frozen=True)
class Labels:
    """Labels of an array, axis by axis.

    - Every axis is labelled, broadcast, or of fixed size.
    - `shape` is the array's shape in the traced program.
    - `blocks` has every labelled axis in exactly one key; keys are in rising order.
    """

    shape: type_aliases.Dims
    blocks: Mapping[type_aliases.Dims, type_aliases.AtomIds] = dataclasses.field(
        default_factory=dict
    )
    """Atoms of the labelled axes; axis d alone has the key (d,) and the shape (size,).

    A reshape that splits a labelled axis puts the new axes into one block, until a
    later operation decides which of them keeps the labels. In (3, heads, features) of a
    fused projection the axis of the heads keeps them.
    """
    broadcast_axes: frozenset[int] = frozenset()
    """Axes along which all values are equal, e.g. after a broadcast.

    The smaller program stores the array with size 1 along these axes, so the array fits
    any number of channels.
    """
    depends_on_input: bool = False
    """Whether the values depend on the model's input, not on parameters alone."""
    removed_values: Mapping[int, float] = dataclasses.field(default_factory=dict)
    """Value, by labelled axis, at the positions of a channel whose parameters are 0.

    An axis is missing where that value depends on the input or on other channels. It is
    then taken to be finite, as the values of the kept channels are.
    """
    uniform_value: float | None = None
    """Value of all elements, where they are equal and known, as of a literal."""
    not_finite_at: str = ""
    """The operation that makes a value in `removed_values` NaN or infinite."""
    const_value: np.ndarray | None = None
    """Value of a small integer or bool array that depends on literals only."""

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def labelled_axes(self) -> frozenset[int]:
        """The axes that have atoms."""
        return frozenset(dim for key in self.blocks for dim in key)

    def block_key(self, dim: int) -> type_aliases.Dims | None:
        """Return the key of the block that contains an axis, or None."""
        return next((key for key in self.blocks if dim in key), None)

    def axis_atoms(self, dim: int) -> type_aliases.AtomIds:
        """Return the atoms along an axis whose block has no other axis."""
        if (dim,) in self.blocks:
            return self.blocks[dim,]
        size = self.shape[dim]
        # One position that broadcasts stands for a number of them that is unknown.
        size = 1 if jax.export.is_symbolic_dim(size) else size
        return np.full(size, union_find.NOT_REMOVABLE)

    def removed_value(self, dim: int) -> float | None:
        """Return the value at the positions of removed channels along an axis.

        Along an axis without atoms it is the value of all elements. None is unknown.
        """
        if self.block_key(dim) is None:
            return self.uniform_value
        return self.removed_values.get(dim)

    def replace(self, **changes: object) -> "Labels":
        """Return a copy with some fields changed, and without `const_value`."""
        labels = dataclasses.replace(self, **{"const_value": None, **changes})
        labelled_axes = labels.labelled_axes
        if labels.removed_values.keys() <= labelled_axes:
            return labels
        values = {
            dim: value
            for dim, value in labels.removed_values.items()
            if dim in labelled_axes
        }
        return dataclasses.replace(labels, removed_values=values)

    def blocks_except(
        self, key: type_aliases.Dims
    ) -> dict[type_aliases.Dims, type_aliases.AtomIds]:
        """Return all blocks but the one with this key."""
        return {dims: ids for dims, ids in self.blocks.items() if dims != key}

    def move_axes(self, new_dims: Mapping[int, int], shape: Iterable[int]) -> "Labels":
        """Return the labels after axis d has moved to `new_dims[d]`.

        Args:
          new_dims: must contain all labelled axes; the axes that it lacks are dropped.
          shape: the new shape; its axes that are no value of `new_dims` are broadcast.
        """
        shape = tuple(shape)
        not_broadcast = {
            new for old, new in new_dims.items() if old not in self.broadcast_axes
        }
        broadcast_axes = frozenset(range(len(shape))) - not_broadcast
        return self.replace(
            shape=shape,
            blocks=dict(_move_block(*item, new_dims) for item in self.blocks.items()),
            broadcast_axes=broadcast_axes,
            removed_values={
                new_dims[dim]: value
                for dim, value in self.removed_values.items()
                if dim in new_dims
            },
        )

    def blocks_within(
        self, new_dims: Mapping[int, int]
    ) -> dict[type_aliases.Dims, type_aliases.AtomIds]:
        """Return the blocks all of whose axes move: axis d to `new_dims[d]`."""
        return dict(
            _move_block(key, ids, new_dims)
            for key, ids in self.blocks.items()
            if set(key) <= new_dims.keys()
        )


def _move_block(
    key: type_aliases.Dims, ids: type_aliases.AtomIds, new_dims: Mapping[int, int]
) -> tuple[type_aliases.Dims, type_aliases.AtomIds]:
    return sort_axes([new_dims[dim] for dim in key], ids)


def sort_axes(
    dims: Iterable[int], ids: type_aliases.AtomIds
) -> tuple[type_aliases.Dims, type_aliases.AtomIds]:
    """Return a block with its axes in rising order."""
    dims = tuple(dims)
    order = np.argsort(dims)
    return tuple(dims[i] for i in order), np.transpose(ids, order)


def fixed_size_labels(shape: Iterable[int], *, depends_on_input: bool = True) -> Labels:
    """Return the labels of an array all of whose axes have a fixed size."""
    return Labels(tuple(shape), depends_on_input=depends_on_input)


def broadcast_labels(shape: Iterable[int]) -> Labels:
    """Return the labels of an array whose values are equal along every axis."""
    shape = tuple(shape)
    return Labels(shape, broadcast_axes=frozenset(range(len(shape))))
