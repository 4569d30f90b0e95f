"""The norms of whole leaves, the same on however many devices."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from swd_jax._arrays import exact_sums, sort_keys, variadic_reduce
from swd_jax._arrays.manual_sharding import Shards


def l2_norms(leaves: Sequence[jax.Array], shards: Shards | None = None) -> jax.Array:
    r"""The L2 norms of the finite weights of leaves, however large or small they are.

    .. math:: \frac{p}{2} \sqrt{\textstyle\sum_i q_i / 2^{27}}, \quad
              q_i = \lfloor 2^{27} (2 w_i / p)^2 \rfloor

    where :math:`p` is the power of two below the largest weight. The sum is of
    integers, and so the same in whatever order, on however many devices, it is taken.

    Args:
      leaves: of one type, float32 or float64; at least one.
      shards: how they are divided by hand, if they are.

    Returns:
      Their norms, shape (leaves,), all worked out together: with a thousand leaves,
      what is compiled counts.
    """
    info = jnp.finfo(leaves[0].dtype)
    largest = exact_sums.largest([_finite_keys(leaf) for leaf in leaves], shards)
    powers = sort_keys.power_below(largest, info.dtype)
    some = powers >= info.tiny
    # At most 4: a factor of 1 / p would not be a normal number for the largest p.
    scales = variadic_reduce.separate(2 / jnp.where(some, powers, 1))
    squares = [_squares(*each) for each in zip(leaves, scales, strict=True)]
    sums = exact_sums.sums_as_float(squares, shards)
    half_roots = jnp.sqrt(sums * 2.0**-29).astype(info.dtype)
    return jnp.where(some, half_roots * powers, 0)


def _finite_keys(weights: jax.Array) -> jax.Array:
    """The keys of weights, 0 for those that are not finite."""
    keys = sort_keys.to_key(weights)
    return jnp.where(keys < sort_keys.largest_key(weights.dtype), keys, 0)


def _squares(weights: jax.Array, scale: jax.Array) -> jax.Array:
    """(w * scale)^2 in units of 2^-27, less than 2^31; 0 where w is not finite."""
    shares = jnp.where(jnp.isfinite(weights), jnp.abs(weights) * scale, 0)
    return (jnp.square(shares) * 2.0**27).astype(jnp.int32).astype(jnp.uint32)
