"""Selection and pruning by sorting, in NumPy: what the tests compare with."""

import math
from fractions import Fraction

import numpy as np


def pruned_count(sparsity: float | Fraction, weights: int) -> int:
    """Return k = floor(s n), with s taken as the decimal that it prints as."""
    return math.floor(Fraction(str(sparsity)) * weights)


def magnitudes(leaves: list[np.ndarray]) -> np.ndarray:
    """Return |w| of all leaves in one row, with infinity for NaN and infinity."""
    with np.errstate(invalid="ignore"):
        flat = [np.abs(np.asarray(leaf).astype(np.float64)).ravel() for leaf in leaves]
    scores = np.concatenate([np.zeros(0), *flat])
    return np.where(np.isfinite(scores), scores, np.inf)


def threshold(leaves: list[np.ndarray], sparsity: float) -> np.float64:
    """Return tau, the (k+1)-th smallest magnitude of all."""
    scores = magnitudes(leaves)
    return np.sort(scores)[pruned_count(sparsity, scores.size)]


def selected(leaves: list[np.ndarray], sparsity: float) -> list[np.ndarray]:
    """Return masks of |w| < tau."""
    scores = magnitudes(leaves)
    if scores.size == 0:
        return [np.zeros(np.shape(leaf), bool) for leaf in leaves]
    return split(scores < threshold(leaves, sparsity), leaves)


def pruned(leaves: list[np.ndarray], sparsity: float) -> list[np.ndarray]:
    """Return masks of the k smallest; ties go by leaf and then by position."""
    scores = magnitudes(leaves)
    lowest = np.argsort(scores, kind="stable")[: pruned_count(sparsity, scores.size)]
    mask = np.zeros(scores.size, bool)
    mask[lowest] = True
    return split(mask & np.isfinite(scores), leaves)


def split(mask: np.ndarray, leaves: list[np.ndarray]) -> list[np.ndarray]:
    ends = np.cumsum([np.size(leaf) for leaf in leaves])
    parts = np.split(mask, ends[:-1]) if leaves else []
    return [
        part.reshape(np.shape(leaf)) for part, leaf in zip(parts, leaves, strict=True)
    ]


def group_lowest(
    scores: list[np.ndarray], costs: list[np.ndarray], budget: int
) -> list[np.ndarray]:
    """Return masks of the units with the lowest scores that a budget pays for.

    Units of equal score are taken together while the budget pays for all of them. From
    the first level that is too expensive, each leaf in turn gives its first units that
    the rest of the budget pays for; the rest counts all units of the leaves before it.
    """
    flat = np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in scores])
    cost = np.concatenate([np.ravel(leaf).astype(np.int64) for leaf in costs])
    leaf = np.concatenate([np.full(np.size(e), i) for i, e in enumerate(scores)])
    flat = np.where(np.isfinite(flat), flat, np.inf)
    pruned = np.zeros(flat.size, bool)
    for level in np.unique(flat[np.isfinite(flat)]):
        tied = flat == level
        rest = budget - cost[pruned].sum()
        if cost[tied].sum() <= rest:
            pruned |= tied
            continue
        for i in range(len(scores)):
            units = np.flatnonzero(tied & (leaf == i))
            fits = np.cumsum(cost[units]) <= rest
            pruned[units[fits]] = True
            rest = max(rest - cost[units].sum(), 0)
        break
    return split(pruned, scores)
