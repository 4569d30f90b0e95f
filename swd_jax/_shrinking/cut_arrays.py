"""Cut positions out of arrays, shapes and device arrays."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._shrinking.channels_to_positions import KeptPositions


def cut(
    leaves: Mapping[Any, Any], positions: Mapping[Any, KeptPositions]
) -> dict[Any, Any]:
    """Keep some positions of arrays, which have the same keys.

    Arrays on a device stay there, and one program cuts them all.
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
            shape = tuple(
                int(positions[key][axis].sum()) if axis in positions[key] else length
                for axis, length in enumerate(leaf.shape)
            )
            cut_leaves[key] = jax.ShapeDtypeStruct(shape, leaf.dtype)
    keys = list(on_device)

    @jax.jit
    def cut_all(arrays: list[jax.Array]) -> list[jax.Array]:
        return [
            _take(array, positions[key])
            for key, array in zip(keys, arrays, strict=True)
        ]

    if keys:
        arrays = cut_all(list(on_device.values()))
        cut_leaves.update(zip(keys, arrays, strict=True))
    return cut_leaves


def _take(array: jax.Array, positions: KeptPositions) -> jax.Array:
    for axis, along in positions.items():
        if not along.all():
            array = jnp.take(array, np.flatnonzero(along), axis=axis)
    return array
