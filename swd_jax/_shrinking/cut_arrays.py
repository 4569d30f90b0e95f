"""Cut positions out of arrays, shapes and device arrays."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec

from swd_jax._arrays import explicit_sharding
from swd_jax._shrinking.channels_to_positions import KeptPositions


def cut(
    leaves: Mapping[Any, Any], positions: Mapping[Any, KeptPositions]
) -> dict[Any, Any]:
    """Keep some positions of arrays, which have the same keys.

    Arrays on a device stay there, and one program cuts them all. They stay sharded over
    the same axes of the mesh, except along an axis whose new length the devices do not
    divide: along this axis they are replicated.
    """
    cut_leaves: dict[Any, Any] = {}
    on_device: dict[Any, jax.Array] = {}
    for key, leaf in leaves.items():
        if isinstance(leaf, jax.Array):
            on_device[key] = leaf
        elif isinstance(leaf, np.ndarray):
            array = leaf
            for axis, along in positions[key].items():
                array = array.compress(along, axis)
            cut_leaves[key] = array
        else:  # a jax.ShapeDtypeStruct
            shape = _cut_shape(leaf.shape, positions[key])
            cut_leaves[key] = jax.ShapeDtypeStruct(shape, leaf.dtype)
    keys = list(on_device)

    def cut_all(arrays: list[jax.Array]) -> list[jax.Array]:
        return [
            _take(array, positions[key])
            for key, array in zip(keys, arrays, strict=True)
        ]

    if keys:
        shardings = [_new_sharding(on_device[key], positions[key]) for key in keys]
        arrays = jax.jit(cut_all, out_shardings=shardings)(list(on_device.values()))
        cut_leaves.update(zip(keys, arrays, strict=True))
    return cut_leaves


def _cut_shape(shape: tuple[int, ...], positions: KeptPositions) -> tuple[int, ...]:
    return tuple(
        int(positions[axis].sum()) if axis in positions else length
        for axis, length in enumerate(shape)
    )


def _new_sharding(array: jax.Array, positions: KeptPositions) -> Any:
    """The sharding of the cut array; None leaves it to the compiler."""
    if isinstance(array, Tracer) or not isinstance(array.sharding, NamedSharding):
        return None
    shape = _cut_shape(array.shape, positions)
    return _divided_as_far_as_possible(array.sharding, shape)


def _divided_as_far_as_possible(
    sharding: NamedSharding, shape: tuple[int, ...]
) -> NamedSharding:
    """Replicate along the axes of `shape` that the devices of a sharding do not divide.

    Shardings need lengths that are multiples of the number of shards.
    """
    spec: list[Any] = []
    for names, length in zip(sharding.spec, shape, strict=False):
        axes = names if isinstance(names, tuple) else (names,)
        shards = math.prod(sharding.mesh.shape[name] for name in axes if name)
        spec.append(names if length % shards == 0 else None)
    return sharding.update(spec=PartitionSpec(*spec))


def _take(array: jax.Array, positions: KeptPositions) -> jax.Array:
    for axis, along in positions.items():
        if along.all():
            continue
        indices = np.flatnonzero(along)
        if explicit_sharding.is_sharded(array):
            shape = _cut_shape(array.shape, {axis: along})
            sharding = jax.typeof(array).sharding
            where = (slice(None),) * axis + (indices,)
            array = array.at[where].get(
                out_sharding=_divided_as_far_as_possible(sharding, shape)
            )
        else:
            array = jnp.take(array, indices, axis=axis)
    return array
