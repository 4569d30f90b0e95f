"""Parameters ranked under a target: the way from a tree to thresholds and masks."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._allocation import exact_counts
from swd_jax._arrays import exact_sums, sort_keys, uint64
from swd_jax._arrays.manual_sharding import Shards, laid_out_as
from swd_jax._ranking import unit_scores
from swd_jax._selection import order_statistics, warm_start
from swd_jax.criteria import _criterion
from swd_jax.structures import _structure
from swd_jax.structures._n_of_m import NM


class Thresholds(NamedTuple):
    """Where the selection ends."""

    keys: list[jax.Array]
    """The threshold's key for each group of leaves. shape=()"""
    limits: list[jax.Array]
    """The key below which each leaf's scores are selected: that of its group, or lower
    where the leaf would keep too little. shape=()"""
    below: jax.Array
    """How many weights of each group are strictly below. Wide, shape=(groups, 4)"""
    readings: jax.Array
    """How often the leaves were read for it. shape=(), dtype=int32"""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["weights", "statistics", "evidence", "group_scores", "protected"],
    meta_fields=["criterion", "structure", "dtype", "groups", "min_kept", "shards"],
)
@dataclasses.dataclass(frozen=True)
class Ranking:
    """The weights of the prunable leaves, ready to be ranked. A pytree.

    Attributes:
      weights: the leaves.
      statistics: what the criterion knows of each leaf. Worked out once, so that a
        weight has the same score whoever asks.
      criterion: what scores them.
      dtype: the type in which their scores are compared, at least float32.
      groups: which positions in `weights` are ranked together.
      evidence: what the criterion looks at besides the weights, for each leaf.
      structure: which weights live and die together.
      group_scores: of each leaf, where the structure's groups are more than one weight;
        else None.
      protected: of each leaf, the weights that the structure never prunes, where there
        are any; else None.
      min_kept: how many weights each leaf keeps at least.
      shards: how the leaves are divided by hand, if they are.
    """

    weights: list[jax.Array]
    statistics: list[Any]
    criterion: _criterion.Criterion
    dtype: jnp.dtype
    groups: order_statistics.Groups
    evidence: list[_criterion.Evidence] | None = None
    structure: _structure.Structure = _structure.Unstructured()
    group_scores: list[jax.Array] | None = None
    protected: list[jax.Array] | None = None
    min_kept: tuple[int, ...] | None = None
    shards: Shards | None = None

    @property
    def operands(self) -> list[order_statistics.Operand]:
        """What the selection engine counts."""
        if self.group_scores is not None:
            return list(self.group_scores)
        protected = self.protected or [None] * len(self.weights)
        pairs = zip(self.scored, protected, strict=True)
        return [(*of_leaf, mask) for of_leaf, mask in pairs]

    @property
    def scored(self) -> list[_criterion.Scored]:
        """What `scores` takes of each leaf."""
        evidence = self.evidence or [{}] * len(self.weights)
        return list(zip(self.weights, self.statistics, evidence, strict=True))

    @property
    def group_of(self) -> list[int]:
        """The group of each leaf."""
        group_of = {i: g for g, group in enumerate(self.groups) for i in group}
        return [group_of[i] for i in range(len(self.weights))]

    @property
    def costs(self) -> list[exact_sums.Cost]:
        """How many weights each member of a leaf's operand stands for."""
        return [self._cost(leaf.shape) for leaf in self.weights]

    def _cost(self, shape: tuple[int, ...]) -> exact_sums.Cost:
        sizes = self.structure.sizes(shape)
        return None if isinstance(sizes, int) and sizes == 1 else sizes

    def sizes(self) -> list[int]:
        """How many weights each group has, on all devices together."""
        return [sum(map(self.size, group)) for group in self.groups]

    def size(self, i: int) -> int:
        """How many weights a leaf has, on all devices together."""
        parts = 1 if self.shards is None else self.shards.parts(i)
        return self.weights[i].size * parts

    def keys(self, operand: order_statistics.Operand) -> jax.Array:
        """The scores of one leaf's groups of weights as integers in the same order."""
        if self.group_scores is not None:
            return sort_keys.to_key(operand)
        *of_leaf, protected = operand
        scores = self.scores(*of_leaf)
        if protected is not None:
            scores = jnp.where(protected, jnp.inf, scores)
        return sort_keys.to_key(scores)

    def scores(
        self, weights: jax.Array, statistic: Any, evidence: _criterion.Evidence
    ) -> jax.Array:
        """One leaf's scores of single weights, in an order of magnitudes."""
        return _criterion.magnitudes(
            self.criterion, weights, statistic, evidence, self.dtype
        )

    def counts(self, sparsities: Sequence[Fraction | jax.Array]) -> jax.Array:
        """k of every group: wide numbers, shape (groups, 4)."""
        pairs = zip(sparsities, self.sizes(), strict=True)
        return jnp.stack([exact_counts.pruned_count(s, n) for s, n in pairs])

    @property
    def caps(self) -> jax.Array | None:
        """The most that each leaf may lose: wide numbers, shape (leaves, 4)."""
        if self.min_kept is None:
            return None
        most = [max(self.size(i) - kept, 0) for i, kept in enumerate(self.min_kept)]
        # Only whole groups go: what a part of one would cost is left to other leaves.
        sizes = [self.structure.sizes(leaf.shape) for leaf in self.weights]
        most = [
            n - n % max(size, 1) if isinstance(size, int) else n
            for n, size in zip(most, sizes, strict=True)
        ]
        return jnp.asarray(np.stack([uint64.from_int(number) for number in most]))

    # Compiled once for all steps, even of a training loop that is not.
    @jax.jit
    def thresholds(
        self,
        counts: jax.Array,
        *,
        last: warm_start.Last | None = None,
        renew: jax.Array | None = None,
    ) -> Thresholds:
        """The greatest score of every group below which there are at most k weights.

        Args:
          counts: k of every group: wide numbers, shape (groups, 4).
          last: where the thresholds were, each of shape (groups,), to look there first.
          renew: where it is false, the last thresholds are returned, and 0 below them.
        """
        kept = None if last is None else sort_keys.to_key(last.thresholds)
        with jax.named_scope("swd_threshold"):
            found = self._search(
                self.groups,
                counts,
                warm_start.candidates(last, self.dtype, self._keys(), len(self.groups)),
                caps=self.caps,
                renew=renew,
                kept=kept,
            )
            limits = [found.keys[group] for group in self.group_of]
            if self.min_kept is not None:
                own = self._own_limits(limits)
                pairs = zip(limits, own, strict=True)
                limits = [jnp.minimum(*pair) for pair in pairs]
        return Thresholds(found.keys, limits, found.below, found.readings)

    def _own_limits(self, limits: list[jax.Array]) -> list[jax.Array]:
        """The key of each leaf below which it loses as much as it may.

        Looked for only in leaves that would lose more: of others, the largest key.
        """
        caps = self.caps
        assert caps is not None
        masks = [[mask] for mask in self.below(limits)]
        lost = exact_sums.count_true(masks, self.costs, self.shards)[:, 0]
        keys = self._keys()
        largest = jnp.full(len(limits), keys.largest, sort_keys.key_dtype(self.dtype))
        found = self._search(
            tuple((i,) for i in range(len(limits))),
            caps,
            warm_start.below(jnp.stack(limits), keys),
            caps=None,
            renew=uint64.less(caps, lost),
            kept=largest,
        )
        return found.keys

    def _search(
        self,
        groups: order_statistics.Groups,
        budgets: jax.Array,
        guesses: jax.Array,
        *,
        caps: jax.Array | None,
        renew: jax.Array | None,
        kept: jax.Array | None,
    ) -> order_statistics.Found:
        return order_statistics.order_statistics(
            self.keys,
            self.operands,
            groups,
            budgets,
            self._keys(),
            guesses=guesses,
            costs=self.costs,
            caps=caps,
            renew=renew,
            kept=kept,
            shards=self.shards,
        )

    def _keys(self) -> order_statistics.Keys:
        finest = max((jnp.finfo(leaf.dtype).nmant for leaf in self.weights), default=0)
        as_fine = self.criterion.keeps_precision and self.group_scores is None
        nmant = jnp.finfo(self.dtype).nmant
        return order_statistics.Keys(
            largest=sort_keys.largest_key(self.dtype),
            zero_bits=nmant - finest if as_fine else 0,
            smooth_bits=nmant,
        )

    def below(self, limits: list[jax.Array]) -> list[jax.Array]:
        """Which groups of weights of each leaf have scores strictly below its limit."""
        pairs = zip(self.operands, limits, strict=True)
        return [self.keys(operand) < limit for operand, limit in pairs]

    def expanded(self, masks: Sequence[jax.Array]) -> list[jax.Array]:
        """Masks of the leaves' groups of weights as masks of their weights."""
        if self.group_scores is None:
            return list(masks)
        return [
            laid_out_as(self.structure.expand(mask, leaf.shape), leaf)
            for mask, leaf in zip(masks, self.weights, strict=True)
        ]

    def zeros(self, one: jax.Array) -> list[jax.Array]:
        """Which weights of every leaf are zero with all of their group."""
        found = [sort_keys.is_zero(leaf, one) for leaf in self.weights]
        if self.group_scores is None:
            return found
        nonzero = [jnp.where(zero, 0, 1).astype(self.dtype) for zero in found]
        return self.expanded([self.structure.scores(each) == 0 for each in nonzero])

    def grouped(self) -> "Ranking":
        """With what the structure makes of the scores worked out, once for all."""
        # Not of a class that is derived from these, which may score in its own way.
        if not self.weights or type(self.structure) is _structure.Unstructured:
            return self
        scored = self.structure, self.criterion, self.scored, self.dtype
        if type(self.structure) is NM:
            protected = unit_scores.protected(*scored)
            return dataclasses.replace(self, protected=protected)
        group_scores = unit_scores.group_scores(*scored)
        return dataclasses.replace(self, group_scores=group_scores)

    def with_floor(self, min_kept: int | Fraction) -> "Ranking":
        """With so many weights of each leaf kept, or such a share of them."""
        if min_kept == 0 or not self.weights:
            return self
        sizes = [self.size(i) for i in range(len(self.weights))]
        kept = [
            min_kept if isinstance(min_kept, int) else math.ceil(min_kept * size)
            for size in sizes
        ]
        return dataclasses.replace(self, min_kept=tuple(kept))

    def alone(self, i: int) -> "Ranking":
        """One of the leaves, as a group of its own."""

        def only(entries: Any) -> Any:
            return None if entries is None else [entries[i]]

        return dataclasses.replace(
            self,
            weights=[self.weights[i]],
            statistics=[self.statistics[i]],
            evidence=only(self.evidence),
            group_scores=only(self.group_scores),
            protected=only(self.protected),
            min_kept=None,
            groups=((0,),),
        )
