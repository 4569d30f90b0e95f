"""`AbstractStructure`: everything that a target asks of its structure."""

import abc
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

from jax.typing import ArrayLike

from swd_jax._allocation.allocation import Allocation
from swd_jax._allocation.exact_counts import PoolSparsities
from swd_jax._allocation.prunable_leaves import Prunable, PrunableLeaf
from swd_jax._arrays import tree_paths
from swd_jax._arrays.manual_sharding import AxisName
from swd_jax._ranking.ranking import Ranking
from swd_jax.criteria._criterion import Criterion, ExtraInputs


class StructuredLeaves(NamedTuple):
    """The leaves that a target prunes, and how its structure divides them."""

    leaves: list[PrunableLeaf]
    layout: Any
    """The structure's own description of the leaves, passed back to it. Hashable."""
    num_thresholds: int
    left_by_name: tuple[str, ...] = ()
    """The paths of leaves that the default leaves dense because of their names."""


class AbstractStructure(abc.ABC, Hashable):
    """A structure as targets use it. A new structure is one concrete class in one file.

    A target calls `check_allocation` when it is constructed, and `find_leaves` and
    `for_leaves` once for every tree of parameters that it meets. A transformation calls
    `check_leaves` in `init`. Whatever needs thresholds or masks calls `rank`.

    `LeafStructure` implements the abstract ones for structures whose units lie within
    single leaves.
    """

    def for_tpu(self) -> "AbstractStructure":
        """Return the structure in a form that suits a TPU's memory, or itself.

        It selects the same weights, to the bit.
        """
        return self

    def for_leaves(
        self, leaves: Sequence[PrunableLeaf], tree: tree_paths.FlatTree, params: Any
    ) -> "AbstractStructure":
        """Return the structure with what it has to know of its leaves, or itself.

        Args:
          leaves: what `find_leaves` found.
          tree: the parameters, flattened.
          params: the same parameters as a tree.

        Raises:
          ValueError: if the structure cannot tell how a leaf is divided.
        """
        del leaves, tree, params
        return self

    @abc.abstractmethod
    def check_allocation(self, allocation: Allocation) -> None:
        """Raise a ValueError if the structure cannot meet a target, whatever the tree.

        Values that are traced are not checked.
        """

    @abc.abstractmethod
    def find_leaves(
        self,
        prunable: Prunable,
        allocation: Allocation,
        tree: tree_paths.FlatTree,
        params: Any,
    ) -> StructuredLeaves:
        """Return the prunable leaves of a tree, in its order; none of an empty tree.

        Args:
          prunable: the target's rule for leaves.
          allocation: the target's sparsity and scope.
          tree: the parameters, flattened.
          params: the same parameters as a tree.

        Raises:
          ValueError: if the target does not fit the parameters.
        """

    @abc.abstractmethod
    def check_leaves(
        self, allocation: Allocation, structured: StructuredLeaves
    ) -> None:
        """Raise a ValueError if the leaves cannot be divided, or cannot become sparse.

        The leaves may be abstract (`jax.ShapeDtypeStruct`).
        """

    @abc.abstractmethod
    def sparsities(
        self,
        allocation: Allocation,
        structured: StructuredLeaves,
        step: ArrayLike | None,
    ) -> PoolSparsities:
        """Return the sparsity of every pool at an optimizer step.

        Raises:
          ValueError: if a schedule has no final value and no step is given, or if more
            is asked for than the leaves can lose.
        """

    @abc.abstractmethod
    def rank(
        self,
        allocation: Allocation,
        criterion: Criterion,
        structured: StructuredLeaves,
        extra_inputs: Sequence[ExtraInputs],
        axis_name: AxisName,
    ) -> Ranking:
        """Return the scored units of at least one leaf.

        Args:
          allocation: the target's scope and `min_kept`.
          criterion: the scoring rule of single weights.
          structured: what `find_leaves` returned.
          extra_inputs: the criterion's inputs besides the weights, leaf by leaf.
          axis_name: the mesh axes over which the leaves are sharded by hand.
        """
