"""Exactly k pruned weights per pool: ties at the threshold broken deterministically.

Units that score below the threshold are pruned. Of the units that tie with it, the
first ones are pruned, by the order of the leaves, then by row-major position, as many
as the budget still allows: each leaf has a *tie quota*, the number of weights that it
loses among its ties, and a *tie cutoff*, the position where its pruned ties end.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import exact_sums, sort_keys, uint64
from swd_jax._ranking.unit_thresholds import ScoredUnits
from swd_jax._selection import tie_cutoffs


class ExactK(NamedTuple):
    """The thresholds of k pruned weights per pool, and how many ties to prune."""

    leaf_thresholds: list[jax.Array]
    """The key below which each leaf loses every unit. shape=()"""
    num_ties_to_take: jax.Array
    """The budget of each pool that is left for ties. uint64, shape=(pools, 4)"""
    remaining_caps: jax.Array | None = None
    """The rest of each leaf's cap, where there is a cap. uint64, shape=(leaves, 4)"""
    is_capped: jax.Array | None = None
    """Leaves at their `min_kept` cap: they lose all that they may, even if the pool
    needs more. shape=(leaves,)"""


def find_thresholds_with_ties(units: ScoredUnits, budgets: jax.Array) -> ExactK:
    """Return the thresholds for k weights of every pool, and the budget left for ties.

    Units whose scores are not finite are never pruned. If too few units have finite
    scores, fewer than k weights are pruned.
    """
    thresholds = units.find_thresholds(budgets)
    remaining = uint64.subtract(budgets, thresholds.counts_below)
    is_finite = jnp.stack(thresholds.keys) < sort_keys.largest_key(units.dtype)
    remaining = jnp.where(is_finite[:, None], remaining, 0)
    caps = units.max_pruned
    if caps is None:
        return ExactK(thresholds.leaf_thresholds, remaining)
    masks = [[mask] for mask in units.masks_below(thresholds.leaf_thresholds)]
    below = exact_sums.count_true(masks, units.unit_sizes, units.shards)[:, 0]
    pool_keys = jnp.stack([thresholds.keys[pool] for pool in units.pool_of_leaf])
    return ExactK(
        thresholds.leaf_thresholds,
        remaining,
        remaining_caps=uint64.subtract(caps, uint64.minimum(caps, below)),
        is_capped=jnp.stack(thresholds.leaf_thresholds) < pool_keys,
    )


def exact_k_masks(units: ScoredUnits, exact: ExactK) -> list[jax.Array]:
    """Return the units of each leaf that are among the k weights pruned per pool."""
    inputs = list(zip(units.inputs, exact.leaf_thresholds, strict=True))
    shapes = [jax.eval_shape(units.key, leaf).shape for leaf in units.inputs]
    quotas, _ = tie_quotas(units, exact)

    def is_tie(inputs_and_threshold: Any) -> jax.Array:
        return _is_tie(units, inputs_and_threshold)

    cutoffs = tie_cutoffs.find_tie_cutoffs(
        is_tie, inputs, shapes, quotas, costs=units.unit_sizes, shards=units.shards
    )
    masks = []
    for leaf, below in enumerate(units.masks_below(exact.leaf_thresholds)):
        shard = None if units.shards is None else units.shards.shard_index(leaf)
        before = tie_cutoffs.is_before(shapes[leaf], cutoffs[leaf], shard)
        masks.append(below | (is_tie(inputs[leaf]) & before))
    return masks


def tie_quotas(units: ScoredUnits, exact: ExactK) -> tuple[jax.Array, jax.Array]:
    """Return how many weights each leaf loses among its ties, the first leaf first.

    Returns:
      The quotas, and the number of weights that tie: emulated uint64, (leaves, 4).
    """
    inputs = zip(units.inputs, exact.leaf_thresholds, strict=True)
    masks = [[_is_tie(units, leaf_inputs)] for leaf_inputs in inputs]
    ties = exact_sums.count_true(masks, units.unit_sizes, units.shards)[:, 0]
    caps = exact.remaining_caps
    available = ties if caps is None else uint64.minimum(ties, caps)
    if exact.is_capped is not None:
        available = jnp.where(exact.is_capped[:, None], 0, available)
    in_earlier_leaves = jnp.zeros_like(available)
    for pool in units.pools:
        if len(pool) > 1:
            leaves = np.array(pool)
            sums = uint64.carry(jnp.cumsum(available[leaves], axis=0))
            in_earlier_leaves = in_earlier_leaves.at[leaves[1:]].set(sums[:-1])
    budgets = exact.num_ties_to_take[np.array(units.pool_of_leaf)]
    budgets = uint64.subtract(budgets, uint64.minimum(budgets, in_earlier_leaves))
    quotas = uint64.minimum(budgets, available)
    if caps is not None and exact.is_capped is not None:
        # A capped leaf has ties at its own threshold, which is below the pool's.
        quotas_at_cap = uint64.minimum(ties, caps)
        quotas = jnp.where(exact.is_capped[:, None], quotas_at_cap, quotas)
    return quotas, ties


def thresholds_past_ties(
    units: ScoredUnits, exact: ExactK
) -> tuple[list[jax.Array], dict[int, np.ndarray]]:
    """Settle the ties of all leaves but those that lose only a part of theirs.

    Outside of jit this saves the search for tie cutoffs: magnitudes of floats seldom
    tie, and where they do, every leaf of a pool but one loses all of its ties or none.

    Returns:
      The key of each leaf below which it loses every unit, and the tie quotas of the
      leaves, by position, that lose a part of their ties. The threshold of such a leaf
      has to be settled by `exact_k_masks`.
    """
    if exact.remaining_caps is None and not jnp.any(exact.num_ties_to_take > 0):
        return exact.leaf_thresholds, {}
    quotas, ties = map(np.asarray, _tie_quotas(units, exact))
    loses_all_ties = (quotas == ties).all(axis=1) & ties.any(axis=1)
    thresholds = [
        threshold + 1 if loses_all else threshold
        for threshold, loses_all in zip(
            exact.leaf_thresholds, loses_all_ties, strict=True
        )
    ]
    loses_some = np.flatnonzero(quotas.any(axis=1) & ~loses_all_ties)
    return thresholds, {leaf: quotas[leaf] for leaf in loses_some.tolist()}


@jax.jit
def _tie_quotas(units: ScoredUnits, exact: ExactK) -> tuple[jax.Array, jax.Array]:
    return tie_quotas(units, exact)


def _is_tie(
    units: ScoredUnits, inputs_and_threshold: tuple[Any, jax.Array]
) -> jax.Array:
    inputs, threshold = inputs_and_threshold
    is_finite = threshold < sort_keys.largest_key(units.dtype)
    return (units.key(inputs) == threshold) & is_finite
