"""What measurements depend on besides their configuration."""

import datetime
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import jax


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


def environment() -> dict[str, Any]:
    """Command, date, commit, hardware and versions, for the JSON of results."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout
    packages = ("swd-jax", "jax", "jaxlib", "optax", "flax", "numpy")
    cpu_info = Path("/proc/cpuinfo")
    cpu = [
        line.split(":")[1].strip()
        for line in (cpu_info.read_text().splitlines() if cpu_info.exists() else [])
        if line.startswith("model name")
    ]
    return {
        "command": " ".join(
            ["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]
        ),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit.strip() or None,
        "hardware": {
            "platform": jax.default_backend(),
            "device_kind": jax.devices()[0].device_kind,
            "cpu": cpu[0] if cpu else platform.processor() or None,
            "cores": len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {"python": platform.python_version()}
        | {package: metadata.version(package) for package in packages},
    }
