"""Arrays with a sharding in their type (jax's Explicit mode), or on devices already."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec


def is_sharded(array: Any) -> bool:
    """Whether the type of an array says that an axis of it is sharded."""
    return any(names is not None for names in jax.typeof(array).sharding.spec)


def reshard_like(array: jax.Array, reference: Any) -> jax.Array:
    """Reshard an array like a reference whose type has a sharding; else return it."""
    if not is_sharded(reference):
        return array
    return jax.sharding.reshard(array, jax.typeof(reference).sharding)


def device_put_like(array: jax.Array, reference: Any) -> jax.Array:
    """Move an array to the devices of a reference, if both are concrete arrays."""
    if isinstance(array, Tracer) or isinstance(reference, Tracer):
        return array
    if not isinstance(reference, jax.Array):
        return array
    if array.sharding.is_equivalent_to(reference.sharding, array.ndim):
        return array
    return jax.device_put(array, reference.sharding)


def replicate(array: jax.Array) -> jax.Array:
    """Replicate an array on all devices of its mesh, if its type says it is sharded."""
    if not is_sharded(array):
        return array
    mesh = jax.typeof(array).sharding.mesh
    return jax.sharding.reshard(array, NamedSharding(mesh, PartitionSpec()))


def reshape_sharded(
    array: jax.Array, shape: Sequence[int], spec: Sequence[Any]
) -> jax.Array:
    """Reshape an array, sharding the new axes by `spec`.

    Args:
      array: any array.
      shape: the new shape.
      spec: for every new axis None or the names of mesh axes. All are None in Auto mode
        or on one device; the compiler then propagates the sharding.
    """
    if all(names is None for names in spec):
        return array.reshape(shape)
    mesh = jax.typeof(array).sharding.mesh
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    return jax.lax.reshape(array, shape, out_sharding=sharding)
