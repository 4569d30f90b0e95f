"""What pruning would take from the leaves, in numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._allocation.prunable_leaves import PrunableLeaf
from swd_jax._arrays import exact_norms, exact_sums, sort_keys, uint64
from swd_jax._ranking.leaf_ranking import LeafRanking
from swd_jax._targets.resolve import RankedTarget
from swd_jax.criteria._criterion import LibraryCriterion
from swd_jax.reports._summary import LeafSummary

# Weights that are converted to float64 at once, so that a large leaf takes little more
# memory than its own.
_CHUNK = 1 << 20


class MeasuredLeaves(NamedTuple):
    """The prunable leaves of some targets, in the order of the tree."""

    leaves: tuple[PrunableLeaf, ...]
    rows: tuple[LeafSummary, ...]
    residual: float
    """||weights to be pruned|| / ||prunable weights||, of all leaves. NaN if no weight
    but zeros is finite."""
    non_finite_scores: Mapping[str, int]
    """By the paths of leaves, the number of finite weights whose scores are NaN or
    infinite, where there are any."""


def measure_leaves(
    ranked_targets: Sequence[RankedTarget], budgets: Sequence[jax.Array]
) -> MeasuredLeaves:
    """Measure what pruning would do to every leaf.

    XLA compiles one program for all masks; a program that also counted and summed each
    leaf took four times as long to compile, 20 seconds for a tree of 200 shapes. NumPy
    counts and sums leaves of which this process has all shards.

    Args:
      ranked_targets: the targets and their leaves.
      budgets: for each target, k of its pools.
    """
    measured: list[tuple[PrunableLeaf, _Measurement]] = []
    non_finite_scores: dict[str, int] = {}
    for ranked, budget in zip(ranked_targets, budgets, strict=True):
        masks = ranked.ranking.map_exact_k(_pruned_mask, budget)
        measurements = [
            _measure(leaf.weights, mask)
            for leaf, mask in zip(ranked.leaves, masks, strict=True)
        ]
        measured += zip(ranked.leaves, measurements, strict=True)
        non_finite_scores |= _non_finite_scores(ranked, measurements)
    measured.sort(key=lambda pair: pair[0].position)
    return MeasuredLeaves(
        leaves=tuple(leaf for leaf, _ in measured),
        rows=tuple(_leaf_summary(*pair) for pair in measured),
        residual=_residual(
            math.hypot(*(entry.pruned_norm for _, entry in measured)),
            math.hypot(*(entry.norm for _, entry in measured)),
            sum(entry.non_finite for _, entry in measured),
        ),
        non_finite_scores=non_finite_scores,
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
    """The numbers of a leaf."""

    zeros: int
    pruned: int
    """Zeros once pruned."""
    non_finite: int
    norm: float
    """Of the finite weights."""
    pruned_norm: float


def _pruned_mask(weights: jax.Array, pruned: jax.Array) -> jax.Array:
    del weights
    return pruned


def _measure(weights: Any, pruned: jax.Array) -> _Measurement:
    if isinstance(weights, jax.Array) and not weights.is_fully_addressable:
        counts, norms = jax.device_get(_measure_sharded(weights, pruned, np.uint32(1)))
        zeros, pruned_zeros, non_finite = map(uint64.to_int, counts)
        norm, pruned_norm = map(float, norms)
        return _Measurement(zeros, pruned_zeros, non_finite, norm, pruned_norm)
    weights, mask = np.asarray(weights).reshape(-1), np.asarray(pruned).reshape(-1)
    is_zero, is_finite = weights == 0, _is_finite(weights)
    norm, pruned_norm = _norms(weights, [is_finite, is_finite & mask])
    return _Measurement(
        zeros=int(np.count_nonzero(is_zero)),
        pruned=int(np.count_nonzero(is_zero | mask)),
        non_finite=int(np.count_nonzero(~is_finite)),
        norm=norm,
        pruned_norm=pruned_norm,
    )


@jax.jit
def _measure_sharded(
    weights: jax.Array, pruned: jax.Array, opaque_one: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return zeros, zeros once pruned and not finite weights, and the two norms.

    For a leaf of which other processes have shards. Compiled once for each shape.
    """
    is_zero = sort_keys.is_zero(weights, opaque_one)
    weights = sort_keys.widen(weights, sort_keys.score_dtype(weights.dtype))
    masks = [is_zero, is_zero | pruned, ~jnp.isfinite(weights)]
    norms = exact_norms.leaf_l2_norms([weights, jnp.where(pruned, weights, 0)])
    return exact_sums.count_true([masks])[0], norms


def _is_finite(values: np.ndarray) -> np.ndarray:
    # NumPy has no isfinite for the dtypes of ml_dtypes narrower than 16 bits.
    return np.isfinite(values.astype(np.float32) if values.itemsize < 2 else values)


def _norms(weights: np.ndarray, masks: Sequence[np.ndarray]) -> list[float]:
    """Return the L2 norms of some of the weights, which are finite."""
    largest = 0.0
    sums = [0.0] * len(masks)
    starts = range(0, weights.size, _CHUNK)
    for start in starts:
        part = slice(start, start + _CHUNK)
        chosen = weights[part][masks[0][part]]
        if chosen.size:
            largest = max(largest, float(np.abs(chosen).max()))
    if largest == 0:
        return sums
    for start in starts:
        part = slice(start, start + _CHUNK)
        # Squares of float64 weights would overflow without the division.
        squares = np.square(weights[part].astype(np.float64) / largest)
        for i, mask in enumerate(masks):
            sums[i] += float(np.sum(squares, where=mask[part]))
    return [largest * math.sqrt(total) for total in sums]


def _non_finite_scores(
    ranked: RankedTarget, measurements: Sequence[_Measurement]
) -> dict[str, int]:
    """Count the finite weights whose scores are not finite, by leaf.

    Criteria of this package that read the weights alone have finite scores, except of
    units with weights that are not finite.
    """
    criterion = ranked.target.criterion
    of_weights = isinstance(criterion, LibraryCriterion) and not criterion.input_names
    if of_weights and not any(entry.non_finite for entry in measurements):
        return {}
    ranking, counts = ranked.ranking, {}
    for i, (leaf, scores) in enumerate(
        zip(ranked.leaves, ranking.weight_scores(), strict=True)
    ):
        is_never_pruned = ~jnp.isfinite(scores) & jnp.isfinite(leaf.weights)
        if isinstance(ranking, LeafRanking) and ranking.protected is not None:
            structure: Any = ranking.structure
            is_protected = structure.protected_mask(ranking.protected[i], leaf.weights)
            is_never_pruned &= ~is_protected
        if number := int(jnp.count_nonzero(is_never_pruned)):
            counts[leaf.path] = number
    return counts


def _residual(pruned_norm: float, norm: float, non_finite: int) -> float:
    if norm == 0 and non_finite:
        return math.nan
    return ratio(pruned_norm, norm)


def _leaf_summary(leaf: PrunableLeaf, entry: _Measurement) -> LeafSummary:
    return LeafSummary(
        path=leaf.path,
        shape=tuple(leaf.weights.shape),
        dtype=str(leaf.weights.dtype),
        weights=leaf.weights.size,
        zeros=entry.zeros,
        pruned=entry.pruned,
        non_finite=entry.non_finite,
        residual=_residual(entry.pruned_norm, entry.norm, entry.non_finite),
    )
