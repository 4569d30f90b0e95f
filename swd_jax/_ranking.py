"""Parameters ranked under a target: the way from a tree to thresholds and masks."""

import dataclasses
import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from swd_jax import (
    _criteria,
    _float_order,
    _guesses,
    _paths,
    _positions,
    _reductions,
    _selection,
    _sparsity,
    _wide,
)
from swd_jax._prunable import PrunableLeaf, find_prunable
from swd_jax._shards import AxisName, Shards, find_shards
from swd_jax._target import Target

Result = TypeVar("Result")


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["weights", "statistics"],
    meta_fields=["criterion", "dtype", "groups", "shards"],
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
      shards: how the leaves are divided by hand, if they are.
    """

    weights: list[jax.Array]
    statistics: list[jax.Array | None]
    criterion: _criteria.Criterion
    dtype: jnp.dtype
    groups: _selection.Groups
    shards: Shards | None = None

    @property
    def operands(self) -> list[_selection.Operand]:
        """What the selection engine counts: each leaf with its statistic."""
        return list(zip(self.weights, self.statistics, strict=True))

    @property
    def group_of(self) -> list[int]:
        """The group of each leaf."""
        group_of = {i: g for g, group in enumerate(self.groups) for i in group}
        return [group_of[i] for i in range(len(self.weights))]

    def sizes(self) -> list[int]:
        """How many weights each group has, on all devices together."""
        return [sum(map(self._size, group)) for group in self.groups]

    def _size(self, i: int) -> int:
        parts = 1 if self.shards is None else self.shards.parts(i)
        return self.weights[i].size * parts

    def keys(self, operand: _selection.Operand) -> jax.Array:
        """One leaf's scores as integers in the same order."""
        weights, statistic = operand
        scores = _criteria.scores(self.criterion, weights, statistic, self.dtype)
        return _float_order.to_key(scores)

    def counts(self, sparsity: Fraction | jax.Array) -> jax.Array:
        """k of every group: wide numbers, shape (groups, 4)."""
        return jnp.stack([_sparsity.pruned_count(sparsity, n) for n in self.sizes()])

    # Compiled once for all steps, even of a training loop that is not.
    @jax.jit
    def thresholds(
        self,
        counts: jax.Array,
        *,
        last: _guesses.Last | None = None,
        renew: jax.Array | None = None,
    ) -> _selection.Found:
        """The (k+1)-th smallest score of every group, infinity if it is not finite.

        Args:
          counts: k of every group: wide numbers, shape (groups, 4).
          last: where the thresholds were, each of shape (groups,), to look there first.
          renew: where it is false, the last thresholds are returned, and 0 below them.

        Returns:
          The thresholds' keys, each of shape (), and how many scores are strictly
          below them: wide numbers, shape (groups, 4).
        """
        keys = _selection.Keys(
            largest=_float_order.largest_key(self.dtype),
            zero_bits=self._zero_bits(),
            smooth_bits=jnp.finfo(self.dtype).nmant,
        )
        with jax.named_scope("swd_threshold"):
            return _selection.order_statistics(
                self.keys,
                self.operands,
                self.groups,
                counts,
                keys,
                guesses=_guesses.candidates(last, self.dtype, keys, len(self.groups)),
                renew=renew,
                kept=None if last is None else _float_order.to_key(last.thresholds),
                shards=self.shards,
            )

    def _zero_bits(self) -> int:
        """How many of the lowest bits are zero in all keys."""
        if not self.criterion.keeps_precision:
            return 0
        finest = max((jnp.finfo(leaf.dtype).nmant for leaf in self.weights), default=0)
        return jnp.finfo(self.dtype).nmant - finest

    def below(self, limits: list[jax.Array]) -> list[jax.Array]:
        """Where each leaf's scores are strictly below its group's threshold's key."""
        return self.below_each([limits[group] for group in self.group_of])

    def below_each(self, limits: list[jax.Array]) -> list[jax.Array]:
        """Where each leaf's scores are strictly below a key of its own."""
        pairs = zip(self.operands, limits, strict=True)
        return [self.keys(operand) < limit for operand, limit in pairs]

    def settled(self, counts: jax.Array) -> "Settled":
        """The thresholds for k scores of every group, and what they leave open.

        Scores that are not finite are never taken: if they are too many, there are
        fewer than k.
        """
        limits, below, _ = self.thresholds(counts)
        finite = jnp.stack(limits) < _float_order.largest_key(self.dtype)
        missing = jnp.where(finite[:, None], _wide.subtract(counts, below), 0)
        return Settled([limits[group] for group in self.group_of], missing)

    def exactly(self, settled: "Settled") -> list[jax.Array]:
        """Where each leaf is among its group's k lowest scores, no more and no fewer.

        Of scores that tie at the threshold the first ones are taken, by the order of
        the leaves, then by row-major position.
        """
        operands = list(zip(self.operands, settled.limits, strict=True))
        shapes = [leaf.shape for leaf in self.weights]
        quotas, _ = self.tie_quotas(settled)
        cutoffs = _positions.position_cutoffs(
            self._tied, operands, shapes, quotas, shards=self.shards
        )
        chosen = []
        for i, below in enumerate(self.below_each(settled.limits)):
            part = None if self.shards is None else self.shards.part(i)
            before = _positions.is_before(shapes[i], cutoffs[i], part)
            chosen.append(below | (self._tied(operands[i]) & before))
        return chosen

    def tie_quotas(self, settled: "Settled") -> tuple[jax.Array, jax.Array]:
        """How many of each leaf's ties are taken, the first leaf's first.

        Returns:
          That, and how many ties there are: wide numbers, shape (leaves, 4).
        """
        operands = zip(self.operands, settled.limits, strict=True)
        ties = [[self._tied(each)] for each in operands]
        counts = _reductions.count_true(ties, shards=self.shards)[:, 0]
        before = jnp.zeros_like(counts)
        for group in self.groups:
            if len(group) > 1:
                members = np.array(group)
                sums = _wide.carry(jnp.cumsum(counts[members], axis=0))
                before = before.at[members[1:]].set(sums[:-1])
        wanted = settled.missing[np.array(self.group_of)]
        left = _wide.subtract(wanted, _wide.minimum(wanted, before))
        return _wide.minimum(left, counts), counts

    def alone(self, i: int) -> "Ranking":
        """One of the leaves, as a group of its own."""
        return dataclasses.replace(
            self,
            weights=[self.weights[i]],
            statistics=[self.statistics[i]],
            groups=((0,),),
        )

    def _tied(
        self, operand_and_limit: tuple[_selection.Operand, jax.Array]
    ) -> jax.Array:
        operand, limit = operand_and_limit
        return self.keys(operand) == limit


