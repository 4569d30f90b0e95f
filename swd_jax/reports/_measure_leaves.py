"""What pruning would take from the leaves, in numbers."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._allocation.prunable_leaves import PrunableLeaf
from swd_jax._arrays import exact_norms, exact_sums, sort_keys, uint64
from swd_jax._targets.resolve import RankedTarget
from swd_jax.reports._summary import LeafSummary


class MeasuredLeaves(NamedTuple):
    """The prunable leaves of some targets, in the order of the tree."""

    leaves: tuple[PrunableLeaf, ...]
    rows: tuple[LeafSummary, ...]
    residual: float
    """||weights to be pruned|| / ||prunable weights||, of all leaves."""


def measure_leaves(
    ranked_targets: Sequence[RankedTarget], budgets: Sequence[jax.Array]
) -> MeasuredLeaves:
    """Measure what pruning would do to every leaf.

    Args:
      ranked_targets: the targets and their leaves.
      budgets: for each target, k of its pools.
    """
    measured: list[tuple[PrunableLeaf, _Measurement]] = []
    for ranked, budget in zip(ranked_targets, budgets, strict=True):
        measurements = jax.device_get(
            ranked.ranking.map_exact_k(_measure, budget, np.uint32(1))
        )
        measured += zip(ranked.leaves, measurements, strict=True)
    measured.sort(key=lambda pair: pair[0].position)
    norm = math.hypot(*(float(entry.norm) for _, entry in measured))
    pruned_norm = math.hypot(*(float(entry.pruned_norm) for _, entry in measured))
    return MeasuredLeaves(
        leaves=tuple(leaf for leaf, _ in measured),
        rows=tuple(_leaf_summary(*pair) for pair in measured),
        residual=ratio(pruned_norm, norm),
    )


def pruned_fraction(
    ranked_targets: Sequence[RankedTarget], budgets: Sequence[jax.Array]
) -> float:
    """Return the sum of k over the number of weights, or of what a target counts."""
    pruned = sum(uint64.to_int(k) for pools in budgets for k in pools)
    total = sum(sum(ranked.ranking.pool_sizes()) for ranked in ranked_targets)
    return ratio(pruned, total)


def ratio(part: float, whole: float) -> float:
    """Return part / whole, or 0 of nothing."""
    return part / whole if whole > 0 else 0.0


class _Measurement(NamedTuple):
    """The numbers of a leaf that are computed on its device."""

    counts: Any  # emulated uint64: zeros, zeros once pruned, weights not finite
    norm: Any
    pruned_norm: Any


def _measure(
    weights: jax.Array, pruned: jax.Array, opaque_one: jax.Array
) -> _Measurement:
    is_zero = sort_keys.is_zero(weights, opaque_one)
    dtype = sort_keys.score_dtype(weights.dtype)
    weights = sort_keys.widen(weights, dtype)
    norm, pruned_norm = exact_norms.leaf_l2_norms(
        [weights, jnp.where(pruned, weights, 0)]
    )
    return _Measurement(
        exact_sums.count_true([[is_zero, is_zero | pruned, ~jnp.isfinite(weights)]])[0],
        norm,
        pruned_norm,
    )


def _leaf_summary(leaf: PrunableLeaf, measurement: _Measurement) -> LeafSummary:
    zeros, pruned, non_finite = map(uint64.to_int, measurement.counts)
    return LeafSummary(
        path=leaf.path,
        shape=tuple(leaf.weights.shape),
        dtype=str(leaf.weights.dtype),
        weights=leaf.weights.size,
        zeros=zeros,
        pruned=pruned,
        non_finite=non_finite,
        residual=ratio(float(measurement.pruned_norm), float(measurement.norm)),
    )
