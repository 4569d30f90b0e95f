"""Other ways to the threshold, which is the weight of rank k by magnitude.

And the plain reads of all weights by which the ways are measured.
"""

import functools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

import swd_jax
from swd_jax._arrays import exact_sums, uint64

Weights = list[jax.Array]


def prunable(weights: Weights) -> Weights:
    """The leaves that are ranked."""
    return [leaf for leaf in weights if swd_jax.is_weight("w", leaf)]


def wanted(leaves: Weights, sparsity: float) -> int:
    """k: how many of the weights are to be below the threshold."""
    return int(Fraction(str(sparsity)) * sum(leaf.size for leaf in leaves))


def total(weights: Weights) -> jax.Array:
    return sum(jnp.sum(leaf, dtype=jnp.float32) for leaf in weights)


def greatest(weights: Weights) -> jax.Array:
    return functools.reduce(jnp.maximum, [jnp.max(leaf) for leaf in weights])


def by_sorting(weights: Weights, sparsity: float) -> jax.Array:
    leaves = prunable(weights)
    return jnp.sort(_magnitudes(leaves))[wanted(leaves, sparsity)]


def by_top_k(weights: Weights, sparsity: float) -> jax.Array:
    leaves = prunable(weights)
    magnitudes = _magnitudes(leaves)
    kept = magnitudes.size - wanted(leaves, sparsity)
    return jax.lax.top_k(magnitudes, kept)[0][-1]


def _magnitudes(leaves: Weights) -> jax.Array:
    return jnp.abs(jnp.concatenate([leaf.ravel() for leaf in leaves]))


def by_partition(weights: Weights, sparsity: float) -> float:
    """By NumPy, on the host."""
    leaves = prunable(weights)
    k = wanted(leaves, sparsity)
    # bfloat16 as float32, which NumPy orders much faster.
    arrays = [np.asarray(leaf).ravel() for leaf in leaves]
    magnitudes = np.concatenate(arrays, dtype=np.float32, casting="unsafe")
    np.abs(magnitudes, out=magnitudes)
    magnitudes.partition(k)
    return float(magnitudes[k])


def key_bits(weights: Weights) -> int:
    """How many bits a magnitude has: all but the sign."""
    return 8 * weights[0].dtype.itemsize - 1


def by_bisection(weights: Weights, sparsity: float) -> jax.Array:
    """Bit by bit, a counting read for each, compiled as well as ours."""
    leaves = prunable(weights)
    bits = key_bits(leaves)
    integer = jnp.dtype(f"int{bits + 1}")
    k = jnp.asarray(uint64.from_int(wanted(leaves, sparsity)))

    def settle_bit(i: jax.Array, low: jax.Array) -> jax.Array:
        candidate = low | jnp.left_shift(1, bits - 1 - i).astype(integer)
        # So the compiler keeps no copy of all magnitudes as integers.
        barred, candidate = jax.lax.optimization_barrier((leaves, candidate))
        keys = [jax.lax.bitcast_convert_type(jnp.abs(leaf), integer) for leaf in barred]
        counts = exact_sums.count_true([[key < candidate] for key in keys])
        below = uint64.sum_last_but_one(counts[:, 0])
        return jnp.where(uint64.less(k, below), low, candidate)

    found = jax.lax.fori_loop(0, bits, settle_bit, jnp.zeros((), integer))
    return jax.lax.bitcast_convert_type(found, leaves[0].dtype)
