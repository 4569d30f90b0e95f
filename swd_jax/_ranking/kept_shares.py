"""What a continuous threshold leaves of each weight that is kept."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp


class KeptShares(NamedTuple):
    """What a continuous threshold leaves of some leaves."""

    factors: list[jax.Array]
    """From 0 to 1, in the leaves' shapes; without meaning where a weight is pruned."""
    lost_squares: jax.Array | None = None
    """By how much the factors reduce the sum of squares of each leaf's kept weights:
    shape (leaves,). None where only the products of factors and weights tell."""


def kept_share(scores: jax.Array, largest_pruned: jax.Array, power: float) -> jax.Array:
    r"""Return the factor of every kept weight under a continuous threshold.

    .. math:: (1 - (\sigma / s)^p)^{1/p}

    It goes to 0 where the score s comes down to :math:`\sigma`, the largest score that
    is pruned, so that a weight which crosses the threshold does not jump.

    Args:
      scores: s, float32 or float64, at least 0.
      largest_pruned: :math:`\sigma`, of the same dtype; it broadcasts to the scores.
      power: p, greater than 0. Infinity leaves the whole weight.

    Returns:
      Factors from 0 to 1 in the shape of the scores: greater than 0 where the score is
      greater than :math:`\sigma`, and 1 where it is not finite. They have no meaning
      where it is at most :math:`\sigma`.
    """
    if math.isinf(power):
        return jnp.ones_like(scores)
    is_above = (scores > largest_pruned) & jnp.isfinite(scores)
    # 1 - sigma / s would round to 0 just above the threshold.
    distance = (scores - largest_pruned) / jnp.where(is_above, scores, 1)
    distance = jnp.where(is_above, distance, 1)
    if power == 1:
        return distance
    if power == 2:
        return jnp.sqrt(distance * (2 - distance))
    # At a distance of 1 the logarithm is infinite, at which `jax_debug_infs` raises.
    is_shrunk = distance < 1
    lost = jnp.expm1(power * jnp.log1p(-jnp.where(is_shrunk, distance, 0.5)))
    return jnp.where(is_shrunk, jnp.exp(jnp.log(-lost) / power), 1)
