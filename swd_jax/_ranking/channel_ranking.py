"""Coupled channels ranked under a target: the way from weights to masks of leaves."""

import dataclasses
import functools
from collections.abc import Sequence
from fractions import Fraction

import jax
import jax.numpy as jnp

from swd_jax._allocation import exact_counts
from swd_jax._arrays import sort_keys, uint64
from swd_jax._arrays.manual_sharding import undivided
from swd_jax._ranking import channel_order, channel_scores
from swd_jax._ranking.channel_layout import Layout
from swd_jax._ranking.leaf_ranking import Thresholds
from swd_jax._selection import warm_start
from swd_jax._selection.order_statistics import Groups
from swd_jax.criteria import _criterion


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["weights", "scores", "ties"],
    meta_fields=["layout", "dtype"],
)
@dataclasses.dataclass(frozen=True)
class ChannelRanking:
    """The channels of the prunable groups, ready to be ranked. A pytree.

    To those that ask it is what a `Ranking` is for leaves of their own. There is one
    threshold, whatever the scope.

    Attributes:
      weights: the leaves that lose channels.
      scores: of the channels, at least 0, shape (channels,): in a local scope, the part
        of their group that comes before them.
      ties: the greatest score of those channels that are as good: in a global scope
        their own.
      layout: where the channels lie.
      dtype: of the scores.
    """

    weights: list[jax.Array]
    scores: jax.Array
    ties: jax.Array
    layout: Layout
    dtype: jnp.dtype

    @property
    def groups(self) -> Groups:
        """All leaves are ranked together."""
        return (tuple(range(len(self.weights))),)

    def sizes(self) -> list[int]:
        """What the target is a fraction of."""
        return [self.layout.counting.total]

    def counts(self, sparsities: Sequence[Fraction | jax.Array]) -> jax.Array:
        """How much may go: a wide number, shape (1, 4)."""
        return jnp.stack(
            [
                exact_counts.pruned_count(s, self.layout.counting.total)
                for s in sparsities
            ]
        )

    @functools.partial(jax.jit)
    def thresholds(
        self,
        counts: jax.Array,
        *,
        last: warm_start.Last | None = None,
        renew: jax.Array | None = None,
    ) -> Thresholds:
        """The score below which channels go, of those that may.

        It is that of the first channel in their order that stays: what ties with it
        stays as well.

        Args:
          counts: how much may go: a wide number, shape (1, 4).
          last: where the threshold was, shape (1,).
          renew: where it is false, the last threshold is returned, or a lower one
            where that would take too much by now.
        """
        with jax.named_scope("swd_threshold"):
            cut = self._cut(counts[0])
            keys = jnp.where(cut.movable, sort_keys.to_key(self.scores), cut.largest)
            stays = jnp.where(cut.ranks < cut.count, cut.largest, keys)
            key = jnp.min(stays)
            if renew is not None and last is not None:
                [old] = sort_keys.to_key(last.thresholds)
                # Channels share weights: a score falls too when another channel goes.
                # What is below the old threshold may have become too much.
                key = jnp.where(renew, key, jnp.minimum(old, key))
        limits = [key] * len(self.weights)
        return Thresholds([key], limits, cut.lost[None], jnp.ones((), jnp.int32))

    def below(self, limits: Sequence[jax.Array]) -> list[jax.Array]:
        """Which weights belong to channels below the threshold that may go."""
        keys = sort_keys.to_key(self.ties)
        return self.leaf_masks((keys < limits[0]) & self._movable())

    def expanded(self, masks: Sequence[jax.Array]) -> list[jax.Array]:
        """Masks are of weights already."""
        return list(masks)

    def leaf_masks(self, channels: jax.Array) -> list[jax.Array]:
        """Which weights of every leaf belong to some channels, shape (channels,)."""
        return [
            self.layout.leaf_mask(number, channels, leaf)
            for number, leaf in enumerate(self.weights)
        ]

    def lost(self, counts: jax.Array) -> jax.Array:
        """The channels that go: bools, shape (channels,). Ties by their order."""
        cut = self._cut(counts[0])
        return cut.ranks < cut.count

    def alive(self, one: jax.Array) -> jax.Array:
        """The channels of which a leaf holds something: bools, shape (channels,)."""
        found = jnp.zeros(self.layout.size + 1, bool)
        for number, leaf in enumerate(self.weights):
            nonzero = ~sort_keys.is_zero(leaf, one)
            for axis, channel_of in self.layout.places[number]:
                others = [other for other in range(leaf.ndim) if other != axis]
                along = undivided(jnp.any(nonzero, axis=others))
                found = found.at[channel_of].max(along)
        return found[:-1]

    def zeros(self, one: jax.Array) -> list[jax.Array]:
        """Which weights of every leaf belong to channels of which nothing is left."""
        return self.leaf_masks(~self.alive(one))

    def lost_exactly(self, counts: jax.Array) -> list[jax.Array]:
        """Which weights of every leaf go with them."""
        return self.leaf_masks(self.lost(counts))

    def _cut(self, budget: jax.Array) -> "_Cut":
        movable = self._movable()
        largest = sort_keys.largest_key(self.dtype)
        keys = sort_keys.to_key(self.scores)
        keys = jnp.where(movable, keys, jnp.array(largest, keys.dtype))
        ranks = channel_order.of_last(self.layout, keys, channel_order.places([keys]))
        removable = jnp.sum(movable, dtype=jnp.int32)
        counting = self.layout.counting
        count = counting.longest_cut(ranks, removable, budget)
        # Channels that are zero already come first. If they leave less than a channel
        # to take, they are those that were pruned: what is left would only fit because
        # a cheaper channel has become the next.
        zeros = jnp.minimum(jnp.sum(keys == 0, dtype=jnp.int32), count)
        spare = uint64.subtract(budget, counting.lost(ranks, zeros))
        dearest = jnp.asarray(uint64.from_int(self.layout.dearest))
        settled = (zeros > 0) & uint64.less(spare, dearest)
        count = jnp.where(settled, zeros, count)
        lost = counting.lost(ranks, count)
        return _Cut(ranks, movable, count, lost, jnp.array(largest, keys.dtype))

    def _movable(self) -> jax.Array:
        """The channels that may go: not the best of a group, nor what is not finite."""
        layout, keys = self.layout, sort_keys.to_key(self.scores)
        place = channel_order.places_in_groups(layout, keys)
        most = layout.sizes - layout.of_channels(layout.least_kept)
        return (place < most) & (keys < sort_keys.largest_key(self.dtype))


