"""Weights spread over eight devices: the same bits, and no weight crosses."""

import os
import subprocess
import sys
from pathlib import Path


def test_eight_devices_agree_with_one_and_exchange_counts_only():
    flags = os.environ.get("XLA_FLAGS", "")
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=8",
    }
    program = Path(__file__).with_name("sharded_program.py")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
