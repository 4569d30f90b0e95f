"""Exact norms of the groups of a leaf, the same in whatever order they are added up.

A sum of floats depends on the order of its terms, and the order on the machine and on
how an array is divided among devices: two groups could change places. So each group's
scores are read twice: for the power of two below the largest, and for a sum of integers
in units of a small part of that.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import sort_keys, variadic_reduce

Norm: TypeAlias = Literal["rms", "l2", "mean", "l1"]
"""How the scores of a group become one."""

# Scores count in units of 2^-27 of the largest score's power of two, or square.
_UNITS = 27

# XLA's CPU backend adds up a longer axis in two steps, with an array between them.
_SHORT = 32

# About so many numbers of a leaf are added to running sums at a time: they stay in the
# cache of a processor.
_CHUNK = 1 << 14

Elementwise = Callable[[jax.Array, Sequence[jax.Array]], list[jax.Array]]


def group_norms(
    scores: jax.Array,
    axes: Sequence[int],
    size: jax.Array | np.ndarray | int,
    norm: Norm,
) -> jax.Array:
    r"""The norm of each group, where groups are all that some axes hold.

    .. math:: 2p\, \sqrt{\tfrac{1}{n} \textstyle\sum_i q_i / 2^{27}}, \quad
              q_i = \lfloor 2^{27} (|s_i| / 2p)^2 \rfloor

    for "rms", with :math:`p` the power of two below the group's largest score and n its
    size; without n for "l2"; without square and root for "mean" and "l1".

    Args:
      scores: float32 or float64. Signs do not count.
      axes: what a group extends over.
      size: n of each group, in the shape of the norms, or one for all.
      norm: which.

    Returns:
      The norms, with axes of length 1; infinity for a group that has a score which is
      not finite.
    """
    info = jnp.finfo(scores.dtype)
    axes = tuple(axes)

    def keys(scores: jax.Array, small: Sequence[jax.Array]) -> list[jax.Array]:
        del small
        return [sort_keys.to_key(jnp.abs(scores))]

    [largest] = _reduced(keys, scores, [], axes, jnp.maximum)
    power = sort_keys.power_below(largest, info.dtype)
    finite = largest < sort_keys.largest_key(info.dtype)
    usable = finite & (power >= info.tiny)
    # At most 1 / 2: the reciprocal of the largest power would not be a normal number.
    scale = 0.5 / jnp.where(usable, power, 1)
    squared = norm in ("rms", "l2")
    bits = (
        31 - (max(math.prod(scores.shape[axis] for axis in axes), 1) - 1).bit_length()
    )

    def digits(scores: jax.Array, small: Sequence[jax.Array]) -> list[jax.Array]:
        [scale] = small
        shares = jnp.abs(scores) * scale
        shares = jnp.square(shares) if squared else shares
        whole = (shares * 2.0**_UNITS).astype(jnp.int32).astype(jnp.uint32)
        mask = jnp.uint32((1 << bits) - 1)
        return [whole >> i & mask for i in range(0, _UNITS, bits)]

    sums = _reduced(digits, scores, [scale], axes, jnp.add)
    # Products with a power of two are exact: nothing depends on how it is compiled.
    total = jnp.zeros(scale.shape, info.dtype)
    for i in reversed(range(len(sums))):
        total = total + sums[i].astype(info.dtype) * 2.0 ** (i * bits - _UNITS)
    if norm in ("rms", "mean"):
        total = total * (1 / np.asarray(size)).astype(info.dtype)
    root = jnp.sqrt(total) if squared else total
    norms = jnp.where(usable, 2 * root * power, 0)
    return jnp.where(finite, norms, jnp.inf)


def _reduced(
    function: Elementwise,
    scores: jax.Array,
    small: Sequence[jax.Array],
    axes: tuple[int, ...],
    combine: Callable[[jax.Array, jax.Array], jax.Array],
) -> list[jax.Array]:
    """Reductions of elementwise functions of a leaf, of which none is stored.

    Args:
      function: (scores, small) -> integers of at least 0 in the shape of the scores.
      scores: the leaf.
      small: arrays with axes of length 1.
      axes: which to reduce.
      combine: jnp.add or jnp.maximum.

    Returns:
      What is left, with the axes at length 1.
    """
    reduce = jnp.max if combine is jnp.maximum else jnp.sum
    last = scores.ndim - 1

    def along_rows(scores: jax.Array, small: Sequence[jax.Array]) -> list[jax.Array]:
        values = function(scores, small)
        if combine is jnp.add:
            left, _ = variadic_reduce.joint_reduction(values, [], [last])
        else:
            greatest = [jnp.array(jnp.iinfo(v.dtype).max, v.dtype) for v in values]
            pairs = list(zip(greatest, values, strict=True))
            _, least = variadic_reduce.joint_reduction(
                [], [most - v for most, v in pairs], [last]
            )
            left = [most - each for most, each in zip(greatest, least, strict=True)]
        return [
            reduce(each[..., None], axis=axes, keepdims=True).astype(each.dtype)
            for each in left
        ]

    def at_once(scores: jax.Array, small: list[jax.Array]) -> list[jax.Array]:
        return [
            reduce(values, axis=axes, keepdims=True).astype(values.dtype)
            for values in function(scores, small)
        ]

    def in_chunks(scores: jax.Array, small: list[jax.Array]) -> list[jax.Array]:
        axis = max(axes, key=lambda axis: scores.shape[axis])
        length = scores.shape[axis]
        rows = max(_CHUNK * length // scores.size, 1)
        rows = next(rows for rows in range(rows, 0, -1) if length % rows == 0)

        def chunk(i: jax.Array | int) -> list[jax.Array]:
            part = jax.lax.dynamic_slice_in_dim(scores, i * rows, rows, axis)
            return function(part, small)

        def add(i: jax.Array, sums: list[jax.Array]) -> list[jax.Array]:
            return [combine(*pair) for pair in zip(sums, chunk(i), strict=True)]

        sums = jax.lax.fori_loop(1, length // rows, add, chunk(0))
        return [
            reduce(values, axis=axes, keepdims=True).astype(values.dtype)
            for values in sums
        ]

    if last in axes and scores.shape[last] > _SHORT:
        return along_rows(scores, small)
    long = any(scores.shape[axis] > _SHORT for axis in axes)
    if not long or variadic_reduce.may_be_divided():
        return at_once(scores, [*small])
    return jax.lax.platform_dependent(scores, [*small], cpu=in_chunks, default=at_once)
