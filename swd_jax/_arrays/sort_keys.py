"""Sort keys: integers in the order of floating-point magnitudes.

Without its sign bit, the bit pattern of an IEEE float read as an integer grows with the
float: 0 < subnormals < normals < infinity < NaN. Comparisons of these integers are
exact. Comparisons of floats are not: XLA:CPU flushes subnormal operands to zero. And
the order statistics of integers can be found by counting.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike


def key_dtype(score_dtype: DTypeLike) -> jnp.dtype:
    """Return the integer dtype with as many bits as a float32 or float64 score."""
    # Signed: the sign bit of a key is 0, and CPUs compare signed integers faster.
    return jnp.dtype(f"int{8 * jnp.dtype(score_dtype).itemsize}")


def largest_key(score_dtype: DTypeLike) -> int:
    """Return the key of infinity: scores with this key or a larger are not finite."""
    info = jnp.finfo(score_dtype)
    return ((1 << info.nexp) - 1) << info.nmant


def key_bits(score_dtype: DTypeLike) -> int:
    """Return the number of bits of a key: all but the sign bit."""
    return jnp.finfo(score_dtype).bits - 1


def to_key(scores: jax.Array) -> jax.Array:
    """Return the keys of float32 or float64 scores; the sign is ignored."""
    dtype = key_dtype(scores.dtype)
    pattern = jax.lax.bitcast_convert_type(scores, dtype)
    return pattern & jnp.array((1 << key_bits(scores.dtype)) - 1, dtype)


def from_key(keys: ArrayLike, score_dtype: DTypeLike) -> jax.Array:
    """Return the non-negative scores that have these keys."""
    return jax.lax.bitcast_convert_type(
        jnp.asarray(keys, key_dtype(score_dtype)), jnp.dtype(score_dtype)
    )


def signed_to_nonnegative(scores: jax.Array) -> jax.Array:
    """Map scores of either sign monotonically to non-negative floats.

    The map drops the last bit: two scores that differ only there become equal. Scores
    that are not finite become infinity.
    """
    info = jnp.finfo(scores.dtype)
    dtype = key_dtype(scores.dtype)
    pattern = jax.lax.bitcast_convert_type(scores, dtype)
    # The patterns of negative floats have the sign bit set and grow with the magnitude;
    # inverting the other bits reverses their order.
    ascending = jnp.where(pattern < 0, pattern ^ jnp.iinfo(dtype).max, pattern)
    middle = jnp.array(largest_key(info.dtype) // 2, dtype)
    magnitudes = from_key((ascending >> 1) + middle, scores.dtype)
    return jnp.where(jnp.isfinite(scores), magnitudes, jnp.inf)


def score_dtype(*dtypes: DTypeLike) -> jnp.dtype:
    """Return the dtype in which weights of these dtypes are scored: float32 or float64.

    Type promotion is not used: users may have set `jax_numpy_dtype_promotion` to
    "strict".
    """
    has_float64 = any(jnp.dtype(dtype) == jnp.float64 for dtype in dtypes)
    return jnp.dtype(jnp.float64 if has_float64 else jnp.float32)


def widen(weights: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Convert weights to a wider float dtype and preserve subnormal numbers.

    XLA:CPU flushes subnormal float32 numbers to zero when it converts them to float64
    (jaxlib 0.10.2 and 0.12.0). Their magnitude is their key times the smallest
    subnormal, a normal number of float64. Narrower dtypes need no such care: their
    subnormal numbers are normal as float32, or, from bfloat16, the conversion only
    shifts bits.
    """
    dtype = jnp.dtype(dtype)
    weights = as_stored(weights)
    if dtype != jnp.float64 or weights.dtype == jnp.float64:
        return weights.astype(dtype)
    weights = weights.astype(jnp.float32)
    info = jnp.finfo(jnp.float32)
    key = to_key(weights)
    subnormal = key.astype(dtype) * jnp.array(info.smallest_subnormal, dtype)
    subnormal = jnp.where(jnp.signbit(weights), -subnormal, subnormal)
    return jnp.where(key < (1 << info.nmant), subnormal, weights.astype(dtype))


def as_stored(weights: jax.Array) -> jax.Array:
    """Return weights with the bits that they have once they are stored.

    XLA may skip the rounding of numbers in bfloat16 and float16 that the same program
    computes (its option `xla_allow_excess_precision`, on by default), in some of the
    operations that read them and not in others: a threshold and the mask of what is
    below would be those of different weights.
    """
    if weights.dtype not in (jnp.bfloat16, jnp.float16):
        return weights
    info = jnp.finfo(weights.dtype)
    return jax.lax.reduce_precision(weights, info.nexp, info.nmant)


def is_zero(weights: jax.Array, opaque_one: jax.Array) -> jax.Array:
    """Return the mask of weights that are zero; subnormal numbers are not.

    Args:
      weights: of any float dtype.
      opaque_one: the integer 1, unknown at compile time: an argument of the compiled
        function, or from `xla_cpu.opaque_one`, which says why.
    """
    key = to_key(widen(weights, score_dtype(weights.dtype)))
    return key < opaque_one.astype(key.dtype)


def power_of_two_below(keys: jax.Array, score_dtype: DTypeLike) -> jax.Array:
    """Return the greatest power of two up to the score of each key; 0 if subnormal."""
    nmant = jnp.finfo(score_dtype).nmant
    return from_key(keys >> nmant << nmant, score_dtype)
