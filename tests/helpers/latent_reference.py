"""Latent pruning in NumPy, from sorted scores: what the tests compare with."""

import math

import numpy as np

from tests.helpers import reference


def shares(scores, largest_pruned, power):
    """Return (1 - (sigma / s)^p)^(1/p) for positive scores above sigma."""
    if math.isinf(power):
        return np.ones_like(scores)
    return (1 - (largest_pruned / scores) ** power) ** (1 / power)


def in_one_pool(scores, sparsity, *, sizes=None, min_kept=0):
    """Return what all leaves together lose, and sigma of each leaf.

    Args:
      scores: of the units of each leaf, different from one another.
      sparsity: a number, as pruned_count takes it.
      sizes: the weights of each unit of a leaf; 1 if not given.
      min_kept: units that each leaf keeps at least, its best.
    """
    budget = reference.pruned_count(
        sparsity,
        sum(
            score.size * size
            for score, size in zip(scores, sizes or [1] * len(scores), strict=True)
        ),
    )
    best = [
        np.sort(score, axis=None)[score.size - min_kept] if min_kept else np.inf
        for score in scores
    ]
    candidates = [
        (value, leaf)
        for leaf, score in enumerate(scores)
        for value in score.ravel()
        if value < best[leaf]
    ]
    lost = [[] for _ in scores]
    for value, leaf in sorted(candidates):
        size = sizes[leaf] if sizes else 1
        if size > budget:
            break
        budget -= size
        lost[leaf].append(value)
    sigma = max([0.0, *(value for values in lost for value in values)])
    masks, sigmas = [], []
    for score, values in zip(scores, lost, strict=True):
        largest = max([0.0, *values])
        masks.append((score <= largest) & (len(values) > 0))
        kept = score[~masks[-1]]
        sigmas.append(largest if (kept < sigma).any() else sigma)
    return masks, sigmas


def each_by_itself(scores, sparsity, **options):
    pairs = [in_one_pool([score], sparsity, **options) for score in scores]
    return [masks[0] for masks, _ in pairs], [sigmas[0] for _, sigmas in pairs]


def magnitudes(latents):
    return [np.abs(latent) for latent in latents]


def normalized_magnitudes(latents):
    return [np.abs(latent) / np.linalg.norm(latent) for latent in latents]


def step(
    weights,
    memory,
    updates,
    sparsity,
    *,
    power,
    forgetting,
    max_rescale,
    prune=in_one_pool,
    score=magnitudes,
    unit=None,
):
    """Return the weights and the memory of some leaves after one update.

    Args:
      weights: of the prunable leaves, float64.
      memory: as the weights.
      updates: those of the optimizer.
      sparsity: of this step.
      power: p.
      forgetting: rho.
      max_rescale: c.
      prune: what is pruned, of scores and a sparsity.
      score: the scores of latent weights.
      unit: the lengths of blocks, which are scored by their root mean square.
    """
    latents = [w + m + u for w, m, u in zip(weights, memory, updates, strict=True)]
    scores, expand = score(latents), lambda units: units
    options = {}
    if unit:
        rows, columns = unit
        scores = [root_mean_squares(each, rows, columns) for each in scores]
        options = {"sizes": [rows * columns] * len(scores)}
        expand = lambda units: units.repeat(rows, axis=0).repeat(columns, axis=1)
    masks, sigmas = prune(scores, sparsity, **options)
    new_weights, new_memory = [], []
    for latent, update, units, mask, sigma in zip(
        latents, updates, scores, masks, sigmas, strict=True
    ):
        lost = expand(mask)
        share = shares(np.where(mask, np.inf, units), sigma, power)
        shrunk = np.where(lost, 0, latent * expand(share))
        kept = np.where(lost, 0, latent)
        rescale = min(max_rescale, np.linalg.norm(kept) / np.linalg.norm(shrunk))
        change = np.linalg.norm(update) / np.linalg.norm(kept)
        new = shrunk * rescale
        remembered = np.where(lost, latent / (1 + forgetting * change), latent)
        new_weights.append(new)
        new_memory.append(remembered - new)
    return new_weights, new_memory


def root_mean_squares(scores, rows, columns):
    n, m = scores.shape
    blocks = scores.reshape(n // rows, rows, m // columns, columns)
    return np.sqrt(np.square(blocks).mean(axis=(1, 3)))


def cubic(final, begin, end, step):
    """Return the rising sparsity, read to seven decimals as the library reads it."""
    done = min(max((step - begin) / (end - begin), 0), 1)
    return f"{final * (1 - (1 - done) ** 3):.7f}"
