"""The rule of pruning, one unit after the other: what random trees are compared with.

Units are taken in the order of their scores, ties in the order of the leaves, then by
position, until one does not fit in the rest of the budget k = floor(s n).
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

import swd_jax
from tests.helpers import structured


class Units(NamedTuple):
    """The units of one leaf."""

    scores: np.ndarray
    """Their scores in float64, infinite for units that are never pruned. (units,)"""
    sizes: np.ndarray
    """The number of weights of each. (units,)"""
    of_weight: np.ndarray
    """The number of the unit that each weight belongs to, in the leaf's shape."""


class Pruned(NamedTuple):
    """What the rule says of each leaf."""

    thresholds: list[float]
    selected: list[np.ndarray]
    """The weights whose scores are below the threshold."""
    pruned: list[np.ndarray]
    """Those that are pruned: the ties that fit in the budget too."""


def weight_scores(leaf: np.ndarray) -> np.ndarray:
    """Return magnitudes in float64, infinite for those that are not finite."""
    with np.errstate(invalid="ignore"):
        magnitudes = np.abs(leaf.astype(np.float64))
    return np.where(np.isfinite(magnitudes), magnitudes, np.inf)


def units_of_weights(scores: np.ndarray) -> Units:
    """Return a unit for every weight."""
    numbers = np.arange(scores.size).reshape(scores.shape)
    return Units(scores.ravel(), np.ones(scores.size, int), numbers)


def without_best(structure: swd_jax.NM, scores: np.ndarray) -> np.ndarray:
    """Return scores that are infinite for the best n of every m."""
    if scores.size == 0:
        return scores
    kept = structured.best_of_every(scores, structure.n, structure.m, structure.axis)
    return np.where(kept, np.inf, scores)


def grid(structure, shape: tuple[int, ...]) -> np.ndarray:
    """Return the number of the block or channel that each weight belongs to."""
    if isinstance(structure, swd_jax.Block):
        lengths = [1] * (len(shape) - len(structure.shape)) + [*structure.shape]
        lengths = [
            n if length is None else length
            for n, length in zip(shape, lengths, strict=True)
        ]
    else:
        lengths = [*shape]
        lengths[structure.axis] = structure.size
    numbers = np.zeros(shape, int)
    for axis, (n, length) in enumerate(zip(shape, lengths, strict=True)):
        places = np.arange(n) // max(length, 1)
        along = [1] * len(shape)
        along[axis] = n
        numbers = numbers * (-(-n // max(length, 1))) + places.reshape(along)
    return numbers


def norms(structure, scores: np.ndarray, of_weight: np.ndarray) -> np.ndarray:
    """Return the norm of the scores of each unit, in float64."""
    found = []
    for unit in range(int(of_weight.max(initial=-1)) + 1):
        members = scores[of_weight == unit]
        largest = members.max(initial=0.0)
        if largest == 0 or not np.isfinite(largest):
            found.append(largest)
            continue
        shares = members / largest
        match structure.norm:
            case "rms":
                norm = math.sqrt(np.mean(shares**2))
            case "l2":
                norm = math.sqrt(np.sum(shares**2))
            case "mean":
                norm = np.mean(shares)
            case _:
                norm = np.sum(shares)
        # Beyond float64 a norm is infinite, as beyond the type of the scores.
        with np.errstate(over="ignore"):
            found.append(largest * norm)
    return np.array(found)


def most_pruned(leaf: np.ndarray, units: Units, min_kept: float) -> int:
    """Return how many weights a leaf may lose."""
    if isinstance(min_kept, float):
        min_kept = math.ceil(Fraction(str(min_kept)) * leaf.size)
    most = max(leaf.size - min_kept, 0)
    if len(set(units.sizes.tolist())) == 1:
        most -= most % int(units.sizes[0])
    return most


def prune(
    leaves: Sequence[np.ndarray],
    units: Sequence[Units],
    pools: Sequence[Sequence[int]],
    sparsities: Sequence[float],
    min_kept: float = 0,
) -> Pruned:
    """Apply the rule to all pools."""
    thresholds = [math.inf] * len(leaves)
    taken = [np.zeros(len(entry.scores), bool) for entry in units]
    for pool, sparsity in zip(pools, sparsities, strict=True):
        size = sum(leaves[i].size for i in pool)
        budget = min(math.floor(Fraction(str(sparsity)) * size), max(size - 1, 0))
        caps = {i: most_pruned(leaves[i], units[i], min_kept) for i in pool}
        order = sorted(
            (units[i].scores[unit], i, unit)
            for i in pool
            for unit in range(len(units[i].scores))
        )
        # A leaf that loses no more counts as much as it may lose.
        passed = dict.fromkeys(pool, 0)
        pool_threshold = math.inf
        leaf_thresholds = dict.fromkeys(pool, math.inf)
        is_over = False
        for score, i, unit in order:
            passed[i] += int(units[i].sizes[unit])
            if passed[i] > caps[i]:
                leaf_thresholds[i] = min(leaf_thresholds[i], score)
            if sum(min(passed[j], caps[j]) for j in pool) > budget and not is_over:
                is_over, pool_threshold = True, score
            if not is_over and passed[i] <= caps[i] and math.isfinite(score):
                taken[i][unit] = True
        for i in pool:
            thresholds[i] = min(pool_threshold, leaf_thresholds[i])
    entries = zip(leaves, units, thresholds, taken, strict=True)
    selected, pruned = [], []
    for leaf, entry, threshold, units_taken in entries:
        if leaf.size == 0:
            selected.append(np.zeros(leaf.shape, bool))
            pruned.append(np.zeros(leaf.shape, bool))
            continue
        selected.append((entry.scores < threshold)[entry.of_weight])
        pruned.append(units_taken[entry.of_weight])
    return Pruned(thresholds, selected, pruned)
