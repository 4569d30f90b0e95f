"""LAMP: the magnitude over the norm of the leaf's weights that are not smaller."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from swd_jax._arrays import sort_keys
from swd_jax._arrays.explicit_sharding import replicate, reshard_like
from swd_jax.criteria._criterion import Criterion, LibraryCriterion


def _score(weights: jax.Array, statistic: tuple[jax.Array, jax.Array]) -> jax.Array:
    scale, factors = statistic
    return jnp.abs(weights) * scale * factors


def _statistics(leaves: Sequence[jax.Array]) -> list[tuple[jax.Array, jax.Array]]:
    return [_leaf_statistic(leaf) for leaf in leaves]


def _leaf_statistic(weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute the two factors that turn magnitudes into scores.

    Returns:
      A power of two by which all magnitudes become less than 1, shape (), so that
      squares do not overflow. And the reciprocal root of the sum of the scaled squares
      that are not smaller than each weight's own, in the shape of the leaf.
    """
    if weights.size == 0:
        return jnp.ones((), weights.dtype), weights
    info = jnp.finfo(weights.dtype)
    whole = replicate(weights)
    keys = sort_keys.to_key(whole.ravel())
    finite = keys < sort_keys.largest_key(info.dtype)
    largest = jnp.max(jnp.where(finite, keys, 0))
    power = sort_keys.power_of_two_below(largest, info.dtype)
    scale = 0.5 / jnp.where(power >= info.tiny, power, 1)
    order = jnp.argsort(keys)
    ascending = jnp.where(finite, jnp.abs(whole.ravel()), 0)[order] * scale
    sums = jnp.cumsum(jnp.square(ascending)[::-1])[::-1]
    # XLA adds in blocks, and the rounded sums may rise: without this a larger weight
    # could score less than a smaller one.
    sums = jax.lax.cummax(sums, reverse=True)
    # Weights that tie share the sum of the first of them.
    ranks = jnp.arange(keys.size)
    is_first = jnp.append(True, ascending[1:] != ascending[:-1])
    sums = sums[jax.lax.cummax(jnp.where(is_first, ranks, 0))]
    factors = jnp.where(sums > 0, jax.lax.rsqrt(sums), 1)
    factors = jnp.zeros_like(factors).at[order].set(factors, unique_indices=True)
    return scale, reshard_like(factors.reshape(weights.shape), weights)


lamp: Criterion = LibraryCriterion("lamp", _score, statistics=_statistics)
r"""LAMP, the layer-adaptive magnitude: |w| over the norm of the weights not smaller.

.. math:: \text{score}(w) = \Bigl(w^2 \Big/ \textstyle\sum_{|v| \ge |w|} v^2
          \Bigr)^{1/2}

with the sum over the weights v of the same leaf. The root does not change the order.
A global target empties no leaf: the largest weight of each scores 1, or less only where
others tie with it. Within a leaf the order is that of magnitude.

Each search for thresholds sorts every leaf, at every step of training too, and needs
whole leaves: on a CPU it takes hundreds of times as long as `magnitude`, and on several
devices the leaves are replicated, at 4 bytes a weight. That does not matter for
`prune`; for training large models take `normalized_magnitude`.

Source: Lee et al., "Layer-adaptive sparsity for the magnitude-based pruning"
(arXiv 2010.07611), equation 4.
"""
