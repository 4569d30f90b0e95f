"""Versions, hardware and commit, on which results depend besides their settings."""

import datetime
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

ROOT = Path(__file__).parents[2]


def environment() -> dict[str, Any]:
    """Command, date, commit, hardware and versions, for the JSON of results."""
    packages = ("swd-jax", "jax", "jaxlib", "optax", "flax", "numpy")
    cpu_info = Path("/proc/cpuinfo")
    cpu = [
        line.split(":")[1].strip()
        for line in (cpu_info.read_text().splitlines() if cpu_info.exists() else [])
        if line.startswith("model name")
    ]
    script = Path(sys.argv[0]).resolve()
    if script.is_relative_to(ROOT):
        script = script.relative_to(ROOT)
    arguments = [without_folder(argument) for argument in sys.argv[1:]]
    return {
        "command": " ".join(["python", script.as_posix(), *arguments]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
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


def _commit() -> str | None:
    """The commit of this checkout; None where it is none, or git is not there."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        described = subprocess.run(  # noqa: S603, the command is the one above
            git, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return described.stdout.strip() or None


def without_folder(argument: str) -> str:
    """The argument, with DIR for a path that means nothing on another machine."""
    option, equals, value = argument.rpartition("=")
    return f"{option}{equals}DIR" if Path(value).is_absolute() else argument
