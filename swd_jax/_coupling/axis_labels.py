"""What is known of one array in the program: which atom each position has."""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from swd_jax._coupling import array_types, union_find


@dataclasses.dataclass(frozen=True)
class Labels:
    """The labels of an array, axis by axis.

    An axis is labelled, uniform, or neither: then it has a fixed size.
    """

    shape: array_types.Dims
    """In the program as it was traced."""
    blocks: Mapping[array_types.Dims, array_types.Ids] = dataclasses.field(
        default_factory=dict
    )
    """Atoms of labelled axes: those of axis d have the key (d,) and the shape (size,).

    A reshape that splits a labelled axis leaves its parts together in one block with
    several axes, in rising order, until it is known which of them is to keep the
    labels: of (3, heads, features) it is the heads.
    """
    uniform: frozenset[int] = frozenset()
    """Axes along which the values are all the same, as after a broadcast.

    Such an array fits any number of channels. When the program runs at other sizes it
    has size 1 there.
    """
    data: bool = False
    """Whether it depends on the model's input, not on parameters alone."""
    vanishes: bool = False
    """Whether values are 0 wherever the parameters of their channel are."""
    known: np.ndarray | None = None
    """Its values, for small arrays of integers that nothing else decides."""

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def labelled(self) -> frozenset[int]:
        """The labelled axes."""
        return frozenset(dim for dims in self.blocks for dim in dims)

    def block_of(self, dim: int) -> array_types.Dims | None:
        """The key of the block that an axis is in."""
        return next((dims for dims in self.blocks if dim in dims), None)

    def vector(self, dim: int) -> array_types.Ids:
        """The atoms along an axis that shares its block with no other."""
        if (dim,) in self.blocks:
            return self.blocks[dim,]
        return np.full(self.shape[dim], union_find.FIXED)

    def replaced(self, **changes: object) -> "Labels":
        """The same with some fields changed. The values are no longer known."""
        return dataclasses.replace(self, **{"known": None, **changes})

    def without(
        self, dims: array_types.Dims
    ) -> dict[array_types.Dims, array_types.Ids]:
        """All blocks but one."""
        return {key: ids for key, ids in self.blocks.items() if key != dims}

    def moved(self, to: Mapping[int, int], shape: Iterable[int]) -> "Labels":
        """The labels when axes move. Axes that `to` lacks must not be labelled.

        Axes of the new shape to which none moves are uniform.
        """
        shape = tuple(shape)
        blocks = dict(
            ordered([to[dim] for dim in dims], ids) for dims, ids in self.blocks.items()
        )
        stay_fixed = {to[dim] for dim in to if dim not in self.uniform}
        uniform = frozenset(range(len(shape))) - stay_fixed
        return self.replaced(shape=shape, blocks=blocks, uniform=uniform)


def ordered(
    dims: Iterable[int], ids: array_types.Ids
) -> tuple[array_types.Dims, array_types.Ids]:
    """A block with its axes in rising order."""
    dims = tuple(dims)
    order = np.argsort(dims)
    return tuple(dims[i] for i in order), np.transpose(ids, order)


def fixed(shape: Iterable[int], *, data: bool = True) -> Labels:
    """The labels of an array all of whose axes have a fixed size."""
    return Labels(tuple(shape), data=data)


def constant(shape: Iterable[int]) -> Labels:
    """The labels of an array with the same number everywhere."""
    shape = tuple(shape)
    return Labels(shape, uniform=frozenset(range(len(shape))))
