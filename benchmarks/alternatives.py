"""Other ways to find the threshold, the magnitude of rank k, and plain reads.

A plain read of all weights is what the ways are compared with.
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
    """Return the leaves that are ranked."""
    return [leaf for leaf in weights if swd_jax.is_weight("w", leaf)]


def budget(leaves: Weights, sparsity: float) -> int:
    """Return k, the number of weights below the threshold."""
    return int(Fraction(str(sparsity)) * sum(leaf.size for leaf in leaves))


def total(weights: Weights) -> jax.Array:
    return sum(jnp.sum(leaf, dtype=jnp.float32) for leaf in weights)


def greatest(weights: Weights) -> jax.Array:
    return functools.reduce(jnp.maximum, [jnp.max(leaf) for leaf in weights])


def by_sorting(weights: Weights, sparsity: float) -> jax.Array:
    leaves = prunable(weights)
    return jnp.sort(_magnitudes(leaves))[budget(leaves, sparsity)]


def by_top_k(weights: Weights, sparsity: float) -> jax.Array:
    leaves = prunable(weights)
    magnitudes = _magnitudes(leaves)
    num_kept = magnitudes.size - budget(leaves, sparsity)
    return jax.lax.top_k(magnitudes, num_kept)[0][-1]


def _magnitudes(leaves: Weights) -> jax.Array:
    return jnp.abs(jnp.concatenate([leaf.ravel() for leaf in leaves]))


def by_partition(weights: Weights, sparsity: float) -> float:
    """Find the threshold with NumPy, on the host."""
    leaves = prunable(weights)
    k = budget(leaves, sparsity)
    # NumPy partitions float32 much faster than bfloat16.
    arrays = [np.asarray(leaf).ravel() for leaf in leaves]
    magnitudes = np.concatenate(arrays, dtype=np.float32, casting="unsafe")
    np.abs(magnitudes, out=magnitudes)
    magnitudes.partition(k)
    return float(magnitudes[k])


def key_bits(weights: Weights) -> int:
    """Return the number of bits of a magnitude: all but the sign."""
    return 8 * weights[0].dtype.itemsize - 1


def by_bisection(weights: Weights, sparsity: float) -> jax.Array:
    """Find the threshold bit by bit, with a pass for each bit.

    The pass is built of the library's own counts, so that it compiles equally well.
    """
    leaves = prunable(weights)
    bits = key_bits(leaves)
    integer = jnp.dtype(f"int{bits + 1}")
    k = jnp.asarray(uint64.from_int(budget(leaves, sparsity)))

    def settle_bit(i: jax.Array, low: jax.Array) -> jax.Array:
        candidate = low | jnp.left_shift(1, bits - 1 - i).astype(integer)
        # Without the barrier XLA hoists the conversion to integers out of the loop, and
        # keeps a copy of all weights.
        barred, candidate = jax.lax.optimization_barrier((leaves, candidate))
        keys = [jax.lax.bitcast_convert_type(jnp.abs(leaf), integer) for leaf in barred]
        counts = exact_sums.count_true([[key < candidate] for key in keys])
        below = uint64.sum_short_axis(counts[:, 0])
        return jnp.where(uint64.less(k, below), low, candidate)

    key = jax.lax.fori_loop(0, bits, settle_bit, jnp.zeros((), integer))
    return jax.lax.bitcast_convert_type(key, leaves[0].dtype)
