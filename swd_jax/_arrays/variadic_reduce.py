"""Reductions of several arrays in one reading, without storing what they reduce.

One joint reduction is more than thrift: XLA's CPU backend splits a reduction of a
single array in two and stores all the numbers between, as many as there are weights; a
joint one it does not. Compilers for GPU and TPU join single ones by themselves.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays.manual_sharding import vary_as

# How many parts of an array are separated at once.
_SEPARATED = 64


def joint_reduction(
    added: Sequence[jax.Array], compared: Sequence[jax.Array], axes: Iterable[int]
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Sums of some arrays and minima of others, all of one shape, in one reading."""
    devices = jax.device_count() if may_be_divided() else 1
    arrays = vary_as(([*added], [*compared]), [*added, *compared])
    return _joint_reduction(*arrays, tuple(axes), devices)


def may_be_divided() -> bool:
    """Whether the compiler may divide arrays among devices.

    Not with a single device, nor inside `shard_map`, where they are divided already.
    """
    mesh = jax.sharding.get_abstract_mesh()
    by_hand = not mesh.empty and set(mesh.manual_axes) == set(mesh.axis_names)
    return jax.device_count() > 1 and not by_hand


# Arrays of one shape share what is traced.
@functools.partial(jax.jit, static_argnames=("axes", "devices"))
def _joint_reduction(
    added: list[jax.Array],
    compared: list[jax.Array],
    axes: tuple[int, ...],
    devices: int,
) -> tuple[list[jax.Array], list[jax.Array]]:
    def together(
        added: list[jax.Array], compared: list[jax.Array]
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        if devices == 1:
            return _in_one_reduction(added, compared, axes)
        # The partitioner gathers what devices have of a joint reduction, but reduces
        # what they have of a single one. So there is a joint one of each part that is
        # on one device, however the array is divided, and then single ones.
        added = [_split(array, axes, devices) for array in added]
        compared = [_split(array, axes, devices) for array in compared]
        within = [axis + axes.index(axis) + 1 for axis in axes]
        partial = _in_one_reduction(added, compared, tuple(within))
        return _one_by_one(*partial, axes)

    def apart(
        added: list[jax.Array], compared: list[jax.Array]
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        return _one_by_one(added, compared, axes)

    return jax.lax.platform_dependent(added, compared, cpu=together, default=apart)


def _in_one_reduction(
    added: list[jax.Array], compared: list[jax.Array], axes: tuple[int, ...]
) -> tuple[list[jax.Array], list[jax.Array]]:
    # A single array has company, and a barrier keeps the compiler from dropping it.
    alone = len(added) + len(compared) == 1
    summed = [*added, *(1 - array for array in added if alone)]
    least = [*compared, *(~array for array in compared if alone)]
    operands = [*summed, *least]
    initial = [np.zeros((), array.dtype) for array in summed]
    initial += [np.array(np.iinfo(array.dtype).max, array.dtype) for array in least]

    def combine(
        first: Sequence[jax.Array], second: Sequence[jax.Array]
    ) -> list[jax.Array]:
        pairs = list(zip(first, second, strict=True))
        sums = [a + b for a, b in pairs[: len(summed)]]
        return sums + [jnp.minimum(a, b) for a, b in pairs[len(summed) :]]

    reduced = jax.lax.reduce(operands, initial, combine, axes)
    reduced = jax.lax.optimization_barrier(reduced)
    of_least = reduced[len(summed) : len(summed) + len(compared)]
    return list(reduced[: len(added)]), list(of_least)


def _one_by_one(
    added: list[jax.Array], compared: list[jax.Array], axes: tuple[int, ...]
) -> tuple[list[jax.Array], list[jax.Array]]:
    """A reduction for each, which compilers for GPU and TPU join, so all are read once.

    Of all devices' parts of a sharded array, numbers are exchanged and never arrays.
    """
    sums = [jnp.sum(array, axes, array.dtype) for array in added]
    greatest = [np.array(np.iinfo(array.dtype).max) for array in compared]
    pairs = zip(compared, greatest, strict=True)
    return sums, [jnp.min(array, axes, initial=most) for array, most in pairs]


def _split(array: jax.Array, axes: tuple[int, ...], devices: int) -> jax.Array:
    """Split axes into (parts, within a part): as many parts as could be on devices."""
    shape: list[int] = []
    spec: list[Any] = []
    kind = jax.typeof(array)
    for axis, length in enumerate(array.shape):
        # The parts that an axis is divided into divide its length and the devices.
        parts = max(math.gcd(length, devices), 1)
        shape += [parts, length // parts] if axis in axes else [length]
        spec += [kind.sharding.spec[axis], None][: 1 + (axis in axes)]
    if all(names is None for names in spec):  # as far as anyone knows
        return array.reshape(shape)
    sharding = jax.sharding.NamedSharding(
        kind.sharding.mesh, jax.sharding.PartitionSpec(*spec)
    )
    return jax.lax.reshape(array, shape, out_sharding=sharding)


def separate(numbers: jax.Array) -> list[jax.Array]:
    """The parts of a small array along its last axis, each in a buffer of its own.

    Parts that are only sliced would be fused into what uses them: every leaf's loop
    would have another offset in it, and be compiled anew.
    """
    count = numbers.shape[-1]
    if count == 1:
        return [numbers[..., 0]]
    if jnp.issubdtype(numbers.dtype, jnp.floating):
        patterns = numbers.view(f"int{8 * numbers.dtype.itemsize}")
        return [pattern.view(numbers.dtype) for pattern in separate(patterns)]
    # Anything that has several results will do, if it cannot be optimized away: the
    # minimum of each part and itself.
    parts = jnp.split(jnp.stack([numbers, numbers]), count, axis=-1)
    minima: list[jax.Array] = []
    for start in range(0, count, _SEPARATED):
        some = parts[start : start + _SEPARATED]
        minima += joint_reduction([], some, [0, numbers.ndim])[1]
    return minima
