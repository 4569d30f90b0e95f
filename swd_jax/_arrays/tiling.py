"""Axes of a leaf split into groups of neighbours, wherever its parts may lie."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from swd_jax._arrays.manual_sharding import is_divided, laid_out_as


def split(array: jax.Array, lengths: Sequence[int], fill: float = 0) -> jax.Array:
    """Split each axis into (groups, within a group), with a fill at the far edge.

    Args:
      array: any.
      lengths: of a group along each axis; what is longer than the axis is all of it.
      fill: what stands beyond the far edge, where lengths do not divide the axis.

    Returns:
      The array with two axes for each of its own.
    """
    shape: list[int] = []
    spec: list[Any] = []
    padding = []
    sharding = jax.typeof(array).sharding
    for n, length, names in zip(array.shape, lengths, sharding.spec, strict=True):
        b = max(min(n, length), 1)
        padding.append((0, -n % b))
        shape += [-(-n // b), b]
        spec += [names, None] if n > b else [None, names]
    if any(after for _, after in padding):
        array = jnp.pad(array, padding, constant_values=fill)
    if all(names is None for names in spec):  # as far as anyone knows
        return array.reshape(shape)
    parts = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec(*spec))
    return jax.lax.reshape(array, shape, out_sharding=parts)


def joined(groups: jax.Array, array: jax.Array) -> jax.Array:
    """Undo a split: from two axes for each of an array's own to its shape."""
    shape = [n * b for n, b in zip(groups.shape[::2], groups.shape[1::2], strict=True)]
    if not is_divided(array):
        whole = groups.reshape(shape)
    else:
        sharding = jax.typeof(array).sharding
        whole = jax.lax.reshape(groups, shape, out_sharding=sharding)
    within = [slice(n) for n in array.shape]
    return whole if whole.shape == array.shape else laid_out_as(whole[*within], array)


def parts_of(array: Any) -> tuple[int, ...]:
    """How many parts each axis of an array is known to have: in the explicit mode."""
    sharding = jax.typeof(array).sharding
    return tuple(
        math.prod(sharding.mesh.shape[name] for name in _names(names))
        for names in sharding.spec
    )


def lie_within(
    shape: Sequence[int], lengths: Sequence[int], parts: Sequence[int]
) -> bool:
    """Whether every group lies in one part, along axes that are split."""
    return all(
        count == 1 or n <= length or n % (length * count) == 0
        for n, length, count in zip(shape, lengths, parts, strict=True)
    )


def _names(names: Any) -> tuple[str, ...]:
    """The mesh axes over which an axis is divided."""
    if names is None:
        return ()
    return (names,) if isinstance(names, str) else tuple(names)
