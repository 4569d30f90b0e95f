"""`Ranking`: the scored units of one target, whatever its structure."""

import abc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from swd_jax._allocation.exact_counts import PoolSparsities
from swd_jax._arrays.manual_sharding import Shards
from swd_jax._ranking.channel_summary import ChannelSummary
from swd_jax._ranking.kept_shares import KeptShares
from swd_jax._selection.warm_start import PreviousThresholds

Result = TypeVar("Result")


class Thresholds(NamedTuple):
    """The thresholds of all pools, and those of their leaves."""

    keys: list[jax.Array]
    """The sort key of each pool's threshold. shape=()"""
    leaf_thresholds: list[jax.Array]
    """The sort key below which each leaf's units are selected: the key of its pool, or
    a lower one where `min_kept` caps what the leaf may lose. shape=()"""
    counts_below: jax.Array
    """The number of weights of each pool strictly below the pool's threshold, of each
    leaf no more than `min_kept` lets it lose. uint64, shape=(pools, 4)"""
    counts_selected: jax.Array
    """The number of weights of each pool strictly below the thresholds of their leaves.
    uint64, shape=(pools, 4)"""
    num_passes: jax.Array
    """The number of passes over the leaves. shape=(), dtype=int32"""
    slack_widths: jax.Array
    """About how far apart two sort keys near each pool's threshold are that the slack
    separates; 0 without slack. shape=(pools,)"""


class Ranking(abc.ABC):
    """The scored units of one target, from which thresholds and masks follow. A pytree.

    `LeafRanking` has units within single leaves, `ChannelRanking` has channels that
    extend over several leaves. Transformations, `prune` and reports use this interface
    only. All masks that a ranking returns are masks of weights, in the leaves' shapes.

    Attributes:
      weights: the prunable leaves, without a gradient.
      dtype: the type in which scores are compared, at least float32.
      shards: how the leaves are sharded by hand, if they are.
    """

    weights: list[jax.Array]
    dtype: jnp.dtype
    shards: Shards | None = None

    @property
    def has_protected_weights(self) -> bool:
        """Whether there are weights that are never pruned, whatever their scores."""
        return False

    @property
    @abc.abstractmethod
    def num_thresholds(self) -> int:
        """The number of pools, which have one threshold each."""

    @abc.abstractmethod
    def pool_sizes(self) -> list[int]:
        """Return what each pool's sparsity is a fraction of, on all devices."""

    @abc.abstractmethod
    def budgets(self, sparsities: PoolSparsities) -> jax.Array:
        """Return k = floor(s n) of every pool: emulated uint64, shape (pools, 4)."""

    @abc.abstractmethod
    def find_thresholds(
        self,
        budgets: jax.Array,
        *,
        slack: jax.Array | None = None,
        previous: PreviousThresholds | None = None,
        refresh: jax.Array | None = None,
    ) -> Thresholds:
        """Return the greatest score of every pool below which the budget suffices.

        Args:
          budgets: k of every pool: emulated uint64, shape (pools, 4).
          slack: by how much less than k may be selected, in the form of the budgets.
            Any score that meets this may then be returned.
          previous: the previous thresholds, shape (pools,), where the search starts.
          refresh: bool, shape (): where it is False, the search is skipped and the
            previous thresholds are returned, with meaningless counts.
        """

    @abc.abstractmethod
    def masks_below(self, leaf_thresholds: Sequence[jax.Array]) -> list[jax.Array]:
        """Return the weights of every leaf whose units are below its threshold."""

    @abc.abstractmethod
    def map_exact_k(
        self, function: Callable[..., Result], budgets: jax.Array, *operands: Any
    ) -> list[Result]:
        """Apply a function to every leaf and the mask of its exactly-k pruned weights.

        Args:
          function: (weights, pruned, *operands) -> anything. It must be a function of a
            module, so that `jax.jit` compiles it once.
          budgets: k of every pool: emulated uint64, shape (pools, 4).
          *operands: passed to the function for every leaf.

        Returns:
          The results in the leaves' order. Outside of jit, masks are computed and used
          within one compiled program and are not stored.
        """

    @abc.abstractmethod
    def zero_masks(self, opaque_one: jax.Array) -> list[jax.Array]:
        """Return the weights of every leaf whose whole unit is exactly zero.

        Args:
          opaque_one: the integer 1 as a value that the compiler cannot fold; see
            `sort_keys.is_zero`.
        """

    @abc.abstractmethod
    def weight_scores(self) -> list[jax.Array]:
        """Return for every weight the score of the unit that it is pruned with."""

    @abc.abstractmethod
    def kept_shares(
        self,
        masks: Sequence[jax.Array],
        leaf_thresholds: Sequence[jax.Array],
        power: float,
    ) -> KeptShares:
        """Return what a continuous threshold leaves of every kept weight.

        Args:
          masks: the weights that are pruned, from `masks_below`.
          leaf_thresholds: the sort key of each leaf's threshold.
          power: see `kept_shares.kept_share`.
        """

    def kept_channels(self, budgets: jax.Array) -> dict[str, jax.Array]:
        """Return the channels that are kept, by channel group; {} without channels."""
        del budgets
        return {}

    def summary(self, budgets: jax.Array) -> ChannelSummary | None:
        """Return what a report adds for this structure; None for nothing."""
        del budgets
        return None
