"""`CouplingAnalysis`: the state of one analysis of a traced program."""

import contextlib
import dataclasses
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from swd_jax._coupling import type_aliases, union_find
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.current_equation import ProgramPosition

PRODUCER, CONSUMER, SCALE, BIAS, OTHER = "producer consumer scale bias other".split()


@dataclasses.dataclass
class Frame:
    """Labels of everything in one call of a jaxpr."""

    labels: dict[Any, Labels]
    """Labels by variable."""
    called: dict[int, list["Frame"]]
    """Frames of the jaxprs that an equation calls, by the number of the equation."""
    unsupported: set[int] = dataclasses.field(default_factory=set)
    """Numbers of the equations that no rule supports."""
    unused: set[int] = dataclasses.field(default_factory=set)
    """Numbers of the equations that nothing depends on, which are left out."""


@dataclasses.dataclass(frozen=True)
class Product:
    """Multiply-adds of a convolution or a matrix product.

    Their number is `num_runs` times the product, over `factors`, of the number of
    positions that are kept.
    """

    num_runs: int
    factors: tuple[type_aliases.AtomIds, ...]


class Propagate(Protocol):
    """Type of `propagate_labels.propagate`."""

    def __call__(
        self, analysis: "CouplingAnalysis", jaxpr: Any, arguments: Sequence[Labels], /
    ) -> tuple[list[Labels], Frame]:
        """Return the labels of a jaxpr's results, and of everything in it."""
        ...


class CouplingAnalysis:
    """Atoms of a model's leaves, and the notes that the rules make about their use.

    `propagate_labels` goes through the program with one of these. The rules read and
    change labels by the functions of `label_operations`, and note roles and products
    here. `build_groups` reads the result.
    """

    def __init__(self, propagate: Propagate, *, counts_products: bool = True) -> None:
        """Start an analysis.

        Args:
          propagate: `propagate_labels.propagate`; an argument, because that module
            imports the rules, and the rules of `scan`, `cond` and `jit` need it.
          counts_products: whether the rules note multiply-adds, which needs sizes that
            are numbers.
        """
        self.counts_products = counts_products
        self.atoms = union_find.Atoms()
        self.position = ProgramPosition()
        self.products: list[Product] = []
        self.roles: dict[tuple[int, int], str] = {}
        """Role by leaf and axis, in the order in which the program uses them."""
        self.split_blocks: list[tuple[type_aliases.AtomIds, str]] = []
        """Blocks with several axes, and the position at which each arose."""
        self._propagate = propagate
        self._called: list[Frame] = []
        self._products_before_call = 0
        self._leaf_axes: list[tuple[int, int]] = []
        self._first_atoms: list[int] = []

    # Leaves.

    def add_leaf(self, leaf: int, shape: Sequence[int]) -> Labels:
        """Create an atom for each position along each axis of a leaf.

        An axis of size 1 gets no atom, because its only position cannot be removed.
        """
        blocks: dict[type_aliases.Dims, type_aliases.AtomIds] = {}
        for axis, size in enumerate(shape):
            if size > 1:
                self._leaf_axes.append((leaf, axis))
                self._first_atoms.append(len(self.atoms))
                blocks[axis,] = self.atoms.create(size)
        removed_values = {dim: 0.0 for dims in blocks for dim in dims}
        return Labels(tuple(shape), blocks, removed_values=removed_values)

    def end_leaves(self) -> None:
        """Declare that the atoms created after this call belong to no leaf."""
        self._first_atoms.append(len(self.atoms))

    def leaf_axes_of(self, ids: type_aliases.AtomIds) -> list[tuple[int, int]]:
        """Return the leaves and axes for which these atoms were created."""
        leaf_atoms = ids[(ids >= 0) & (ids < self._first_atoms[-1])]
        numbers = np.searchsorted(self._first_atoms, leaf_atoms, side="right") - 1
        return [self._leaf_axes[number] for number in np.unique(numbers).tolist()]

    def leaf_axis_atoms(self) -> Iterator[tuple[int, int, type_aliases.AtomIds]]:
        """Yield leaf, axis and atoms of all axes of all leaves."""
        ends = self._first_atoms[1:]
        for (leaf, axis), start, end in zip(
            self._leaf_axes, self._first_atoms, ends, strict=False
        ):
            yield leaf, axis, np.arange(start, end)

    # Notes of the rules.

    def note_role(self, labels: Labels, dims: Iterable[int], role: str) -> None:
        """Note the role of the leaf axes whose atoms lie along some axes.

        The first role counts, but a convolution or a matrix product overrides an
        elementwise operation before it.
        """
        if labels.depends_on_input:
            return
        for dim in dims:
            key = labels.block_key(dim)
            for leaf_axis in self.leaf_axes_of(labels.blocks[key]) if key else []:
                earlier = self.roles.get(leaf_axis)
                if earlier is None or (
                    role in (PRODUCER, CONSUMER) and earlier not in (PRODUCER, CONSUMER)
                ):
                    self.roles[leaf_axis] = role

    def note_product(
        self, num_runs: int, factors: Iterable[type_aliases.AtomIds]
    ) -> None:
        """Note the multiply-adds of a convolution or a matrix product."""
        total = self.position.num_runs * num_runs
        self.products.append(Product(total, tuple(factors)))

    def reason(self, why: str) -> str:
        """Return a reason for freezing that names the current equation."""
        return f"{why} ({self.position.description})"

    # Calls.

    @contextlib.contextmanager
    def rule(self) -> Generator[list[Frame], None, None]:
        """Apply a rule: yield the list that gets the frames of the jaxprs it calls.

        If the rule raises, discard the roles and products that it has noted.
        """
        outer, self._called = self._called, []
        num_products, roles = len(self.products), dict(self.roles)
        try:
            yield self._called
        except BaseException:
            del self.products[num_products:]
            self.roles = roles
            raise
        finally:
            self._called = outer

    def call(self, jaxpr: Any, arguments: Sequence[Labels]) -> list[Labels]:
        """Propagate labels through a jaxpr that the current equation calls."""
        num_products = len(self.products)
        with self.position.called_jaxpr():
            results, frame = self._propagate(self, jaxpr, arguments)
        self._called.append(frame)
        self._products_before_call = num_products
        return results

    def call_again(self, jaxpr: Any, arguments: Sequence[Labels]) -> list[Labels]:
        """Repeat the last call with other labels; products count once."""
        self._called.pop()
        del self.products[self._products_before_call :]
        return self.call(jaxpr, arguments)
