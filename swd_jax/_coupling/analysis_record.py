"""What one analysis gathers: parameters, what they are for, products, places."""

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from swd_jax._coupling import array_types, union_find
from swd_jax._coupling.axis_labels import Labels

PRODUCER, CONSUMER, SCALE, BIAS, OTHER = "producer consumer scale bias other".split()


@dataclasses.dataclass
class Frame:
    """The labels of everything in one jaxpr, at one place where it is called."""

    labels: dict[Any, Labels]
    """Of each variable."""
    inner: dict[int, list["Frame"]]
    """Of the jaxprs that an equation calls, by its number."""
    opaque: set[int] = dataclasses.field(default_factory=set)
    """Numbers of the equations that are not understood."""


@dataclasses.dataclass(frozen=True)
class Product:
    """Multiply-adds of a convolution or a matrix product.

    Their number is `times` times the product of the positions kept of each factor.
    """

    times: int
    factors: tuple[array_types.Ids, ...]


_LIBRARIES = re.compile(r"/(jax|flax|equinox|haiku|swd_jax)/")


def _source_line(equation: array_types.Equation) -> str:
    """The line of the user's code that an equation comes from, if jax tells."""
    traceback = getattr(equation.source_info, "traceback", None)
    frames = getattr(traceback, "frames", ())
    for frame in frames:
        if not _LIBRARIES.search(frame.file_name.replace("\\", "/")):
            return f"{os.path.basename(frame.file_name)}:{frame.line_num}"
    return ""


class Record:
    """The state of one analysis."""

    def __init__(self, enter: Callable[..., tuple[list[Labels], Frame]]) -> None:
        self.atoms = union_find.Atoms()
        self.products: list[Product] = []
        self.roles: dict[tuple[int, int], str] = {}
        """Of leaf and axis, in the order in which the program comes to use them."""
        self.splits: list[tuple[array_types.Ids, str]] = []
        """Blocks with several axes, and where they came from."""
        self.where = ""
        """The primitive at work, and its line in the user's code."""
        self.times = 1
        """How often the program runs the jaxpr at work: the length of a scan."""
        self._owners: list[tuple[int, int]] = []
        self._starts: list[int] = []
        self._enter = enter
        self._frames: list[list[Frame]] = []
        self._line = self._outer_line = ""

    # Parameters, and what they are used for.

    def parameter(self, leaf: int, shape: Sequence[int]) -> Labels:
        """The labels of a parameter: an atom for each position along each axis."""
        blocks: dict[array_types.Dims, array_types.Ids] = {}
        for axis, size in enumerate(shape):
            if size > 1:  # the only position cannot go
                self._owners.append((leaf, axis))
                self._starts.append(len(self.atoms))
                blocks[axis,] = self.atoms.fresh(size)
        return Labels(tuple(shape), blocks, vanishes=True)

    def parameters_end(self) -> None:
        """Atoms from here on belong to no parameter."""
        self._starts.append(len(self.atoms))

    def movable(self, labels: Labels, dims: Iterable[int]) -> bool:
        """Whether there are channels along some axes that are not frozen."""
        keys = {key for key in labels.blocks if set(key).intersection(dims)}
        atoms = [labels.blocks[key] for key in sorted(keys)]
        roots = {
            root for ids in atoms for root in self.atoms.roots(ids).ravel().tolist()
        }
        return bool(roots.difference(self.atoms.frozen_roots(), [union_find.FIXED]))

    def owners(self, ids: array_types.Ids) -> list[tuple[int, int]]:
        """The leaves and axes whose own atoms these are."""
        own = ids[(ids >= 0) & (ids < self._starts[-1])]
        places = np.unique(np.searchsorted(self._starts, own, side="right")) - 1
        return [self._owners[place] for place in places.tolist()]

    def own_atoms(self) -> Iterable[tuple[int, int, array_types.Ids]]:
        """Leaf, axis and atoms of all parameters."""
        ends = self._starts[1:]
        for owner, start, end in zip(self._owners, self._starts, ends, strict=False):
            yield *owner, np.arange(start, end)

    def use(self, labels: Labels, dims: Iterable[int], role: str) -> None:
        """Note what a parameter's axes are used for.

        A convolution or a matrix product tells more than an addition before it.
        """
        if labels.data:
            return
        for dim in dims:
            key = labels.block_of(dim)
            for owner in self.owners(labels.blocks[key]) if key else []:
                known = self.roles.get(owner)
                if known is None or (
                    role in (PRODUCER, CONSUMER) and known not in (PRODUCER, CONSUMER)
                ):
                    self.roles[owner] = role

    def product(self, times: int, factors: Iterable[array_types.Ids]) -> None:
        """Note the cost of a convolution or a matrix product."""
        self.products.append(Product(self.times * times, tuple(factors)))

    # Where the program is.

    def at(self, equation: array_types.Equation) -> None:
        """Note the equation at work, for reasons.

        In a function of jax's that is jitted, the line is that of the call.
        """
        self._line = line = _source_line(equation) or self._outer_line
        name = equation.primitive.name
        self.where = f"{name}, {line}" if line else name

    def call(self, jaxpr: Any, arguments: Sequence[Labels]) -> list[Labels]:
        """Follow the arguments through a jaxpr that the equation at work calls."""
        state = self.where, self._line, self._outer_line
        self._outer_line = self._line
        outputs, frame = self._enter(self, jaxpr, arguments)
        self.where, self._line, self._outer_line = state
        self._frames[-1].append(frame)
        return outputs

    def begin(self) -> None:
        """An equation begins."""
        self._frames.append([])

    def end(self) -> list[Frame]:
        """It ends: the jaxprs it has called."""
        return self._frames.pop()
