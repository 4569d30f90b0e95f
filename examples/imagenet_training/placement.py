"""Which device holds what: one axis of devices, along which every batch is divided."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from imagenet_training.config import Config

AXIS = "devices"


def make_mesh() -> Mesh:
    """All devices of all processes, in a row."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def check_batch_size(batch_size: int, devices: int | None = None) -> None:
    """Raise unless every device can have the same number of images.

    Args:
      batch_size: images of all devices together.
      devices: how many there are; None for those of this and all other processes.
    """
    devices, processes = devices or jax.device_count(), jax.process_count()
    if batch_size % devices:
        below = batch_size // devices * devices
        # As many devices as in the others are in every process.
        ways = [str(size) for size in (below, below + devices) if size]
        raise ValueError(
            "batch_size must be a multiple of the number of devices, "
            f"{devices} in {processes} process{'es' if processes > 1 else ''}, so that "
            f"each has as many images; got {batch_size}: try "
            f"--batch-size {' or '.join(ways)}"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def divided_batch(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(AXIS))


def state_shardings(config: Config, mesh: Mesh, state: Any) -> Any:
    """The sharding of every leaf of a state, of which only the shapes are known."""

    def sharding(leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        if config.mesh == "data":
            return replicated(mesh)
        return NamedSharding(mesh, PartitionSpec(*fsdp_axes(leaf.shape, mesh.size)))

    return jax.tree.map(sharding, state)


def fsdp_axes(shape: tuple[int, ...], devices: int) -> tuple[str | None, ...]:
    """Divides the longest axis that can be divided evenly; none if there is none."""
    divisible = [axis for axis, length in enumerate(shape) if length % devices == 0]
    if not divisible or math.prod(shape) == 0:
        return ()
    longest = max(divisible, key=lambda axis: shape[axis])
    return tuple(AXIS if axis == longest else None for axis in range(len(shape)))


def to_devices(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """The batch of all processes, made of this one's part and theirs."""
    sharding = divided_batch(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }
