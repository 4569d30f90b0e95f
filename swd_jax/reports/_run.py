"""`Run`: a run as far as a diagnosis knows it, and its parameters under the target."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from swd_jax._targets.resolve import RankedTarget, ResolvedTargets
from swd_jax.reports._measure_leaves import MeasuredLeaves, pruned_fraction

SETTLED_PART = 0.1
"""The part of a run after which its warmup is over: before, the last step says little
of those to come."""


class Run(NamedTuple):
    """A run as far as it is known, and its parameters under the final target."""

    total: int | None
    """The number of optimizer steps."""
    is_given: bool
    """Whether the caller has given it, so that it counts more than the states'."""
    resolved: ResolvedTargets
    ranked_targets: Sequence[RankedTarget]
    budgets: Sequence[jax.Array]
    leaves: MeasuredLeaves
    extra_args: Mapping[str, Any] | None

    @property
    def final_fraction(self) -> float:
        """The share of what the targets count that is pruned in the end."""
        return pruned_fraction(self.ranked_targets, self.budgets)

    @property
    def weights(self) -> int:
        """The number of prunable weights."""
        return sum(row.weights for row in self.leaves.rows)

    @property
    def zero_fraction(self) -> float:
        """The share of them that is zero."""
        return sum(row.zeros for row in self.leaves.rows) / max(self.weights, 1)
