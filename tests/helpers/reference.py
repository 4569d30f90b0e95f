"""Selection and pruning by sorting, in NumPy: what the tests compare with."""

import math
from fractions import Fraction

import numpy as np


def pruned_count(sparsity: float | Fraction, weights: int) -> int:
    """K = floor(s n), of the decimal that s prints as."""
    return math.floor(Fraction(str(sparsity)) * weights)


def magnitudes(leaves: list[np.ndarray]) -> np.ndarray:
    """|w| of all leaves in one row, exactly, what is not finite as infinity."""
    with np.errstate(invalid="ignore"):
        flat = [np.abs(np.asarray(leaf).astype(np.float64)).ravel() for leaf in leaves]
    scores = np.concatenate([np.zeros(0), *flat])
    return np.where(np.isfinite(scores), scores, np.inf)


def threshold(leaves: list[np.ndarray], sparsity: float) -> np.float64:
    """tau, the (k+1)-th smallest magnitude of all."""
    scores = magnitudes(leaves)
    return np.sort(scores)[pruned_count(sparsity, scores.size)]


def selected(leaves: list[np.ndarray], sparsity: float) -> list[np.ndarray]:
    """Where |w| < tau."""
    scores = magnitudes(leaves)
    if scores.size == 0:
        return [np.zeros(np.shape(leaf), bool) for leaf in leaves]
    return split(scores < threshold(leaves, sparsity), leaves)


def pruned(leaves: list[np.ndarray], sparsity: float) -> list[np.ndarray]:
    """The k smallest, ties by the order of the leaves and then by position."""
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
    """The members with the lowest scores that cost no more than a budget together.

    Whole levels of equal scores, as far as they fit, and of the next level the first
    ones, leaf by leaf: of each leaf's as many as fit in what is left when the leaves
    before it have had all of theirs.
    """
    flat = np.concatenate([np.ravel(each).astype(np.float64) for each in scores])
    cost = np.concatenate([np.ravel(each).astype(np.int64) for each in costs])
    leaf = np.concatenate([np.full(np.size(e), i) for i, e in enumerate(scores)])
    flat = np.where(np.isfinite(flat), flat, np.inf)
    lost = np.zeros(flat.size, bool)
    for level in np.unique(flat[np.isfinite(flat)]):
        tied = flat == level
        left = budget - cost[lost].sum()
        if cost[tied].sum() <= left:
            lost |= tied
            continue
        for i in range(len(scores)):
            here = np.flatnonzero(tied & (leaf == i))
            fits = np.cumsum(cost[here]) <= left
            lost[here[fits]] = True
            left = max(left - cost[here].sum(), 0)
        break
    return split(lost, scores)
