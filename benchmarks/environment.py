"""Environment of measurements: free memory, versions, hardware and commit."""

import sys
from pathlib import Path

import jax

# The experiments record the same environment.
sys.path.append(str(Path(__file__).parents[1] / "examples"))

from experiments.environment import environment

__all__ = ["available_bytes", "environment"]


def available_bytes() -> int | None:
    """Memory that is free on the device, or on the host of a CPU; None if unknown."""
    statistics = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics["bytes_in_use"]
    memory = Path("/proc/meminfo")
    for line in memory.read_text().splitlines() if memory.exists() else []:
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return None
