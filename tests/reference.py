"""Selection and pruning by sorting, in NumPy: what the tests compare with."""

import math
from fractions import Fraction

import numpy as np


def pruned_count(sparsity: float, weights: int) -> int:
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
