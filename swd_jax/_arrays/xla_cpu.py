"""Workarounds for XLA's CPU backend (XLA:CPU), each with the releases that need it.

`tests/arrays/test_xla_cpu.py` compiles the plain form of each one. A test that fails
there names the workaround that the installed jaxlib no longer needs.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays.manual_sharding import pcast_like

Result = TypeVar("Result")
Invariant = TypeVar("Invariant")
Variant = TypeVar("Variant")

LONGEST_FUSED_AXIS = 32
"""XLA:CPU reduces a longer axis of a single array in two steps (its pass
TreeReductionRewriter) and stores the operand between them. Seen on jaxlib 0.10.2 and
0.12.0."""

# The number of elements that one variadic reduction of `unstack_unfused` returns.
_UNSTACKED_AT_ONCE = 64


def reduce_variadic(
    summands: Sequence[jax.Array], minimized: Sequence[jax.Array], axes: Sequence[int]
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Reduce arrays in one variadic reduction, whose operands XLA:CPU does not store.

    TreeReductionRewriter (see `LONGEST_FUSED_AXIS`) rewrites only reductions of a
    single array. Seen on jaxlib 0.10.2 and 0.12.0.

    Args:
      summands: integer arrays of one shape, to be summed.
      minimized: integer arrays of the same shape, whose minima are taken.
      axes: the axes to reduce.

    Returns:
      The sums and the minima.
    """
    # A lone array is paired with its complement. The barrier keeps the second result:
    # XLA would drop it as dead code and make the reduction one of a single array.
    is_lone = len(summands) + len(minimized) == 1
    sums_in = [*summands, *(1 - array for array in summands if is_lone)]
    minima_in = [*minimized, *(~array for array in minimized if is_lone)]
    initial = [np.zeros((), array.dtype) for array in sums_in]
    initial += [np.array(np.iinfo(x.dtype).max, x.dtype) for x in minima_in]
    combiner = _sum_then_min(len(sums_in))
    results = jax.lax.reduce([*sums_in, *minima_in], initial, combiner, tuple(axes))
    results = jax.lax.optimization_barrier(results)
    first_minimum = len(sums_in)
    minima = results[first_minimum : first_minimum + len(minimized)]
    return list(results[: len(summands)]), list(minima)


# `lax.reduce` caches the jaxpr of a combiner by the identity of the function. A cached
# function that closes over an integer hits that cache and keeps no tracer alive.
@functools.cache
def _sum_then_min(
    num_sums: int,
) -> Callable[[Sequence[jax.Array], Sequence[jax.Array]], list[jax.Array]]:
    """Return a combiner that adds the first `num_sums` operands, else takes minima."""

    def combine(
        first: Sequence[jax.Array], second: Sequence[jax.Array]
    ) -> list[jax.Array]:
        pairs = list(zip(first, second, strict=True))
        sums = [a + b for a, b in pairs[:num_sums]]
        return sums + [jnp.minimum(a, b) for a, b in pairs[num_sums:]]

    return combine


def unstack_unfused(array: jax.Array) -> list[jax.Array]:
    """Unstack a small array along its last axis, each element in its own buffer.

    XLA:CPU fuses a slice into the loops that read it. The loops of two leaves then
    differ in the slice's offset, and XLA compiles each of them. Seen on jaxlib 0.10.2;
    on 0.12.0 an `optimization_barrier` on the slices prevents the fusion too.
    """
    length = array.shape[-1]
    if length == 1:
        return [array[..., 0]]
    if jnp.issubdtype(array.dtype, jnp.floating):
        patterns = array.view(f"int{8 * array.dtype.itemsize}")
        return [pattern.view(array.dtype) for pattern in unstack_unfused(patterns)]
    # XLA cannot simplify the minimum of two concatenated copies, and a reduction with
    # several results is not fused into its consumers.
    columns = jnp.split(jnp.stack([array, array]), length, axis=-1)
    axes = (0, array.ndim)
    elements: list[jax.Array] = []
    for start in range(0, length, _UNSTACKED_AT_ONCE):
        batch = columns[start : start + _UNSTACKED_AT_ONCE]
        elements += jax.lax.platform_dependent(
            batch,
            cpu=lambda batch: reduce_variadic([], batch, axes)[1],
            default=lambda batch: [jnp.min(column, axes) for column in batch],
        )
    return elements


def materialize(make: Callable[[Any], Result], inputs: Any) -> Result:
    """Compute `make(inputs)` once and store it for all of its consumers.

    XLA:CPU fuses an elementwise producer into every loop that reads it and evaluates
    it again for each element read. It always stores the results of a `while_loop` with
    a trip count that is unknown at compile time, so `make` runs in a loop of one
    iteration. XLA for GPU and TPU weighs recomputation against memory by itself.
    Seen on jaxlib 0.10.2 and 0.12.0; on 0.12.0 an `optimization_barrier` does as well.

    Args:
      make: function of `inputs`, a tree of arrays.
      inputs: tree of arrays.
    """

    def run_in_loop(inputs: Any) -> Result:
        empty = jax.tree.map(jnp.zeros_like, make(inputs))
        carry = (jnp.zeros((), jnp.int32), empty)
        carry = pcast_like(carry, jax.tree.leaves(inputs))
        trip_count = jax.lax.optimization_barrier(jnp.ones((), jnp.int32))

        def iterate(carry: tuple[jax.Array, Result]) -> tuple[jax.Array, Result]:
            iteration_inputs, iteration = keep_in_loop(inputs, carry[0])
            return iteration + 1, make(iteration_inputs)

        _, result = jax.lax.while_loop(
            lambda carry: carry[0] < trip_count, iterate, carry
        )
        return result

    return jax.lax.platform_dependent(inputs, cpu=run_in_loop, default=make)


def keep_in_loop(invariant: Invariant, variant: Variant) -> tuple[Invariant, Variant]:
    """Return both trees, with the loop-invariant one tied to the loop-variant one.

    XLA hoists elementwise functions of loop-invariant arrays out of a `while_loop` and
    keeps their results in memory, as large as the arrays. An `optimization_barrier`
    over both makes them depend on the iteration. Seen on jaxlib 0.10.2 and 0.12.0.

    Args:
      invariant: tree of arrays that no iteration changes, such as the weights.
      variant: tree of arrays that every iteration changes.
    """
    return jax.lax.optimization_barrier((invariant, variant))


def opaque_one(count: jax.Array) -> jax.Array:
    """Return 1 in the type of `count`, in a form that compilers do not fold.

    LLVM turns an integer comparison of a float's bit pattern with a literal (`key < 1`)
    into a comparison of floats, for which XLA:CPU flushes subnormal numbers to zero.
    `sort_keys.is_zero` therefore compares with a 1 that is unknown at compile time.
    Seen on jaxlib 0.10.2 and 0.12.0.

    Args:
      count: integer of at least 0 that is unknown at compile time, such as a step
        count. shape=()
    """
    # One of two consecutive integers is odd, also where `count + 1` wraps round.
    return count % 2 + (count + 1) % 2
