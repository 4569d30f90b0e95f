"""Programs that tests run in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path


def start_program(
    program: Path, *arguments: str, devices: int, is_optimized: bool = False
) -> subprocess.Popen[str]:
    """Start a program on simulated devices, with warnings as errors.

    Args:
      program: the file to run.
      *arguments: those of its command line.
      devices: the number of devices.
      is_optimized: whether XLA optimizes as much as it does by default.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if not is_optimized:
        flags += " --xla_backend_optimization_level=0"
        flags += " --xla_llvm_disable_expensive_passes=true"
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(program), *arguments],
        env=os.environ
        | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], seconds: float = 300) -> str:
    """Wait for a program, which must succeed, and return what it printed."""
    try:
        out, errors = process.communicate(timeout=seconds)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return out
