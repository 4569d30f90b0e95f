"""Scores and masks for tests of criteria, and the norm in NumPy."""

import jax
import numpy as np

import swd_jax
from swd_jax._arrays import sort_keys
from swd_jax.criteria import _criterion

# A leaf of four weights, and a gradient for it.
KERNEL = {"kernel": np.array([[1.0, -2.0], [3.0, 4.0]], np.float32)}


GRADIENT = {"kernel": np.array([[4.0, 1.0], [0.5, -0.1]], np.float32)}


def scores(criterion: swd_jax.criteria.Criterion, weights) -> np.ndarray:
    """Score one leaf under jit, by a criterion of the weights alone."""

    @jax.jit
    def compute(weights):
        dtype = sort_keys.score_dtype(weights.dtype)
        [statistic] = _criterion.statistics(criterion, [weights], dtype)
        return _criterion.scores(criterion, weights, statistic, {}, dtype)

    return np.asarray(compute(weights))


def pruned_ints(params, target, **extra_args):
    """Give the pruned weights as nested lists of ones and zeros."""
    mask = swd_jax.prune_mask(params, target, **extra_args)
    return jax.tree.map(lambda leaf: (~np.asarray(leaf)).astype(int).tolist(), mask)


def reference_norm(weights: np.ndarray) -> float:
    """Compute the L2 norm of the finite weights, scaled so that no square overflows."""
    finite = weights[np.isfinite(weights)].astype(np.float64)
    largest = np.max(np.abs(finite), initial=0)
    return largest * np.sqrt(np.sum((finite / largest) ** 2)) if largest else 0.0


def after_optimizer(form, target):
    """Make a transformation that stands after the optimizer."""
    if form == "pruning":
        return swd_jax.methods.magnitude_pruning(target)
    make = {"decoupled": swd_jax.decoupled_swd, "proximal": swd_jax.proximal_swd}[form]
    return make(target, weight_decay=0.5, a=1.0, learning_rate=1.0)
