"""`ScoredUnits`: units of several leaves with sort keys, and their thresholds."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import exact_sums, sort_keys, uint64
from swd_jax._arrays.manual_sharding import Shards
from swd_jax._ranking import min_kept_caps
from swd_jax._ranking.ranking import Thresholds
from swd_jax._ranking.user_structure_protocol import Structure
from swd_jax._selection import order_statistics, warm_start


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["inputs"],
    meta_fields=[
        "key",
        "structure",
        "shapes",
        "pools",
        "dtype",
        "trailing_zero_bits",
        "min_kept",
        "shards",
        "runs_once",
    ],
)
@dataclasses.dataclass(frozen=True)
class ScoredUnits:
    """The units of some leaves, as the selection engine counts them. A pytree.

    Attributes:
      inputs: what `key` takes of each leaf.
      key: from the inputs of a leaf to the sort keys of its units. It must be hashable,
        since it is a static argument of compiled functions.
      structure: the units' sizes.
      shapes: the shapes of the leaves, or of a device's shards of them.
      pools: the positions of the leaves that share a threshold.
      dtype: the type of the scores, float32 or float64.
      trailing_zero_bits: how many of the lowest bits are zero in all keys.
      min_kept: the number of weights that each leaf keeps at least; None for no limit.
      shards: how the leaves are sharded by hand, if they are.
      runs_once: whether the program that finds thresholds is to compile quickly, rather
        than to run quickly.
    """

    inputs: list[Any]
    key: Callable[[Any], jax.Array]
    structure: Structure
    shapes: tuple[tuple[int, ...], ...]
    pools: order_statistics.Pools
    dtype: jnp.dtype
    trailing_zero_bits: int = 0
    min_kept: tuple[int, ...] | None = None
    shards: Shards | None = None
    runs_once: bool = False

    @property
    def pool_of_leaf(self) -> list[int]:
        """The pool of each leaf."""
        pool_of = {leaf: n for n, pool in enumerate(self.pools) for leaf in pool}
        return [pool_of[leaf] for leaf in range(len(self.shapes))]

    @property
    def unit_sizes(self) -> list[exact_sums.Cost]:
        """The number of weights of each unit, leaf by leaf; None where it is 1."""
        sizes = [self.structure.sizes(shape) for shape in self.shapes]
        return [None if isinstance(n, int) and n == 1 else n for n in sizes]

    def leaf_size(self, leaf: int) -> int:
        """Return the number of weights of a leaf, on all devices together."""
        num_shards = 1 if self.shards is None else self.shards.num_shards(leaf)
        return int(np.prod(self.shapes[leaf], dtype=object)) * num_shards

    def pool_sizes(self) -> list[int]:
        """Return the number of weights of each pool, on all devices together."""
        return [sum(map(self.leaf_size, pool)) for pool in self.pools]

    @property
    def max_pruned(self) -> jax.Array | None:
        """The cap of each leaf: emulated uint64, shape (leaves, 4); None for no cap."""
        if self.min_kept is None:
            return None
        leaf_sizes = list(map(self.leaf_size, range(len(self.shapes))))
        caps = min_kept_caps.leaf_caps(leaf_sizes, self.min_kept, self.unit_sizes)
        return jnp.asarray(caps)

    # Compiled once for all steps, even in a training loop that is not jitted.
    @jax.jit
    def find_thresholds(
        self,
        budgets: jax.Array,
        *,
        slack: jax.Array | None = None,
        previous: warm_start.PreviousThresholds | None = None,
        refresh: jax.Array | None = None,
    ) -> Thresholds:
        """Return the thresholds, as `Ranking.find_thresholds`."""
        previous_keys = None
        if previous is not None:
            previous_keys = sort_keys.to_key(previous.thresholds)
        with jax.named_scope("swd_threshold"):
            statistics = self._search(
                self.pools,
                budgets,
                warm_start.initial_candidates(
                    previous, self.dtype, self._key_range(), len(self.pools)
                ),
                caps=self.max_pruned,
                slack=slack,
                refresh=refresh,
                previous_keys=previous_keys,
            )
            leaf_thresholds = [statistics.keys[pool] for pool in self.pool_of_leaf]
            counts_selected = statistics.counts_below
            if self.min_kept is not None:
                capped = self._capped_thresholds(leaf_thresholds)
                pairs = zip(leaf_thresholds, capped, strict=True)
                leaf_thresholds = [jnp.minimum(*pair) for pair in pairs]
                # A leaf at its cap keeps all of its ties, which count up to the cap.
                below = self._counts_below(leaf_thresholds)
                of_pools = [below[np.array(pool)] for pool in self.pools]
                counts_selected = jnp.stack(list(map(uint64.sum_short_axis, of_pools)))
        return Thresholds(
            statistics.keys,
            leaf_thresholds,
            statistics.counts_below,
            counts_selected,
            statistics.num_passes,
            statistics.slack_widths,
        )

    def _capped_thresholds(self, leaf_thresholds: list[jax.Array]) -> list[jax.Array]:
        """Return the key of each leaf below which it loses as much as its cap.

        Only leaves that exceed their cap are searched. The others get the largest key,
        which sets no further limit.
        """
        caps = self.max_pruned
        assert caps is not None
        below = self._counts_below(leaf_thresholds)
        key_range = self._key_range()
        largest = jnp.full(
            len(leaf_thresholds), key_range.largest, sort_keys.key_dtype(self.dtype)
        )
        statistics = self._search(
            tuple((leaf,) for leaf in range(len(leaf_thresholds))),
            caps,
            warm_start.candidates_below(jnp.stack(leaf_thresholds), key_range),
            caps=None,
            slack=None,
            refresh=uint64.less(caps, below),
            previous_keys=largest,
        )
        return statistics.keys

    def _counts_below(self, leaf_thresholds: Sequence[jax.Array]) -> jax.Array:
        """Return how many weights each leaf has below its key: uint64, (leaves, 4)."""
        masks = [[mask] for mask in self.masks_below(leaf_thresholds)]
        return exact_sums.count_true(masks, self.unit_sizes, self.shards)[:, 0]

    def _search(
        self,
        pools: order_statistics.Pools,
        budgets: jax.Array,
        candidates: jax.Array,
        *,
        caps: jax.Array | None,
        slack: jax.Array | None,
        refresh: jax.Array | None,
        previous_keys: jax.Array | None,
    ) -> order_statistics.OrderStatistics:
        return order_statistics.find_order_statistics(
            self.key,
            self.inputs,
            pools,
            budgets,
            self._key_range(),
            initial_candidates=candidates,
            costs=self.unit_sizes,
            caps=caps,
            slack=slack,
            refresh=refresh,
            previous_keys=previous_keys,
            shards=self.shards,
            runs_once=self.runs_once,
        )

    def _key_range(self) -> order_statistics.KeyRange:
        return order_statistics.KeyRange(
            largest=sort_keys.largest_key(self.dtype),
            trailing_zero_bits=self.trailing_zero_bits,
            interpolation_bits=jnp.finfo(self.dtype).nmant,
        )

    def masks_below(self, leaf_thresholds: Sequence[jax.Array]) -> list[jax.Array]:
        """Return the units of each leaf whose scores are strictly below its key."""
        pairs = zip(self.inputs, leaf_thresholds, strict=True)
        return [self.key(inputs) < threshold for inputs, threshold in pairs]
