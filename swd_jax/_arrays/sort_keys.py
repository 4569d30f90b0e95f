"""Magnitudes as integers that keep their order.

Without its sign bit, the bit pattern of an IEEE float read as an integer
grows with the float: 0 < subnormals < normals < infinity < NaN. Comparing those
integers is exact where comparing floats is not (XLA's CPU backend reads subnormal
operands as zero), and an integer's order statistics can be found by counting.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike


def key_dtype(score_dtype: DTypeLike) -> jnp.dtype:
    """The integer type with as many bits as a float32 or float64 score."""
    # Signed: keys do not need the sign bit, and CPUs compare signed integers faster.
    return jnp.dtype(f"int{8 * jnp.dtype(score_dtype).itemsize}")


def largest_key(score_dtype: DTypeLike) -> int:
    """The key of infinity: what has it or a greater one is not a finite number."""
    info = jnp.finfo(score_dtype)
    return ((1 << info.nexp) - 1) << info.nmant


def key_bits(score_dtype: DTypeLike) -> int:
    """How many bits a key has: all but the sign."""
    return jnp.finfo(score_dtype).bits - 1


def to_key(scores: jax.Array) -> jax.Array:
    """The keys of float32 or float64 magnitudes; the sign is ignored."""
    dtype = key_dtype(scores.dtype)
    pattern = jax.lax.bitcast_convert_type(scores, dtype)
    return pattern & jnp.array((1 << key_bits(scores.dtype)) - 1, dtype)


def from_key(keys: ArrayLike, score_dtype: DTypeLike) -> jax.Array:
    """The magnitudes that have these keys."""
    return jax.lax.bitcast_convert_type(
        jnp.asarray(keys, key_dtype(score_dtype)), jnp.dtype(score_dtype)
    )


def ordered(scores: jax.Array) -> jax.Array:
    """Scores of either sign as magnitudes in the same order.

    One bit is lost: two scores that differ in nothing but their last one are equal.
    What is not finite becomes infinity.
    """
    info = jnp.finfo(scores.dtype)
    dtype = key_dtype(scores.dtype)
    pattern = jax.lax.bitcast_convert_type(scores, dtype)
    # Negative floats have the sign bit set and descend: as integers they must ascend.
    ascending = jnp.where(pattern < 0, pattern ^ jnp.iinfo(dtype).max, pattern)
    middle = jnp.array(largest_key(info.dtype) // 2, dtype)
    magnitudes = from_key((ascending >> 1) + middle, scores.dtype)
    return jnp.where(jnp.isfinite(scores), magnitudes, jnp.inf)


def score_dtype(*dtypes: DTypeLike) -> jnp.dtype:
    """The type in which numbers of these types are compared: float32 at least."""
    # Not by promotion, which users may have forbidden between types.
    wide = any(jnp.dtype(dtype) == jnp.float64 for dtype in dtypes)
    return jnp.dtype(jnp.float64 if wide else jnp.float32)


def widen(weights: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Convert to a wider float type without losing subnormal numbers.

    A plain conversion from float32 to float64 reads subnormal numbers as zero on CPU.
    Their magnitude is their key times a power of two, which float64 holds as a normal
    number. (Subnormal numbers of the types below float32 are no trouble: they become
    normal numbers, or, from bfloat16, the conversion only moves bits.)
    """
    dtype = jnp.dtype(dtype)
    if dtype != jnp.float64 or weights.dtype == jnp.float64:
        return weights.astype(dtype)
    weights = weights.astype(jnp.float32)
    info = jnp.finfo(jnp.float32)
    key = to_key(weights)
    subnormal = key.astype(dtype) * jnp.array(info.smallest_subnormal, dtype)
    subnormal = jnp.where(jnp.signbit(weights), -subnormal, subnormal)
    return jnp.where(key < (1 << info.nmant), subnormal, weights.astype(dtype))


def is_zero(weights: jax.Array, one: jax.Array) -> jax.Array:
    """Where weights are exactly zero, which subnormal numbers are not.

    Args:
      weights: of any float type.
      one: the integer 1, as an argument of what is compiled. With a 1 that the compiler
        knows, LLVM makes this a comparison of floats, to which on CPU subnormal numbers
        are zero.
    """
    key = to_key(widen(weights, score_dtype(weights.dtype)))
    return key < one.astype(key.dtype)


def power_below(key: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The greatest power of two that is no more than the magnitude of a key.

    Zero for one that is not normal.
    """
    nmant = jnp.finfo(dtype).nmant
    return from_key(key >> nmant << nmant, dtype)