@dataclasses.dataclass(frozen=True)
class _Cut:
    """Where the channels that go end."""

    ranks: jax.Array
    """The place of each channel in the order in which they go. shape=(channels,)"""
    movable: jax.Array
    """Which may go at all. shape=(channels,)"""
    count: jax.Array
    """How many go. shape=(), dtype=int32"""
    lost: jax.Array
    """What the model loses with them. Wide, shape=(4,)"""
    largest: jax.Array
    """The key of infinity. shape=()"""


# Compiled once for all calls, and outside of jit without all between.
@functools.partial(jax.jit, static_argnames=("layout", "criterion", "dtype", "local"))
def ranked_scores(
    layout: Layout,
    criterion: _criterion.Criterion,
    of_leaves: list[_criterion.Scored],
    dtype: jnp.dtype,
    local: bool,
) -> tuple[jax.Array, jax.Array]:
    """The scores of the channels and of those that tie with them.

    In a local scope these are their places in the groups.
    """
    scores = channel_scores.channel_scores(layout, criterion, of_leaves, dtype)
    # Channels that go together have the score of the last of them.
    scores = channel_order.of_last(layout, sort_keys.to_key(scores), scores)
    return _shares(layout, scores) if local else (scores, scores)


def _shares(layout: Layout, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The part of a group before each channel, and before the last one as good.

    What is not finite stays so.
    """
    keys = sort_keys.to_key(scores)
    place = channel_order.places([layout.group_of, keys])
    numbers = jnp.arange(len(place), dtype=jnp.int32)
    order = jnp.zeros_like(place).at[place].set(numbers)
    in_order, of_group = keys[order], jnp.asarray(layout.group_of)[order]
    ends = (in_order[1:] != in_order[:-1]) | (of_group[1:] != of_group[:-1])
    ends = jnp.concatenate([ends, jnp.ones(1, bool)])
    last = jax.lax.cummin(jnp.where(ends, numbers, len(place)), reverse=True)[place]
    sizes = layout.sizes.astype(scores.dtype)
    finite = keys < sort_keys.largest_key(scores.dtype)

    def share(places: jax.Array) -> jax.Array:
        return jnp.where(finite, places.astype(scores.dtype) / sizes, jnp.inf)

    return (
        share(channel_order.last_places(layout, place - layout.first)),
        share(last - layout.first),
    )