class Settled(NamedTuple):
    """Where the k lowest scores of every group end."""

    limits: list[jax.Array]
    """The threshold's key of each leaf's group. shape=()"""
    missing: jax.Array
    """How many to take of those that tie with it. Wide, shape=(groups, 4)"""


def map_lost(
    function: Callable[..., Result],
    ranking: Ranking,
    counts: jax.Array,
    *operands: Any,
) -> list[Result]:
    """Apply a function to every leaf and the mask of what it loses.

    Args:
      function: (weights, lost, *operands) -> anything; `lost` has bools in the weights'
        shape. A function of a module, so that it is compiled once.
      ranking: the leaves.
      counts: k of every group: wide numbers, shape (groups, 4).
      *operands: given to the function for every leaf.

    Returns:
      The results in the leaves' order.
    """
    if not ranking.weights:
        return []
    settled = _settled(ranking, counts)
    if isinstance(settled.missing, Tracer):
        return _map_exactly(function, ranking, settled, operands)
    # Magnitudes of floats seldom tie. And where they do, all but one leaf of a group
    # lose all of their ties or none: only that one has to be looked at more closely.
    limits, cut = settled.limits, {}
    if jnp.any(settled.missing > 0):
        quotas, ties = map(np.asarray, _tie_quotas(ranking, settled))
        all_lost = (quotas == ties).all(axis=1)
        limits = [
            limit + 1 if lost else limit
            for limit, lost in zip(limits, all_lost, strict=True)
        ]
        in_part = np.flatnonzero(quotas.any(axis=1) & ~all_lost)
        cut = {i: quotas[i] for i in in_part.tolist()}
    results = _map_below(function, ranking, limits, operands)
    for i, quota in cut.items():
        one = Settled([settled.limits[i]], jnp.asarray(quota)[None])
        [results[i]] = _map_exactly(function, ranking.alone(i), one, operands)
    return results


@jax.jit
def _settled(ranking: Ranking, counts: jax.Array) -> Settled:
    return ranking.settled(counts)


@jax.jit
def _tie_quotas(ranking: Ranking, settled: Settled) -> tuple[jax.Array, jax.Array]:
    return ranking.tie_quotas(settled)


@functools.partial(jax.jit, static_argnames="function")
def _map_exactly(
    function: Callable[..., Result],
    ranking: Ranking,
    settled: Settled,
    operands: tuple[Any, ...],
) -> list[Result]:
    masks = ranking.exactly(settled)
    pairs = zip(ranking.weights, masks, strict=True)
    return [function(weights, lost, *operands) for weights, lost in pairs]


@functools.partial(jax.jit, static_argnames="function")
def _map_below(
    function: Callable[..., Result],
    ranking: Ranking,
    limits: list[jax.Array],
    operands: tuple[Any, ...],
) -> list[Result]:
    masks = ranking.below_each(limits)
    pairs = zip(ranking.weights, masks, strict=True)
    return [function(weights, lost, *operands) for weights, lost in pairs]


def rank(
    params: Any, target: Target, axis_name: AxisName = None
) -> tuple[_paths.Flat, list[PrunableLeaf], Ranking]:
    """Find and rank what a target prunes.

    Args:
      params: any tree of arrays.
      target: what is pruned.
      axis_name: mesh axes over which the arrays are divided by hand, if they are.

    Returns:
      The parameters flattened, their prunable leaves, and these leaves' ranking.

    Raises:
      ValueError: if the target does not fit the parameters.
    """
    tree = _paths.flatten(params)
    leaves = find_prunable(target.prunable, tree, params)
    # The selection is piecewise constant: nothing to differentiate.
    weights = [jax.lax.stop_gradient(jnp.asarray(leaf.weights)) for leaf in leaves]
    criterion = _criteria.as_criterion(target.criterion)
    dtype = _float_order.score_dtype(*(leaf.dtype for leaf in weights))
    shards = find_shards(weights, axis_name)
    ranking = Ranking(
        weights=weights,
        statistics=_criteria.statistics(criterion, weights, dtype, shards),
        criterion=criterion,
        dtype=dtype,
        groups=tuple((i,) for i in range(len(leaves)))
        if target.scope == "local"
        else (tuple(range(len(leaves))),),
        shards=shards,
    )
    return tree, leaves, ranking
