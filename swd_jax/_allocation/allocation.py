"""`Allocation`: how much is pruned of which leaves, as a structure is told of it."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

from jax.typing import ArrayLike

from swd_jax._allocation import scopes
from swd_jax._allocation.exact_counts import PoolSparsities
from swd_jax._allocation.scopes import Scope
from swd_jax._allocation.sparsity_values import Sparsity
from swd_jax._selection.order_statistics import Pools


@dataclasses.dataclass(frozen=True)
class Allocation:
    """The sparsity of a target, and how its leaves share it.

    Attributes:
      sparsity: the fraction to prune, or a schedule of it.
      scope: which leaves are ranked together.
      min_kept: the number of weights, or the fraction, that every leaf keeps.
    """

    sparsity: Sparsity
    scope: Scope
    min_kept: int | Fraction

    def all_sparsities(self) -> list[Sparsity]:
        """Return the target's sparsity and those of a mapping of patterns."""
        if isinstance(self.scope, Mapping):
            return [self.sparsity, *self.scope.values()]
        return [self.sparsity]

    def pool_sparsities(
        self, step: ArrayLike | None, shapes: Sequence[tuple[int, ...]], pools: Pools
    ) -> PoolSparsities:
        """Return the sparsity of every pool of leaves at an optimizer step.

        Args:
          step: the optimizer step; None for the values on which schedules settle.
          shapes: the shapes of the unsharded leaves.
          pools: the positions of the leaves that share a threshold.
        """
        return scopes.pool_sparsities(self.scope, self.sparsity, step, shapes, pools)

    def min_kept_of_leaf(self, size: int) -> int:
        """Return the number of weights that a leaf of this size keeps at least."""
        if isinstance(self.min_kept, int):
            return self.min_kept
        return math.ceil(self.min_kept * size)
