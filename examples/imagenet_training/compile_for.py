"""A training step compiled for TPUs that are not there: does it fit, what does it cost?

XLA's compiler for TPUs (`pip install "jax[tpu]"`) needs none. It says how much memory a
step takes, how many operations and bytes, and what crosses from chip to chip.
"""

import dataclasses
import importlib.metadata
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import rich.console
import rich.table
import tyro
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

import whole_files
from imagenet_training import placement
from imagenet_training.config import IMAGENET_CLASSES, IMAGENET_IMAGES, Config
from imagenet_training.trainer import Trainer

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from collectives import collectives_of
from traffic import traffic

GB = 1e9
# Of each chip: https://cloud.google.com/tpu/docs/v4, v5e, v5p and v6e.
MEMORY = {"v4": 32 * GB, "v5e": 16 * GB, "v5p": 95 * GB, "v6e": 32 * GB}


@dataclasses.dataclass(frozen=True)
class CompileFor:
    """Compile the training step of a run for a TPU, without one.

    What follows are the name and the options of the run, as for training:

        examples/imagenet.py compile v5e:4x4 epochs-90-sparsity-90 --batch-size 2048
    """

    topology: Annotated[str, tyro.conf.Positional]
    """Kind of TPU and arrangement of its chips: v5e:4x4, v6e:8x8, v4:2x2x4."""
    json_file: Path | None = None
    """Write the figures to this file too."""


@dataclasses.dataclass(frozen=True)
class Step:
    """What the compiler says of one step, for one chip."""

    memory_bytes: int
    """For the state, the batch and everything in between."""
    operations: float
    """Floating-point operations."""
    moved_bytes: int
    """Read from the chip's memory and written to it, with one pass of each search."""
    collectives: dict[str, dict[str, int]]
    """Number and bytes of what crosses, by kind."""
    seconds: float
    """Spent on compiling."""


def run(compile_for: CompileFor, config: Config) -> dict[str, Any]:
    """Compile the run's step, dense and sparse, print a table and a verdict.

    Returns what is written to the file.

    Raises:
      ValueError: for an unknown topology, or if the batch cannot be divided.
    """
    console = rich.console.Console(highlight=False)
    kind = compile_for.topology.partition(":")[0]
    if kind not in MEMORY:
        raise ValueError(
            f"topology must begin with one of {', '.join(MEMORY)}, as v5e:4x4 does; "
            f"got {compile_for.topology!r}"
        )
    mesh = _mesh_of(compile_for.topology)
    placement.check_batch_size(config.batch_size, mesh.size)
    memory = MEMORY[kind]
    named = {"dense": dataclasses.replace(config, sparsity=0.0)}
    if config.sparsity > 0:
        named["swd"] = config
    steps = {name: compile_step(each, mesh) for name, each in named.items()}
    console.print(_table(steps, compile_for.topology, config, mesh.size))
    lines = verdict(steps, memory)
    for line in lines:
        console.print(line)
    found = {
        "topology": compile_for.topology,
        "chips": mesh.size,
        "memory_bytes_of_a_chip": memory,
        "config": {
            key: value if isinstance(value, int | float | bool) else str(value)
            for key, value in dataclasses.asdict(config).items()
        },
        "steps": {
            name: None if step is None else dataclasses.asdict(step)
            for name, step in steps.items()
        },
        "verdict": lines,
        "versions": {
            name: importlib.metadata.version(name) for name in ("jax", "libtpu", "flax")
        },
    }
    if compile_for.json_file is not None:
        compile_for.json_file.parent.mkdir(parents=True, exist_ok=True)
        whole_files.write(compile_for.json_file, json.dumps(found, indent=2) + "\n")
    return found


def _mesh_of(topology: str) -> Mesh:
    # libtpu would ask Google Cloud's metadata server about the machine.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except Exception as error:  # of several types, by what libtpu makes of it
        raise ValueError(
            f"no compiler for {topology!r}: {error}. It needs libtpu, from pip install "
            "'jax[tpu]', and JAX_PLATFORMS=cpu"
        ) from error
    devices = np.array(found.devices)
    # The library asks `jax.device_count()` how many devices may divide a leaf.
    jax.config.update("jax_num_cpu_devices", devices.size)
    return Mesh(devices.ravel(), (placement.AXIS,), axis_types=(AxisType.Auto,))


