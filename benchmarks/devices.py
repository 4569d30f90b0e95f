"""Count the bytes that eight devices exchange to find a threshold.

    python benchmarks/devices.py

The devices are simulated, and nothing is run: programs are compiled for the shapes of
sharded weights, and their collectives are counted. Prints a table and
writes JSON.
"""

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import swd_jax

try:
    import alternatives
    import rich.table
    import tyro
    from collectives import bytes_exchanged
    from environment import environment
    from report import new_console, write
    from timing import RESULTS
except ImportError as error:
    sys.exit(f"{error}. Install the extra that has it: pip install 'swd-jax[examples]'")

DEVICES = 8
SPARSITY = 0.9
ROWS, COLUMNS = PartitionSpec("x"), PartitionSpec(None, "y")


@dataclasses.dataclass(frozen=True)
class Config:
    """Which trees."""

    sides: tuple[int, ...] = (448, 896, 1792, 3584)
    """Leaves are square: so many weights along each side."""
    leaves: tuple[int, ...] = (5, 161)
    """Number of leaves: the last one with the smallest side only."""
    out: Path = RESULTS
    """Folder for the JSON file."""


def specs(leaves: int) -> list[PartitionSpec]:
    """Shard leaves by rows and by columns in turn."""
    return [ROWS if i % 2 else COLUMNS for i in range(leaves)]


def ways(leaves: int, mesh: jax.sharding.Mesh) -> dict[str, Callable[..., Any]]:
    tx = swd_jax.swd(SPARSITY, weight_decay=5e-4, a=1.0)
    by_hand = swd_jax.swd(SPARSITY, weight_decay=5e-4, a=1.0, axis_name=("x", "y"))
    sharded, replicated = specs(leaves), PartitionSpec()
    return {
        "swd under jit": lambda w, state: tx.update(w, state, w),
        "swd in shard_map, axis_name": jax.shard_map(
            lambda w, state: by_hand.update(w, state, w),
            mesh=mesh,
            in_specs=(sharded, replicated),
            out_specs=(sharded, replicated),
        ),
        "prune under jit": lambda w, state: swd_jax.prune(w, SPARSITY),
        "jnp.sort": lambda w, state: alternatives.by_sorting(w, SPARSITY),
        "jax.lax.top_k": lambda w, state: alternatives.by_top_k(w, SPARSITY),
    }


def main(config: Config) -> None:
    flags = f"--xla_force_host_platform_device_count={DEVICES}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
    # XLA warns of every array that it gathers for a sort.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    console = new_console()
    mesh = jax.make_mesh((2, 4), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
    trees = [(side, config.leaves[0]) for side in config.sides]
    trees += [(config.sides[0], leaves) for leaves in config.leaves[1:]]
    rows = []
    for side, leaves in trees:
        weights = [
            jax.ShapeDtypeStruct(
                (side, side), jnp.float32, sharding=NamedSharding(mesh, spec)
            )
            for spec in specs(leaves)
        ]
        state = jax.eval_shape(
            swd_jax.swd(SPARSITY, weight_decay=5e-4, a=1.0).init, weights
        )
        for name, way in ways(leaves, mesh).items():
            with console.status(f"Compiling: {name}"):
                compiled = jax.jit(way).lower(weights, state).compile()
            exchanged = bytes_exchanged(compiled.as_text())
            rows.append(
                {
                    "name": name,
                    "weights": side * side * leaves,
                    "leaves": leaves,
                    "bytes": exchanged,
                    "total_bytes": sum(exchanged.values()),
                }
            )
    shown = rich.table.Table(title=f"bytes exchanged by {DEVICES} devices")
    for column in ("", "weights", "leaves", "bytes", "by"):
        shown.add_column(column, justify="right" if column else "left")
    for row in rows:
        shown.add_row(
            row["name"],
            f"{row['weights']:,}",
            str(row["leaves"]),
            f"{row['total_bytes']:,}",
            ", ".join(row["bytes"]),
        )
    console.print(shown)
    options = dataclasses.asdict(config) | {"devices": DEVICES, "sparsity": SPARSITY}
    del options["out"]
    notes = {"bytes": "of the results of collectives; one pass of the search"}
    results = {"config": options, "notes": notes, **environment(), "entries": rows}
    write(config.out / "devices-cpu.json", results, console)


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
