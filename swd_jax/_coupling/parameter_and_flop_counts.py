"""Numbers of parameters and floating-point operations as functions of the channels."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from swd_jax._coupling import channel_groups, type_aliases
from swd_jax._coupling.channel_groups import Cost, Extent
from swd_jax._coupling.coupling_analysis import CouplingAnalysis


class ExtentCounter:
    """Counts how many positions of an axis belong to each channel."""

    def __init__(
        self,
        analysis: CouplingAnalysis,
        channel_roots: Sequence[type_aliases.AtomIds],
    ) -> None:
        """Store the root of each channel's atoms, by channel group."""
        self._atoms = analysis.atoms
        self._sizes = [len(roots) for roots in channel_roots]
        self._channel_of_root = {
            root: (number, channel)
            for number, roots in enumerate(channel_roots)
            for channel, root in enumerate(roots.tolist())
        }

    def count(self, ids: type_aliases.AtomIds) -> Extent:
        """Return the extent of an axis that has these atoms."""
        positions: dict[int, type_aliases.Ints] = {}
        fixed = 0
        roots, counts = np.unique(self._atoms.roots(ids), return_counts=True)
        for root, count in zip(roots.tolist(), counts.tolist(), strict=True):
            if root not in self._channel_of_root:
                fixed += count
                continue
            number, channel = self._channel_of_root[root]
            positions.setdefault(number, np.zeros(self._sizes[number], np.int64))
            positions[number][channel] += count
        return Extent(fixed, tuple((n, positions[n]) for n in sorted(positions)))


def parameter_costs(
    analysis: CouplingAnalysis,
    counter: ExtentCounter,
    entries: Sequence[tuple[int, str, Any]],
    no_parameters: set[str],
) -> tuple[Cost, ...]:
    """Return the number of weights of each leaf that counts as parameters.

    The paths in `no_parameters` and leaves that are not floating-point do not count;
    tied leaves are one object in `entries`, and count once.
    """
    extents = {
        (leaf, axis): counter.count(ids)
        for leaf, axis, ids in analysis.leaf_axis_atoms()
    }
    costs: list[Cost] = []
    counted: set[int] = set()
    for leaf, (_, path, array) in enumerate(entries):
        floating = jax.numpy.issubdtype(array.dtype, np.floating)
        if floating and path not in no_parameters and id(array) not in counted:
            axes = [
                extents.get((leaf, axis), Extent(size, ()))
                for axis, size in enumerate(array.shape)
            ]
            costs.append(channel_groups.make_cost(1, axes))
        counted.add(id(array))
    return tuple(costs)


def flop_costs(analysis: CouplingAnalysis, counter: ExtentCounter) -> tuple[Cost, ...]:
    """Return the operations of each product, 2 for each multiply-add."""
    return tuple(
        channel_groups.make_cost(
            2 * product.num_runs, [counter.count(ids) for ids in product.factors]
        )
        for product in analysis.products
    )


def removed_with_each(
    costs: Sequence[Cost], group: int, size: int
) -> type_aliases.Ints:
    """Return what is removed with each channel alone, shape (size,).

    Args:
      costs: of all leaves, or of all products.
      group: the number of the channel group.
      size: how many channels the channel group has.
    """
    removed = np.zeros(size, np.int64)
    for cost in costs:
        full = cost.times
        remaining: Any = cost.times
        for extent in cost.extents:
            positions = dict(extent.channel_positions).get(group, 0)
            full *= extent.size
            remaining = remaining * (extent.size - positions)
        removed += full - remaining
    return removed
