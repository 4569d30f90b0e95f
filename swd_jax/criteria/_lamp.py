"""LAMP: a weight's share of what its leaf would have left without smaller ones."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from swd_jax._arrays import sort_keys
from swd_jax._arrays.manual_sharding import laid_out_as, undivided
from swd_jax.criteria._criterion import Criterion


def _score(weights: jax.Array, statistic: tuple[jax.Array, jax.Array]) -> jax.Array:
    scale, factors = statistic
    return jnp.abs(weights) * scale * factors


def _statistics(leaves: Sequence[jax.Array]) -> list[tuple[jax.Array, jax.Array]]:
    return [_of_leaf(leaf) for leaf in leaves]


def _of_leaf(weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The two factors of each weight.

    A power of two that brings magnitudes below 1, and the reciprocal root of the sum of
    the squares that are not smaller then, in the shape of the leaf.
    """
    if weights.size == 0:
        return jnp.ones((), weights.dtype), weights
    info = jnp.finfo(weights.dtype)
    whole = undivided(weights)
    keys = sort_keys.to_key(whole.ravel())
    finite = keys < sort_keys.largest_key(info.dtype)
    largest = jnp.max(jnp.where(finite, keys, 0))
    power = sort_keys.power_below(largest, info.dtype)
    some = power >= info.tiny
    scale = 0.5 / jnp.where(some, power, 1)
    order = jnp.argsort(keys)
    ranked = jnp.where(finite, jnp.abs(whole.ravel()), 0)[order] * scale
    sums = jnp.cumsum(jnp.square(ranked)[::-1])[::-1]
    # Rounding must not put a weight before a smaller one.
    sums = jax.lax.cummax(sums, reverse=True)
    # Weights that tie have all of the same sum: that from the first of them on.
    places = jnp.arange(keys.size)
    begins = jnp.append(True, ranked[1:] != ranked[:-1])
    sums = sums[jax.lax.cummax(jnp.where(begins, places, 0))]
    factors = jnp.where(sums > 0, jax.lax.rsqrt(sums), 1)
    found = jnp.zeros_like(factors).at[order].set(factors, unique_indices=True)
    return scale, laid_out_as(found.reshape(weights.shape), weights)


lamp = Criterion("lamp", _score, statistics=_statistics)
r"""LAMP, the layer-adaptive magnitude: |w| over the norm of those not smaller.

.. math:: \text{score}(w) = \Bigl(w^2 \Big/ \textstyle\sum_{|v| \ge |w|} v^2
          \Bigr)^{1/2}

with the sum over the weights v of the same leaf. The root leaves the order as it is.
Under a global target no leaf is emptied: the largest weight of each scores 1, or less
only where others tie with it. Within a leaf the order is that of magnitude.

It sorts each leaf whenever thresholds are looked for, at every step of training too,
and needs leaves whole: on a CPU that costs hundreds of times what `magnitude` does, on
several devices the leaves are gathered, and 4 bytes a weight are held meanwhile. For
`prune` that is nothing; for training on large models take `normalized_magnitude`.

Source: Lee et al., "Layer-adaptive sparsity for the magnitude-based pruning"
(arXiv 2010.07611), equation 4.
"""
