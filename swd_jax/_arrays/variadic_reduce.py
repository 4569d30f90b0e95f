"""Reduce several integer arrays in one pass, without storing the arrays."""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import explicit_sharding, xla_cpu
from swd_jax._arrays.manual_sharding import pcast_like


def reduce_jointly(
    summands: Sequence[jax.Array], minimized: Sequence[jax.Array], axes: Iterable[int]
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Return sums of some integer arrays and minima of others, read in one pass.

    XLA:GPU fuses separate reductions of the same inputs into one pass. XLA:CPU needs a
    variadic reduction for it: see `xla_cpu.reduce_variadic`. So does XLA:TPU, which
    reads arrays that do not fit in vector memory once for sums and once for minima
    (libtpu 0.0.50).

    Args:
      summands: arrays of one shape.
      minimized: arrays of the same shape.
      axes: the axes to reduce.
    """
    num_devices = jax.device_count() if may_be_sharded() else 1
    arrays = pcast_like(([*summands], [*minimized]), [*summands, *minimized])
    return _reduce_jointly(*arrays, tuple(axes), num_devices)


def may_be_sharded() -> bool:
    """Whether the compiler may shard arrays.

    False with a single device, and inside `shard_map`, whose arrays are local.
    """
    mesh = jax.sharding.get_abstract_mesh()
    is_manual = not mesh.empty and set(mesh.manual_axes) == set(mesh.axis_names)
    return jax.device_count() > 1 and not is_manual


# Jitted so that arrays of one shape share one trace.
@functools.partial(jax.jit, static_argnames=("axes", "num_devices"))
def _reduce_jointly(
    summands: list[jax.Array],
    minimized: list[jax.Array],
    axes: tuple[int, ...],
    num_devices: int,
) -> tuple[list[jax.Array], list[jax.Array]]:
    def variadic(
        summands: list[jax.Array], minimized: list[jax.Array]
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        if num_devices == 1:
            return xla_cpu.reduce_variadic(summands, minimized, axes)
        # XLA:CPU's partitioner all-gathers the operands of a variadic reduction, but
        # all-reduces the results of a single one (jaxlib 0.10 and 0.12). So a variadic
        # reduction runs within each shard, whatever the sharding, and separate ones
        # reduce its results across shards.
        summands = [_split_shards(array, axes, num_devices) for array in summands]
        minimized = [_split_shards(array, axes, num_devices) for array in minimized]
        axes_in_shard = [axis + axes.index(axis) + 1 for axis in axes]
        partial = xla_cpu.reduce_variadic(summands, minimized, axes_in_shard)
        return _reduce_separately(*partial, axes)

    def variadic_on_tpu(
        summands: list[jax.Array], minimized: list[jax.Array]
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        # XLA:TPU's partitioner all-reduces the results of a variadic reduction, and
        # splitting the last axis into shards would cost a padded copy (libtpu 0.0.42,
        # 0.0.50).
        return xla_cpu.reduce_variadic(summands, minimized, axes)

    def separate(
        summands: list[jax.Array], minimized: list[jax.Array]
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        return _reduce_separately(summands, minimized, axes)

    is_lone = len(summands) + len(minimized) == 1
    return jax.lax.platform_dependent(
        summands,
        minimized,
        cpu=variadic,
        tpu=separate if is_lone else variadic_on_tpu,
        default=separate,
    )


def _reduce_separately(
    summands: list[jax.Array], minimized: list[jax.Array], axes: tuple[int, ...]
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Reduce each array alone; devices then exchange the results of sharded arrays."""
    sums = [jnp.sum(array, axes, array.dtype) for array in summands]
    initial = [np.array(np.iinfo(array.dtype).max) for array in minimized]
    pairs = zip(minimized, initial, strict=True)
    return sums, [jnp.min(array, axes, initial=value) for array, value in pairs]


def _split_shards(
    array: jax.Array, axes: tuple[int, ...], num_devices: int
) -> jax.Array:
    """Split each reduced axis into (shards, length in a shard).

    In Auto mode the sharding is unknown while tracing, so that an axis is split into
    as many shards as it can have.
    """
    shape: list[int] = []
    spec: list[Any] = []
    sharding = jax.typeof(array).sharding
    for axis, length in enumerate(array.shape):
        # The number of shards along an axis divides its length and the devices.
        num_shards = max(math.gcd(length, num_devices), 1)
        shape += [num_shards, length // num_shards] if axis in axes else [length]
        spec += [sharding.spec[axis], None][: 1 + (axis in axes)]
    return explicit_sharding.reshape_sharded(array, shape, spec)
