r"""Norms that are equal to the bit on any number of devices, in any order of summation.

A sum of floats depends on the order of its terms. So magnitudes are rounded to fixed
point and summed as integers. For magnitudes :math:`m_i` and the power of two p with
:math:`p \le \max_i m_i < 2p`, the L2 norm is

.. math:: 2p \sqrt{2^{-b} \textstyle\sum_i q_i}, \quad
          q_i = \lfloor 2^b (m_i / 2p)^2 \rfloor

and the L1 norm is the same without square and root. `axis_norms` uses it along axes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from swd_jax._arrays import exact_sums, sort_keys, xla_cpu
from swd_jax._arrays.manual_sharding import Shards

# Fraction bits of a leaf's fixed-point squares: each fills an unsigned 32-bit integer
# but for the top bit.
_LEAF_FRACTION_BITS = 31


class FixedPointScale(NamedTuple):
    """The scale of fixed-point magnitudes, for one sum or an array of sums."""

    power: jax.Array
    """p, the greatest power of two up to the largest magnitude."""
    factor: jax.Array
    """2 / p: the reciprocal of the largest finite p would be subnormal. 2 where p is
    subnormal."""
    is_normal: jax.Array
    """Whether p is a normal number. Where it is not, the norm is taken for zero."""


def fixed_point_scale(largest_keys: jax.Array, dtype: jnp.dtype) -> FixedPointScale:
    """Return the scale for sums whose largest magnitudes have these sort keys."""
    power = sort_keys.power_of_two_below(largest_keys, dtype)
    is_normal = power >= jnp.finfo(dtype).tiny
    return FixedPointScale(power, 2 / jnp.where(is_normal, power, 1), is_normal)


def to_fixed_point(
    values: jax.Array, factor: jax.Array, fraction_bits: int, *, squared: bool
) -> jax.Array:
    """Return m / 2p, or its square, in units of 2^-fraction_bits, rounded down.

    Args:
      values: floats of either sign with magnitudes m below 2p; elsewhere the results
        have no meaning.
      factor: 2 / p, which broadcasts to the values.
      fraction_bits: b, at most 31.
      squared: whether to square.

    Returns:
      The integers, dtype=uint32.
    """
    quadruples = jnp.abs(values) * factor  # 4 (m / 2p)
    scaled = jnp.square(quadruples) if squared else quadruples
    unit = 2.0 ** (fraction_bits - (4 if squared else 2))
    return (scaled * unit).astype(jnp.int32).astype(jnp.uint32)


def norm_from_total(
    total: jax.Array, scale: FixedPointScale, *, squared: bool
) -> jax.Array:
    """Return the norm, from the sum of (m / 2p), or of its square, as a float."""
    root = jnp.sqrt(total) if squared else total
    root = root.astype(scale.power.dtype)
    return jnp.where(scale.is_normal, 2 * root * scale.power, 0)


def leaf_l2_norms(
    leaves: Sequence[jax.Array], shards: Shards | None = None
) -> jax.Array:
    r"""Return the L2 norm of the finite weights of each leaf.

    Args:
      leaves: of one dtype, float32 or float64; at least one.
      shards: how the leaves are sharded manually, if they are.

    Returns:
      The norms, shape (leaves,). One array for all leaves: with a thousand leaves, as
      many scalar operations would take long to compile.
    """
    dtype = jnp.finfo(leaves[0].dtype).dtype
    keys = [_finite_keys(leaf) for leaf in leaves]
    scale = fixed_point_scale(exact_sums.max_keys(keys, shards), dtype)
    factors = xla_cpu.unstack_unfused(scale.factor)
    squares = [
        to_fixed_point(
            jnp.where(jnp.isfinite(leaf), leaf, 0),
            factor,
            _LEAF_FRACTION_BITS,
            squared=True,
        )
        for leaf, factor in zip(leaves, factors, strict=True)
    ]
    sums = exact_sums.sums_as_float32(squares, shards)
    return norm_from_total(sums * 2.0**-_LEAF_FRACTION_BITS, scale, squared=True)


def _finite_keys(weights: jax.Array) -> jax.Array:
    """Return the sort keys of weights, and 0 for those that are not finite."""
    keys = sort_keys.to_key(weights)
    return jnp.where(keys < sort_keys.largest_key(weights.dtype), keys, 0)
