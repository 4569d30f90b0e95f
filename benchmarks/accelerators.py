"""Accelerators for which XLA compiles without one: their devices and memory.

The compilers are libtpu's (`pip install jax[tpu]`) and the CUDA plugin's
(`pip install jax-cuda12-plugin jax-cuda12-pjrt`, of jax's own version). Neither needs a
device, and each an environment of its own.
"""

import importlib.metadata
import os
from typing import NamedTuple

import jax
from jax.experimental import topologies

# What XLA asks a GPU for when it compiles, as its text format has it: the properties
# of an H100 with 80 GB and HBM3, from NVIDIA's data sheet and CUDA's device query.
_H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_block_limit: 65536 registers_per_core_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472 l2_cache_size: 52428800
  device_memory_size: 84929347584 memory_bandwidth: 3352320000000
}
platform_name: "CUDA"
runtime_version { major: 12 minor: 9 patch: 0 }
dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


class Accelerator(NamedTuple):
    """One or several devices to compile for."""

    topology: str
    """As libtpu names it; of GPUs, slices x hosts x GPUs of a host."""
    devices: int
    bytes_per_second: float
    """Of the memory of one device, as its maker publishes it."""


# https://cloud.google.com/tpu/docs/v5e and v6e: 819 and 1,640 GB/s a chip. H100 SXM:
# 3.35 TB/s.
ACCELERATORS = {
    "v5e": Accelerator("v5e:2x2", 1, 819e9),
    "v5e-2x2": Accelerator("v5e:2x2", 4, 819e9),
    "v5e-4x4": Accelerator("v5e:4x4", 16, 819e9),
    "v6e": Accelerator("v6e:2x2", 1, 1640e9),
    "v6e-2x2": Accelerator("v6e:2x2", 4, 1640e9),
    "v6e-4x4": Accelerator("v6e:4x4", 16, 1640e9),
    "h100": Accelerator("1x1x1", 1, 3352e9),
    "h100-8": Accelerator("1x1x8", 8, 3352e9),
}


def compiler_of(name: str) -> str:
    """Return the package that compiles for an accelerator, and its version."""
    package = "libtpu" if is_tpu(name) else "jax-cuda12-plugin"
    return f"{package} {importlib.metadata.version(package)}"


def is_tpu(name: str) -> bool:
    """Whether an accelerator is a TPU."""
    return name.startswith("v")


def devices_of(name: str) -> list[jax.Device]:
    """Return devices that programs can be compiled for, and not run on.

    Args:
      name: one of `ACCELERATORS`.

    Raises:
      RuntimeError: if the compiler is not installed.
    """
    accelerator = ACCELERATORS[name]
    # What is traced for several devices may depend on `jax.device_count()`.
    jax.config.update("jax_num_cpu_devices", accelerator.devices)
    # libtpu would ask Google Cloud's metadata server about the machine.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    if is_tpu(name):
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=accelerator.topology
        )
    else:
        found = topologies.get_topology_desc(
            platform="cuda", target_config=_H100, topology=accelerator.topology
        )
    return list(found.devices[: accelerator.devices])
