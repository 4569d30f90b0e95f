"""`ChannelRanking`: the scored channels of one target, which span several leaves."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._allocation import exact_counts
from swd_jax._arrays import sort_keys, uint64
from swd_jax._arrays.explicit_sharding import replicate
from swd_jax._ranking import channel_order, channel_summary
from swd_jax._ranking.channel_layout import ChannelLayout
from swd_jax._ranking.channel_summary import ChannelSummary
from swd_jax._ranking.kept_shares import KeptShares, kept_share
from swd_jax._ranking.ranking import Ranking, Result, Thresholds
from swd_jax._selection import warm_start


class Cut(NamedTuple):
    """The channels that a budget removes."""

    ranks: jax.Array
    """Each channel's rank in the order of removal. shape=(channels,)"""
    is_movable: jax.Array
    """The channels that may be removed at all. shape=(channels,)"""
    num_removed: jax.Array
    """The number of channels to remove. shape=(), dtype=int32"""
    cost: jax.Array
    """The cost that their removal saves. uint64, shape=(4,)"""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["weights", "scores", "tie_scores", "magnitudes"],
    meta_fields=["layout", "dtype", "is_local"],
)
@dataclasses.dataclass(frozen=True)
class ChannelRanking(Ranking):
    """The scored channels of one target. A pytree.

    There is one pool and one threshold, whatever the scope, since channels of all
    leaves share one budget.

    Attributes:
      weights: the leaves that lose channels.
      scores: the numbers that order the channels, at least 0, shape (channels,). With a
        local scope: the share of its channel group ranked before each channel.
      tie_scores: the greatest of the `scores` of the channels that tie with each. With
        a global scope: the scores.
      magnitudes: the scores by the structure's norm, shape (channels,); None where they
        may be negative. With a global scope: the scores.
      layout: where the channels lie.
      dtype: the type of the scores.
      is_local: whether channels are ranked within their channel groups.
    """

    weights: list[jax.Array]
    scores: jax.Array
    tie_scores: jax.Array
    magnitudes: jax.Array | None
    layout: ChannelLayout
    dtype: jnp.dtype
    is_local: bool

    @property
    def num_thresholds(self) -> int:
        """One: all channels are in one pool."""
        return 1

    def pool_sizes(self) -> list[int]:
        """Return the cost of the whole model."""
        return [self.layout.cost_model.total]

    def budgets(self, sparsities: exact_counts.PoolSparsities) -> jax.Array:
        """Return the cost that may be removed: emulated uint64, shape (1, 4)."""
        total = self.layout.cost_model.total
        return exact_counts.pruned_counts(sparsities, [total])

    def find_thresholds(
        self,
        budgets: jax.Array,
        *,
        slack: jax.Array | None = None,
        previous: warm_start.PreviousThresholds | None = None,
        refresh: jax.Array | None = None,
    ) -> Thresholds:
        """Return the score of the first channel, in their order, that is kept.

        Channels that tie with it are kept as well. Where `refresh` is False, the
        previous threshold is returned, or a lower one where it would remove too much.
        The slack is not used: the order of the channels is known after one reading of
        the weights.
        """
        del slack
        return _find_thresholds(self, budgets, previous, refresh)

    def masks_below(self, leaf_thresholds: Sequence[jax.Array]) -> list[jax.Array]:
        """Return the weights of movable channels below the threshold."""
        keys = sort_keys.to_key(self.tie_scores)
        return self.leaf_masks((keys < leaf_thresholds[0]) & self._is_movable())

    def map_exact_k(
        self, function: Callable[..., Result], budgets: jax.Array, *operands: Any
    ) -> list[Result]:
        """Apply a function to every leaf and the mask of its removed channels."""
        return _map_exact_k(function, self, budgets, operands)

    def removed_channels(self, budgets: jax.Array) -> jax.Array:
        """Return the channels that a budget removes: bools, shape (channels,)."""
        cut = self.cut(budgets[0])
        return cut.ranks < cut.num_removed

    def kept_channels(self, budgets: jax.Array) -> dict[str, jax.Array]:
        """Return the channels that are kept: bools, shape (channels of the group,)."""
        kept = ~_removed_channels(self, budgets)
        return {group.name: kept[place] for group, place in self.layout.slices()}

    def zero_masks(self, opaque_one: jax.Array) -> list[jax.Array]:
        """Return the weights of every leaf whose whole channel is exactly zero."""
        return self.leaf_masks(~self.is_nonzero(opaque_one))

    def is_nonzero(self, opaque_one: jax.Array) -> jax.Array:
        """Return the channels with a weight that is not zero: shape (channels,)."""
        # One more entry collects the positions that belong to no channel.
        is_nonzero = jnp.zeros(self.layout.num_channels + 1, bool)
        for leaf, array in enumerate(self.weights):
            mask = ~sort_keys.is_zero(array, opaque_one)
            for axis, channel_at in self.layout.places[leaf]:
                other_axes = [other for other in range(array.ndim) if other != axis]
                along_axis = replicate(jnp.any(mask, axis=other_axes))
                is_nonzero = is_nonzero.at[channel_at].max(along_axis)
        return is_nonzero[:-1]

    def weight_scores(self) -> list[jax.Array]:
        """Return for every weight the lowest score of the channels it belongs to."""
        return [
            self.layout.min_over_channels(leaf, self.tie_scores, array)
            for leaf, array in enumerate(self.weights)
        ]

    def kept_shares(
        self,
        masks: Sequence[jax.Array],
        leaf_thresholds: Sequence[jax.Array],
        power: float,
    ) -> KeptShares:
        """Return what a continuous threshold leaves of every kept weight.

        A weight has the lowest factor of the channels that it belongs to.
        """
        del masks
        if self.magnitudes is None:
            return KeptShares(
                [jnp.ones_like(array, self.dtype) for array in self.weights]
            )
        keys = sort_keys.to_key(self.tie_scores)
        removed = (keys < leaf_thresholds[0]) & self._is_movable()
        groups = jnp.asarray(self.layout.group_of_channel)
        num_groups = len(self.layout.min_channels)
        pruned = jnp.where(removed, self.magnitudes, 0)
        of_group = jax.ops.segment_max(pruned, groups, num_groups)
        if self.is_local:
            largest_pruned = of_group[groups]
        else:
            # A group at its floor keeps channels that score less than others lose.
            highest = jnp.max(pruned)
            kept = jnp.where(removed, jnp.inf, self.magnitudes)
            lowest_kept = jax.ops.segment_min(kept, groups, num_groups)
            of_group = jnp.where(lowest_kept > highest, highest, of_group)
            largest_pruned = of_group[groups]
        shares = kept_share(self.magnitudes, largest_pruned, power)
        return KeptShares(
            [
                jnp.minimum(self.layout.min_over_channels(leaf, shares, array), 1)
                for leaf, array in enumerate(self.weights)
            ]
        )

    def summary(self, budgets: jax.Array) -> ChannelSummary:
        """Return the channels that are zero now and those that `prune` would remove."""
        removed, is_zero = jax.device_get(
            _removed_and_zero(self, budgets, np.uint32(1))
        )
        return channel_summary.summarize_channels(self.layout, removed, is_zero)

    def leaf_masks(self, channels: jax.Array) -> list[jax.Array]:
        """Return the weights of every leaf that belong to some channels."""
        return [
            self.layout.leaf_mask(leaf, channels, array)
            for leaf, array in enumerate(self.weights)
        ]

    def cut(self, budget: jax.Array) -> Cut:
        """Return the channels that a budget removes: uint64, shape (4,)."""
        is_movable = self._is_movable()
        keys = self.movable_keys(is_movable)
        ranks = channel_order.value_of_bundle_end(
            self.layout, keys, channel_order.rank_by([keys])
        )
        removable = jnp.sum(is_movable, dtype=jnp.int32)
        cost_model = self.layout.cost_model
        count = cost_model.max_removable(ranks, removable, budget)
        # Pruning a pruned model must change nothing. Zero channels are ranked first. A
        # budget that is smaller than a bundle's cost once they are removed was used up
        # by an earlier `prune`: without this rule a cheaper channel further back in the
        # order might still fit.
        num_zero = jnp.minimum(jnp.sum(keys == 0, dtype=jnp.int32), count)
        remaining = uint64.subtract(budget, cost_model.removed(ranks, num_zero))
        bundle_cost = jnp.asarray(uint64.from_int(self.layout.max_bundle_cost))
        is_pruned = (num_zero > 0) & uint64.less(remaining, bundle_cost)
        count = jnp.where(is_pruned, num_zero, count)
        return Cut(ranks, is_movable, count, cost_model.removed(ranks, count))

    def movable_keys(self, is_movable: jax.Array) -> jax.Array:
        """Return the keys of the scores, the largest one for channels to keep."""
        keys = sort_keys.to_key(self.scores)
        largest = jnp.array(sort_keys.largest_key(self.dtype), keys.dtype)
        return jnp.where(is_movable, keys, largest)

    def _is_movable(self) -> jax.Array:
        """Return the channels that may be removed.

        They have finite scores, and are not among the best `min_channels` of a group.
        """
        layout, keys = self.layout, sort_keys.to_key(self.scores)
        ranks = channel_order.rank_in_group(layout, keys)
        min_channels = layout.repeat_per_channel(layout.min_channels)
        is_finite = keys < sort_keys.largest_key(self.dtype)
        return (ranks < layout.group_sizes - min_channels) & is_finite


@jax.jit
def _find_thresholds(
    ranking: ChannelRanking,
    budgets: jax.Array,
    previous: warm_start.PreviousThresholds | None,
    refresh: jax.Array | None,
) -> Thresholds:
    with jax.named_scope("swd_threshold"):
        cut = ranking.cut(budgets[0])
        keys = ranking.movable_keys(cut.is_movable)
        largest = jnp.array(sort_keys.largest_key(ranking.dtype), keys.dtype)
        kept_keys = jnp.where(cut.ranks < cut.num_removed, largest, keys)
        key = jnp.min(kept_keys)
        if refresh is not None and previous is not None:
            [previous_key] = sort_keys.to_key(previous.thresholds)
            # Channels share weights, so the decay of one lowers the scores of others:
            # by now the previous threshold may exceed the budget.
            key = jnp.where(refresh, key, jnp.minimum(previous_key, key))
    leaf_thresholds = [key] * len(ranking.weights)
    return Thresholds(
        [key],
        leaf_thresholds,
        cut.cost[None],
        cut.cost[None],
        num_passes=jnp.ones((), jnp.int32),
        slack_widths=jnp.zeros_like(key)[None],
    )


@functools.partial(jax.jit, static_argnames="function")
def _map_exact_k(
    function: Callable[..., Result],
    ranking: ChannelRanking,
    budgets: jax.Array,
    operands: tuple[Any, ...],
) -> list[Result]:
    masks = ranking.leaf_masks(ranking.removed_channels(budgets))
    pairs = zip(ranking.weights, masks, strict=True)
    return [function(weights, pruned, *operands) for weights, pruned in pairs]


@jax.jit
def _removed_channels(ranking: ChannelRanking, budgets: jax.Array) -> jax.Array:
    return ranking.removed_channels(budgets)


@jax.jit
def _removed_and_zero(
    ranking: ChannelRanking, budgets: jax.Array, opaque_one: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return ranking.removed_channels(budgets), ~ranking.is_nonzero(opaque_one)