def compile_step(config: Config, mesh: Mesh) -> Step | None:
    """Return what the compiler says; None if the step does not fit into the memory."""
    steps = config.total_steps(IMAGENET_IMAGES)
    steps_per_epoch = config.steps_per_epoch(IMAGENET_IMAGES)
    trainer = Trainer(config, mesh, IMAGENET_CLASSES, steps, steps_per_epoch)

    def on_mesh(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    state = jax.tree.map(on_mesh, trainer.abstract, trainer.shardings)
    side, divided = config.resolution, placement.divided_batch(mesh)
    batch = {
        "images": jax.ShapeDtypeStruct(
            (config.batch_size, side, side, 3), np.uint8, sharding=divided
        ),
        "labels": jax.ShapeDtypeStruct(
            (config.batch_size,), np.int32, sharding=divided
        ),
    }
    started = time.perf_counter()
    lowered = trainer.step.lower(state, batch)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            return None
        raise
    seconds = time.perf_counter() - started
    text, used = compiled.as_text() or "", compiled.memory_analysis()
    cost: Any = compiled.cost_analysis()
    assert used is not None
    moved = traffic(text)
    return Step(
        memory_bytes=used.argument_size_in_bytes
        + used.output_size_in_bytes
        - used.alias_size_in_bytes
        + used.temp_size_in_bytes,
        operations=cost["flops"],
        moved_bytes=moved.outside.total + sum(loop.total for loop in moved.loops),
        collectives=collectives_of(text),
        seconds=seconds,
    )


def _table(
    steps: dict[str, Step | None], topology: str, config: Config, chips: int
) -> rich.table.Table:
    title = (
        f"ResNet-{config.depth} on {topology}, {chips} chips, "
        f"{config.batch_size // chips} images each, {config.mesh}: a step of one chip"
    )
    table = rich.table.Table(title=title, title_justify="left")
    for column in ("", "memory", "operations", "bytes moved", "crosses", "compiled in"):
        table.add_column(column)
    for name, step in steps.items():
        if step is None:
            table.add_row(name, "does not fit")
            continue
        table.add_row(
            name,
            f"{step.memory_bytes / GB:.2f} GB",
            f"{step.operations / 1e12:.3f} T",
            f"{step.moved_bytes / GB:.2f} GB",
            "\n".join(
                f"{each['count']} {kind}, {each['bytes'] / 1e6:.2f} MB"
                for kind, each in step.collectives.items()
            ),
            f"{step.seconds:.0f} s",
        )
    return table


def verdict(steps: dict[str, Step | None], memory: float) -> list[str]:
    """Return in words whether the steps fit, and what SWD adds."""
    lines = []
    for name, step in steps.items():
        if step is None or step.memory_bytes > memory:
            lines.append(
                f"The {name} step does not fit into the {memory / GB:.0f} GB of a "
                "chip: use more chips, smaller batches, or --mesh fsdp."
            )
        else:
            share = step.memory_bytes / memory
            lines.append(
                f"The {name} step fits: {100 * share:.0f} % of the "
                f"{memory / GB:.0f} GB of a chip."
            )
    dense, sparse = steps["dense"], steps.get("swd")
    if dense is None or sparse is None:
        return lines
    crossing = {
        name: sum(each["bytes"] for each in step.collectives.values())
        for name, step in (("dense", dense), ("swd", sparse))
    }
    lines.append(
        "SWD adds "
        f"{_percent(sparse.memory_bytes, dense.memory_bytes)} of memory, "
        f"{_percent(sparse.operations, dense.operations)} of operations, "
        f"{_percent(sparse.moved_bytes, dense.moved_bytes)} of bytes moved with one "
        f"reading of the weights, and {crossing['swd'] - crossing['dense']:,} bytes "
        "that cross between chips."
    )
    return lines


def _percent(value: float, base: float) -> str:
    """Return a difference, as "0.123 %"."""
    return re.sub(r"^-(0\.0+ %)$", r"\1", f"{100 * (value / base - 1):.3f} %")
