"""Exact norms along axes of a leaf, one for each unit of weights.

As `exact_norms` has it: one pass finds the largest score of each unit, and a second one
sums fixed-point scores in units of a small part of it.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import exact_norms, sort_keys, variadic_reduce, xla_cpu

Norm: TypeAlias = Literal["rms", "l2", "mean", "l1"]
"""The name of the norm that makes one score of the scores of a unit's weights."""

# Fewer than a leaf's norm has: they are summed in as many digits as keep each digit's
# sum below 2^31, and 27 bits make one digit for units of up to 16 weights.
_FRACTION_BITS = 27

# Weights that are added to running sums at a time: they fit into a processor's cache.
_CHUNK_SIZE = 1 << 14

Elementwise = Callable[[jax.Array, Sequence[jax.Array]], list[jax.Array]]


def norms_along_axes(
    scores: jax.Array,
    axes: Sequence[int],
    size: jax.Array | np.ndarray | int,
    norm: Norm,
) -> jax.Array:
    r"""Return the norm of the scores along some axes, for each position on the others.

    .. math:: 2p\, \sqrt{\tfrac{1}{n} \textstyle\sum_i q_i / 2^{27}}, \quad
              q_i = \lfloor 2^{27} (|s_i| / 2p)^2 \rfloor

    for "rms", with :math:`p` the power of two below the unit's largest score and n its
    size; without n for "l2"; without square and root for "mean" and "l1".

    Args:
      scores: float32 or float64, of either sign; the sign is ignored.
      axes: the axes that a unit extends over.
      size: n of each unit, in the shape of the norms, or one for all.
      norm: which norm.

    Returns:
      The norms, with axes of length 1; infinity for a unit with a score that is not
      finite.
    """
    dtype = jnp.finfo(scores.dtype).dtype
    axes = tuple(axes)

    def keys(scores: jax.Array, broadcast: Sequence[jax.Array]) -> list[jax.Array]:
        del broadcast
        return [sort_keys.to_key(scores)]

    [largest] = _reduce_elementwise(keys, scores, [], axes, jnp.maximum)
    is_finite = largest < sort_keys.largest_key(dtype)
    scale = exact_norms.fixed_point_scale(jnp.where(is_finite, largest, 0), dtype)
    squared = norm in ("rms", "l2")
    unit_size = max(math.prod(scores.shape[axis] for axis in axes), 1)
    digit_bits = 31 - (unit_size - 1).bit_length()

    def digits(scores: jax.Array, broadcast: Sequence[jax.Array]) -> list[jax.Array]:
        [factor] = broadcast
        fixed_point = exact_norms.to_fixed_point(
            scores, factor, _FRACTION_BITS, squared=squared
        )
        mask = jnp.uint32((1 << digit_bits) - 1)
        shifts = range(0, _FRACTION_BITS, digit_bits)
        return [fixed_point >> shift & mask for shift in shifts]

    sums = _reduce_elementwise(digits, scores, [scale.factor], axes, jnp.add)
    # Products with a power of two are exact, so that the compiler's choice between
    # a multiply-add and two operations does not matter.
    total = jnp.zeros(scale.power.shape, dtype)
    for i in reversed(range(len(sums))):
        place = 2.0 ** (i * digit_bits - _FRACTION_BITS)
        total = total + sums[i].astype(dtype) * place
    if norm in ("rms", "mean"):
        total = total * (1 / np.maximum(size, 1)).astype(dtype)
    norms = exact_norms.norm_from_total(total, scale, squared=squared)
    return jnp.where(is_finite, norms, jnp.inf)


def _reduce_elementwise(
    function: Elementwise,
    scores: jax.Array,
    broadcast: Sequence[jax.Array],
    axes: tuple[int, ...],
    combine: Callable[[jax.Array, jax.Array], jax.Array],
) -> list[jax.Array]:
    """Reduce elementwise functions of a leaf without storing their values.

    Args:
      function: (scores, broadcast) -> integers of at least 0 in the scores' shape.
      scores: the leaf.
      broadcast: arrays that broadcast to it, with the reduced axes of length 1.
      axes: the axes to reduce.
      combine: jnp.add or jnp.maximum.

    Returns:
      The results, with the reduced axes at length 1.
    """
    reduce = jnp.max if combine is jnp.maximum else jnp.sum
    last_axis = scores.ndim - 1

    def reduce_axes(values: jax.Array) -> jax.Array:
        return reduce(values, axis=axes, keepdims=True).astype(values.dtype)

    def reduce_rows_first(
        scores: jax.Array, broadcast: Sequence[jax.Array]
    ) -> list[jax.Array]:
        values = function(scores, broadcast)
        if combine is jnp.add:
            rows, _ = variadic_reduce.reduce_jointly(values, [], [last_axis])
        else:
            tops = [jnp.array(jnp.iinfo(x.dtype).max, x.dtype) for x in values]
            complements = [top - x for top, x in zip(tops, values, strict=True)]
            _, minima = variadic_reduce.reduce_jointly([], complements, [last_axis])
            rows = [top - minimum for top, minimum in zip(tops, minima, strict=True)]
        return [reduce_axes(row[..., None]) for row in rows]

    def reduce_at_once(
        scores: jax.Array, broadcast: list[jax.Array]
    ) -> list[jax.Array]:
        return [reduce_axes(values) for values in function(scores, broadcast)]

    def reduce_in_chunks(
        scores: jax.Array, broadcast: list[jax.Array]
    ) -> list[jax.Array]:
        axis = max(axes, key=lambda axis: scores.shape[axis])
        length = scores.shape[axis]
        most_rows = max(_CHUNK_SIZE * length // scores.size, 1)
        rows = next(n for n in range(most_rows, 0, -1) if length % n == 0)

        def chunk(i: jax.Array | int) -> list[jax.Array]:
            part = jax.lax.dynamic_slice_in_dim(scores, i * rows, rows, axis)
            return function(part, broadcast)

        def add_chunk(i: jax.Array, running: list[jax.Array]) -> list[jax.Array]:
            return [combine(*pair) for pair in zip(running, chunk(i), strict=True)]

        running = jax.lax.fori_loop(1, length // rows, add_chunk, chunk(0))
        return [reduce_axes(values) for values in running]

    is_long = [scores.shape[axis] > xla_cpu.LONGEST_FUSED_AXIS for axis in axes]
    if last_axis in axes and scores.shape[last_axis] > xla_cpu.LONGEST_FUSED_AXIS:
        return reduce_rows_first(scores, broadcast)
    if not any(is_long) or variadic_reduce.may_be_sharded():
        return reduce_at_once(scores, [*broadcast])
    return jax.lax.platform_dependent(
        scores, [*broadcast], cpu=reduce_in_chunks, default=reduce_at_once
    )
