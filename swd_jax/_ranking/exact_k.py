"""What is lost when exactly k weights are pruned: ties settled, masks for each leaf."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from swd_jax._arrays import exact_sums, sort_keys, uint64
from swd_jax._ranking.channel_ranking import ChannelRanking
from swd_jax._ranking.leaf_ranking import Ranking
from swd_jax._selection import tie_cutoffs

Result = TypeVar("Result")


class Settled(NamedTuple):
    """Where the k lowest scores of every group of leaves end."""

    limits: list[jax.Array]
    """The key below which each leaf loses everything. shape=()"""
    missing: jax.Array
    """How many weights to take of those that tie with it. Wide, shape=(groups, 4)"""
    spare: jax.Array | None = None
    """How many each leaf may still lose, where there is a floor. Wide, (leaves, 4)"""
    at_floor: jax.Array | None = None
    """Which leaves lose all they may, whatever is missing. shape=(leaves,)"""


def settle(ranking: Ranking, counts: jax.Array) -> Settled:
    """The thresholds for k weights of every group, and what they leave open.

    Scores that are not finite are never taken: if they are too many, fewer than k are.
    """
    found = ranking.thresholds(counts)
    missing = uint64.subtract(counts, found.below)
    finite = jnp.stack(found.keys) < sort_keys.largest_key(ranking.dtype)
    missing = jnp.where(finite[:, None], missing, 0)
    caps = ranking.caps
    if caps is None:
        return Settled(found.limits, missing)
    masks = [[mask] for mask in ranking.below(found.limits)]
    lost = exact_sums.count_true(masks, ranking.costs, ranking.shards)[:, 0]
    of_group = jnp.stack([found.keys[group] for group in ranking.group_of])
    return Settled(
        found.limits,
        missing,
        spare=uint64.subtract(caps, uint64.minimum(caps, lost)),
        at_floor=jnp.stack(found.limits) < of_group,
    )


def lost_exactly(ranking: Ranking, settled: Settled) -> list[jax.Array]:
    """Where each leaf's groups of weights are among the lowest that cost k together.

    Of scores that tie at the threshold the first ones are taken, by the order of the
    leaves, then by row-major position, as far as they fit.
    """
    operands = list(zip(ranking.operands, settled.limits, strict=True))
    shapes = [jax.eval_shape(ranking.keys, each).shape for each in ranking.operands]
    quotas, _ = tie_quotas(ranking, settled)

    def tied(operand: Any) -> jax.Array:
        return _tied(ranking, operand)

    cutoffs = tie_cutoffs.position_cutoffs(
        tied, operands, shapes, quotas, costs=ranking.costs, shards=ranking.shards
    )
    chosen = []
    for i, below in enumerate(ranking.below(settled.limits)):
        part = None if ranking.shards is None else ranking.shards.part(i)
        before = tie_cutoffs.is_before(shapes[i], cutoffs[i], part)
        chosen.append(below | (tied(operands[i]) & before))
    return chosen


def tie_quotas(ranking: Ranking, settled: Settled) -> tuple[jax.Array, jax.Array]:
    """How much each leaf loses of what ties, the first leaf first.

    Returns:
      That, and how much ties: wide numbers, shape (leaves, 4).
    """
    operands = zip(ranking.operands, settled.limits, strict=True)
    masks = [[_tied(ranking, each)] for each in operands]
    ties = exact_sums.count_true(masks, ranking.costs, ranking.shards)[:, 0]
    free = ties if settled.spare is None else uint64.minimum(ties, settled.spare)
    if settled.at_floor is not None:
        free = jnp.where(settled.at_floor[:, None], 0, free)
    before = jnp.zeros_like(free)
    for group in ranking.groups:
        if len(group) > 1:
            members = np.array(group)
            sums = uint64.carry(jnp.cumsum(free[members], axis=0))
            before = before.at[members[1:]].set(sums[:-1])
    wanted = settled.missing[np.array(ranking.group_of)]
    left = uint64.subtract(wanted, uint64.minimum(wanted, before))
    quotas = uint64.minimum(left, free)
    if settled.spare is not None and settled.at_floor is not None:
        own = uint64.minimum(ties, settled.spare)
        quotas = jnp.where(settled.at_floor[:, None], own, quotas)
    return quotas, ties


def _tied(ranking: Ranking, operand_and_limit: tuple[Any, jax.Array]) -> jax.Array:
    operand, limit = operand_and_limit
    keys = ranking.keys(operand)
    # What is not finite is never lost.
    finite = limit < sort_keys.largest_key(ranking.dtype)
    return (keys == limit) & finite


def map_lost(
    function: Callable[..., Result],
    ranking: Ranking | ChannelRanking,
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
    if isinstance(ranking, ChannelRanking):
        return _map_channels(function, ranking, counts, operands)
    settled = _settle(ranking, counts)
    if isinstance(settled.missing, Tracer):
        return _map_exactly(function, ranking, settled, operands)
    # Magnitudes of floats seldom tie. And where they do, all but one leaf of a group
    # lose all of their ties or none: only that one has to be looked at more closely.
    limits, cut = settled.limits, {}
    if settled.spare is not None or jnp.any(settled.missing > 0):
        quotas, ties = map(np.asarray, _tie_quotas(ranking, settled))
        all_lost = (quotas == ties).all(axis=1) & ties.any(axis=1)
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
def _settle(ranking: Ranking, counts: jax.Array) -> Settled:
    return settle(ranking, counts)


@jax.jit
def _tie_quotas(ranking: Ranking, settled: Settled) -> tuple[jax.Array, jax.Array]:
    return tie_quotas(ranking, settled)


@functools.partial(jax.jit, static_argnames="function")
def _map_exactly(
    function: Callable[..., Result],
    ranking: Ranking,
    settled: Settled,
    operands: tuple[Any, ...],
) -> list[Result]:
    lost = ranking.expanded(lost_exactly(ranking, settled))
    pairs = zip(ranking.weights, lost, strict=True)
    return [function(weights, each, *operands) for weights, each in pairs]


@functools.partial(jax.jit, static_argnames="function")
def _map_channels(
    function: Callable[..., Result],
    ranking: ChannelRanking,
    counts: jax.Array,
    operands: tuple[Any, ...],
) -> list[Result]:
    pairs = zip(ranking.weights, ranking.lost_exactly(counts), strict=True)
    return [function(weights, each, *operands) for weights, each in pairs]


@functools.partial(jax.jit, static_argnames="function")
def _map_below(
    function: Callable[..., Result],
    ranking: Ranking,
    limits: list[jax.Array],
    operands: tuple[Any, ...],
) -> list[Result]:
    lost = ranking.expanded(ranking.below(limits))
    pairs = zip(ranking.weights, lost, strict=True)
    return [function(weights, each, *operands) for weights, each in pairs]
