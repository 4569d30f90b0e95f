"""`LeafRanking`: the scored weights of one target, in units within single leaves."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from swd_jax._allocation import exact_counts
from swd_jax._arrays import exact_sums, sort_keys, uint64, xla_cpu
from swd_jax._arrays.explicit_sharding import reshard_like
from swd_jax._arrays.manual_sharding import Shards
from swd_jax._ranking import exact_k
from swd_jax._ranking.kept_shares import KeptShares, kept_share
from swd_jax._ranking.ranking import Ranking, Result, Thresholds
from swd_jax._ranking.unit_thresholds import ScoredUnits
from swd_jax._ranking.user_structure_protocol import Structure
from swd_jax._selection import order_statistics, warm_start
from swd_jax.criteria import _criterion
from swd_jax.criteria._magnitudes import magnitude


class StructureOfLeaves(Structure, Protocol):
    """A structure that may divide leaves in different ways."""

    def of_leaf(self, number: int) -> Structure:
        """Return the structure of one leaf."""
        ...


@dataclasses.dataclass(frozen=True)
class _WeightKey:
    """The sort key of single weights, computed from the weights in every pass."""

    criterion: _criterion.Criterion
    dtype: jnp.dtype
    structure: Any

    def __call__(self, inputs: Any) -> jax.Array:
        weights, statistic, extra_inputs, protected = inputs
        scores = _criterion.nonnegative_scores(
            self.criterion, weights, statistic, extra_inputs, self.dtype
        )
        keys = sort_keys.to_key(scores)
        if protected is None:
            return keys
        is_protected = self.structure.protected_mask(protected, weights)
        # As a key, the infinity is nothing that `jax_debug_infs` raises at.
        return jnp.where(is_protected, sort_keys.largest_key(self.dtype), keys)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["weights", "statistics", "extra_inputs", "unit_scores", "protected"],
    meta_fields=["criterion", "structure", "dtype", "pools", "min_kept", "shards"],
)
@dataclasses.dataclass(frozen=True)
class LeafRanking(Ranking):
    """The scored weights of one target, in units within single leaves. A pytree.

    Attributes:
      weights: the leaves.
      statistics: per-leaf `criterion.statistics`, such as 1 / L2 norm. They are
        computed once a step, so that every pass sees bit-identical scores.
      criterion: the scoring rule.
      dtype: the type in which scores are compared, at least float32.
      pools: the positions in `weights` of the leaves that share a threshold.
      extra_inputs: the criterion's inputs besides the weights, leaf by leaf.
      structure: the division of a leaf into units.
      unit_scores: the scores of each leaf's units, where they are stored; None where
        every weight is a unit and its score is computed in each pass.
      protected: the weights of each leaf that the structure never prunes, as its
        `protected_mask` takes them; None if it may prune all.
      min_kept: the number of weights that each leaf keeps at least.
      shards: how the leaves are sharded by hand, if they are.
    """

    weights: list[jax.Array]
    statistics: list[Any]
    criterion: _criterion.Criterion
    dtype: jnp.dtype
    pools: order_statistics.Pools
    extra_inputs: list[_criterion.ExtraInputs]
    structure: StructureOfLeaves
    unit_scores: list[jax.Array] | None = None
    protected: list[jax.Array] | None = None
    min_kept: tuple[int, ...] | None = None
    shards: Shards | None = None

    @property
    def has_protected_weights(self) -> bool:
        """Whether the structure never prunes some of the weights."""
        return self.protected is not None

    @property
    def num_thresholds(self) -> int:
        """The number of pools."""
        return len(self.pools)

    @property
    def units(self) -> ScoredUnits:
        """The units as the selection engine counts them."""
        if self.unit_scores is not None:
            inputs: list[Any] = list(self.unit_scores)
            key, trailing_zero_bits = sort_keys.to_key, 0
        else:
            protected = self.protected or [None] * len(self.weights)
            pairs = zip(self.score_inputs, protected, strict=True)
            inputs = [(*score_inputs, mask) for score_inputs, mask in pairs]
            key = _WeightKey(self.criterion, self.dtype, self.structure)
            trailing_zero_bits = self._trailing_zero_bits()
        return ScoredUnits(
            inputs,
            key,
            self.structure,
            shapes=tuple(leaf.shape for leaf in self.weights),
            pools=self.pools,
            dtype=self.dtype,
            trailing_zero_bits=trailing_zero_bits,
            min_kept=self.min_kept,
            shards=self.shards,
        )

    def _trailing_zero_bits(self) -> int:
        """Return how many of the lowest mantissa bits are zero in all scores."""
        if not self.criterion.preserves_mantissa_bits:
            return 0
        widest = max((jnp.finfo(leaf.dtype).nmant for leaf in self.weights), default=0)
        return jnp.finfo(self.dtype).nmant - widest

    @property
    def score_inputs(self) -> list[_criterion.ScoreInputs]:
        """The arguments of the criterion's score, leaf by leaf."""
        inputs = zip(self.weights, self.statistics, self.extra_inputs, strict=True)
        return list(inputs)

    def pool_sizes(self) -> list[int]:
        """Return the number of weights of each pool, on all devices together."""
        return self.units.pool_sizes()

    def budgets(self, sparsities: exact_counts.PoolSparsities) -> jax.Array:
        """Return k = floor(s n) of every pool."""
        return exact_counts.pruned_counts(sparsities, self.pool_sizes())

    def find_thresholds(
        self,
        budgets: jax.Array,
        *,
        slack: jax.Array | None = None,
        previous: warm_start.PreviousThresholds | None = None,
        refresh: jax.Array | None = None,
    ) -> Thresholds:
        """Return the greatest score of every pool below which the budget suffices."""
        return self.units.find_thresholds(
            budgets, slack=slack, previous=previous, refresh=refresh
        )

    def masks_below(self, leaf_thresholds: Sequence[jax.Array]) -> list[jax.Array]:
        """Return the weights of every leaf whose units are below its threshold."""
        return self._expand(self.units.masks_below(leaf_thresholds))

    def _expand(self, units: Sequence[jax.Array]) -> list[jax.Array]:
        """Return for every weight the entry of its unit: a mask, a score or a share."""
        if self.unit_scores is None:
            return list(units)
        return [
            reshard_like(self.structure.expand(entries, leaf.shape), leaf)
            for entries, leaf in zip(units, self.weights, strict=True)
        ]

    def map_exact_k(
        self, function: Callable[..., Result], budgets: jax.Array, *operands: Any
    ) -> list[Result]:
        """Apply a function to every leaf and the mask of its exactly-k pruned weights.

        Under jit, tie cutoffs are searched for in all leaves. Outside of jit they are
        searched for only in the leaves that lose a part of their ties.
        """
        if not self.weights:
            return []
        is_traced = any(isinstance(leaf, Tracer) for leaf in self.weights)
        units = dataclasses.replace(self.units, runs_once=not is_traced)
        exact = _find_thresholds_with_ties(units, budgets)
        if isinstance(exact.num_ties_to_take, Tracer):
            return _map_exact_k(function, self, exact, operands)
        leaf_thresholds, quotas = exact_k.thresholds_past_ties(self.units, exact)
        results = _map_below(function, self, leaf_thresholds, operands)
        for leaf, quota in quotas.items():
            exact_of_leaf = exact_k.ExactK(
                [exact.leaf_thresholds[leaf]], jnp.asarray(quota)[None]
            )
            ranking = self._single_leaf(leaf)
            [results[leaf]] = _map_exact_k(function, ranking, exact_of_leaf, operands)
        return results

    def exact_k_masks(self, exact: exact_k.ExactK) -> list[jax.Array]:
        """Return the weights of every leaf that are among the k pruned per pool."""
        return self._expand(exact_k.exact_k_masks(self.units, exact))

    def _single_leaf(self, leaf: int) -> "LeafRanking":
        """Return one of the leaves, in a pool of its own and without a cap."""

        def only(entries: list[Any] | None) -> list[Any] | None:
            return None if entries is None else [entries[leaf]]

        return dataclasses.replace(
            self,
            weights=[self.weights[leaf]],
            statistics=[self.statistics[leaf]],
            extra_inputs=[self.extra_inputs[leaf]],
            unit_scores=only(self.unit_scores),
            protected=only(self.protected),
            min_kept=None,
            pools=((0,),),
        )

    def zero_masks(self, opaque_one: jax.Array) -> list[jax.Array]:
        """Return the weights of every leaf whose whole unit is exactly zero."""
        masks = [sort_keys.is_zero(leaf, opaque_one) for leaf in self.weights]
        if self.unit_scores is None:
            return masks
        nonzero = [jnp.where(mask, 0, 1).astype(self.dtype) for mask in masks]
        return self._expand(
            [
                self.structure.of_leaf(number).scores(leaf) == 0
                for number, leaf in enumerate(nonzero)
            ]
        )

    def weight_scores(self) -> list[jax.Array]:
        """Return for every weight the score of the unit that it is pruned with."""
        if self.unit_scores is not None:
            return self._expand(self.unit_scores)
        keys = [self.units.key(inputs) for inputs in self.units.inputs]
        return [sort_keys.from_key(key, self.dtype) for key in keys]

    def kept_shares(
        self,
        masks: Sequence[jax.Array],
        leaf_thresholds: Sequence[jax.Array],
        power: float,
    ) -> KeptShares:
        """Return what a continuous threshold leaves of every kept weight."""
        if self.criterion.signed:
            # Scores that may be negative have no natural zero to shrink towards.
            return KeptShares(
                [jnp.ones_like(leaf, self.dtype) for leaf in self.weights]
            )
        units = self.units
        if self.unit_scores is not None:
            masks = units.masks_below(leaf_thresholds)
        # Protected weights have the key of infinity: they do not shrink. A score of 0
        # in its place shrinks as little, and `jax_debug_infs` does not raise at it.
        largest_key = sort_keys.largest_key(self.dtype)
        scores, shrinks, pruned_keys = [], [], []
        for inputs, mask in zip(units.inputs, masks, strict=True):
            keys = units.key(inputs)
            is_finite = keys < largest_key
            if self.protected is None:
                finite_keys = keys
            else:
                finite_keys = jnp.where(is_finite, keys, 0)
            scores.append(sort_keys.from_key(finite_keys, self.dtype))
            shrinks.append(~mask & is_finite)
            pruned_keys.append(jnp.where(mask, keys, 0))
        largest, num_shrunk = exact_sums.max_keys_and_counts(
            pruned_keys, shrinks, self.shards
        )
        largest_pruned = self._largest_pruned_of_pools(largest, leaf_thresholds)
        shares = [
            kept_share(score, key, power)
            for score, key in zip(
                scores, xla_cpu.unstack_unfused(largest_pruned), strict=True
            )
        ]
        if self.unit_scores is not None:
            return KeptShares(self._expand(shares))
        if power == 2 and self.criterion is magnitude:
            # Of w^2 the factor leaves w^2 - sigma^2.
            counts = uint64.to_float32(num_shrunk).astype(self.dtype)
            return KeptShares(shares, jnp.square(largest_pruned) * counts)
        return KeptShares(shares)

    def _largest_pruned_of_pools(
        self, largest: jax.Array, leaf_thresholds: Sequence[jax.Array]
    ) -> jax.Array:
        """Return for each leaf the largest score that is pruned in its pool.

        Args:
          largest: the sort key of the largest that is pruned in each leaf itself.
          leaf_thresholds: the sort key of each leaf's threshold.
        """
        pool_of_leaf = np.array(self.units.pool_of_leaf)
        num_pools = self.num_thresholds
        of_pool = jax.ops.segment_max(largest, pool_of_leaf, num_pools)[pool_of_leaf]
        if self.min_kept is not None:
            # A leaf at its cap keeps weights that score less than other leaves lose.
            thresholds = jnp.stack(leaf_thresholds)
            highest = jax.ops.segment_max(thresholds, pool_of_leaf, num_pools)
            is_capped = thresholds < highest[pool_of_leaf]
            of_pool = jnp.where(is_capped, largest, of_pool)
        return sort_keys.from_key(of_pool, self.dtype)


@jax.jit
def _find_thresholds_with_ties(
    units: ScoredUnits, budgets: jax.Array
) -> exact_k.ExactK:
    return exact_k.find_thresholds_with_ties(units, budgets)


@functools.partial(jax.jit, static_argnames="function")
def _map_exact_k(
    function: Callable[..., Result],
    ranking: LeafRanking,
    exact: exact_k.ExactK,
    operands: tuple[Any, ...],
) -> list[Result]:
    pairs = zip(ranking.weights, ranking.exact_k_masks(exact), strict=True)
    return [function(weights, pruned, *operands) for weights, pruned in pairs]


@functools.partial(jax.jit, static_argnames="function")
def _map_below(
    function: Callable[..., Result],
    ranking: LeafRanking,
    leaf_thresholds: list[jax.Array],
    operands: tuple[Any, ...],
) -> list[Result]:
    pairs = zip(ranking.weights, ranking.masks_below(leaf_thresholds), strict=True)
    return [function(weights, pruned, *operands) for weights, pruned in pairs]
