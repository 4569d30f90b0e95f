"""Reference scores of every structure, computed with loops in NumPy."""

import itertools
import math

import numpy as np

import swd_jax


def block_norms(scores: np.ndarray, lengths, norm: str):
    """Return the norm and the number of weights of each block.

    The library rounds norms down to units of 2**-27 of the block's largest power of two
    (or its square). float64 holds every intermediate result exactly.
    """
    grid = [
        range(0, n, max(min(n, b), 1))
        for n, b in zip(scores.shape, lengths, strict=True)
    ]
    norms = np.zeros([len(starts) for starts in grid], scores.dtype)
    sizes = np.zeros(norms.shape, np.int64)
    members = math.prod(min(n, b) for n, b in zip(scores.shape, lengths, strict=True))
    for index in itertools.product(*(range(len(starts)) for starts in grid)):
        corner = [grid[axis][i] for axis, i in enumerate(index)]
        block = scores[
            tuple(slice(c, c + b) for c, b in zip(corner, lengths, strict=True))
        ]
        sizes[index] = block.size
        norms[index] = norm_of(block.ravel(), norm, members)
    return norms, sizes


def norm_of(scores: np.ndarray, norm: str, members: int):
    if not np.isfinite(scores).all():
        return np.inf
    largest = scores.max(initial=0)
    if largest == 0:
        return 0.0
    power = 2.0 ** (math.frexp(float(largest))[1] - 1)
    shares = (scores / scores.dtype.type(2 * power)).astype(scores.dtype)
    squared = norm in ("rms", "l2")
    shares = shares * shares if squared else shares
    units = np.floor(shares.astype(np.float64) * 2**27).astype(np.int64)
    # The library adds groups of digits whose sums fit 32 bits, and then these sums.
    bits = 31 - (members - 1).bit_length()
    total = scores.dtype.type(0)
    for low in reversed(range(0, 27, bits)):
        digits = scores.dtype.type((units >> low & (1 << bits) - 1).sum())
        total = total + digits * scores.dtype.type(2.0 ** (low - 27))
    if norm in ("rms", "mean"):
        total = total * scores.dtype.type(1 / scores.size)
    root = np.sqrt(total) if squared else total
    return scores.dtype.type(2) * root * scores.dtype.type(power)


def best_of_every(scores: np.ndarray, n: int, m: int, axis: int) -> np.ndarray:
    """Return where a score is among the n best of m; of equal scores the later wins."""
    rows = np.moveaxis(scores, axis, -1)
    kept = np.zeros(rows.shape, bool)
    for row in np.ndindex(rows.shape[:-1]):
        for start in range(0, rows.shape[-1], m):
            window = rows[row][start : start + m]
            order = sorted(
                range(len(window)), key=lambda i: (window[i], i), reverse=True
            )
            for i in order[:n]:
                kept[(*row, start + i)] = True
    return np.moveaxis(kept, -1, axis)


def groups(structure, scores: np.ndarray):
    """Return scores and sizes of a leaf's units, and the unit of every weight."""
    numbers = np.arange(scores.size).reshape(scores.shape)
    if isinstance(structure, swd_jax.NM):
        kept = best_of_every(scores, structure.n, structure.m, structure.axis)
        return np.where(kept, np.inf, scores), np.ones(scores.shape, int), numbers
    if isinstance(structure, swd_jax.Unstructured):
        return scores, np.ones(scores.shape, int), numbers
    if isinstance(structure, swd_jax.Block):
        missing = (1,) * (scores.ndim - len(structure.shape))
        lengths = [*missing, *structure.shape]
        lengths = [
            n if b is None else b for n, b in zip(scores.shape, lengths, strict=True)
        ]
    else:
        axis = structure.axis % scores.ndim
        lengths = [
            structure.size if i == axis else n for i, n in enumerate(scores.shape)
        ]
    norms, sizes = block_norms(scores, lengths, structure.norm)
    places = [
        np.arange(n) // max(min(n, b), 1)
        for n, b in zip(scores.shape, lengths, strict=True)
    ]
    grid = np.meshgrid(*places, indexing="ij")
    return norms, sizes, np.ravel_multi_index(grid, norms.shape)
