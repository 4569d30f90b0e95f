"""Compile optimizer steps for TPUs and GPUs, and count the bytes that they move.

    JAX_PLATFORMS=cpu python benchmarks/compiled.py v5e
    JAX_PLATFORMS=cpu python benchmarks/compiled.py h100 --model 124M --rows adam swd

`make bench-compiled` makes the environments that this needs. No device is needed and
nothing is run: XLA's own compilers say what a step would move, store and exchange.
Prints a table and writes JSON.
"""

import dataclasses
import functools
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import swd_jax
from swd_jax import NM, Block, Channel, Target, criteria

try:
    import rich.progress
    import rich.table
    import tyro
    from accelerators import ACCELERATORS, compiler_of, devices_of, is_tpu
    from collectives import collectives_of
    from environment import environment
    from report import new_console, write
    from timing import DTYPES, RESULTS
    from traffic import Bytes, traffic
    from weights import Size, shapes
except ImportError as error:
    sys.exit(f"{error}. Install the extra that has it: pip install 'swd-jax[examples]'")

LEARNING_RATE, WEIGHT_DECAY, A = 1e-3, 5e-4, 10.0
TOLERANCE = 1e-4
STEPS = 1_000
BASE = "adam"


@dataclasses.dataclass(frozen=True)
class Config:
    """What to compile, and for what."""

    accelerator: Annotated[str, tyro.conf.Positional]
    """v5e, v6e (one chip), v5e-2x2, v5e-4x4, v6e-2x2, v6e-4x4, h100 or h100-8."""
    model: Size = "7B-layer"
    """Shapes of the weights. 7B-layer: a layer of a transformer with 7 billion. 124M: a
    GPT. 25.6M: ResNet-50."""
    dtype: Literal["f32", "bf16"] = "f32"
    """Type of the weights, the gradients and the optimizer's moments."""
    rows: tuple[str, ...] = ()
    """Only these."""
    check: bool = False
    """Compile the rows that have limits, and fail if a step exceeds its own."""
    out: Path = RESULTS
    """Folder for the JSON file."""


def _of_target(target: Target) -> optax.GradientTransformation:
    decay = swd_jax.swd(target, weight_decay=WEIGHT_DECAY, a=A)
    chain = optax.chain(decay, optax.adam(LEARNING_RATE))
    if "nu" not in target.criterion.extra_args:
        return chain

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        nu = optax.tree_utils.tree_get(state, "nu")
        return chain.update(updates, state, params, nu=nu)

    return optax.GradientTransformation(chain.init, update)


def _after(transformation: Any) -> optax.GradientTransformation:
    return optax.chain(optax.adam(LEARNING_RATE), transformation)


def steps() -> dict[str, Callable[[], optax.GradientTransformation]]:
    """Return the optimizers, by the names of their rows."""
    of = functools.partial(Target, 0.9)
    after_options = {
        "weight_decay": WEIGHT_DECAY,
        "a": A,
        "learning_rate": LEARNING_RATE,
    }
    forms = {
        BASE: lambda: optax.adam(LEARNING_RATE),
        "swd": lambda: _of_target(of()),
        "decoupled_swd": lambda: _after(swd_jax.decoupled_swd(of(), **after_options)),
        "proximal_swd": lambda: _after(swd_jax.proximal_swd(of(), **after_options)),
        "sparsify": lambda: _after(swd_jax.sparsify(of(), STEPS)),
        "sparsify, memory bfloat16": lambda: _after(
            swd_jax.sparsify(of(), STEPS, memory=jnp.bfloat16)
        ),
        "swd, tolerance": lambda: optax.chain(
            swd_jax.swd(of(), weight_decay=WEIGHT_DECAY, a=A, tolerance=TOLERANCE),
            optax.adam(LEARNING_RATE),
        ),
        "sparsify, tolerance": lambda: _after(
            swd_jax.sparsify(of(), STEPS, tolerance=TOLERANCE)
        ),
        "magnitude_pruning": lambda: _after(swd_jax.methods.magnitude_pruning(of())),
        "soft_pruning": lambda: _after(
            swd_jax.methods.soft_pruning(of(), update_every=100)
        ),
        "rigl": lambda: swd_jax.methods.rigl(
            optax.adam(LEARNING_RATE), 0.9, until=STEPS
        ),
    }
    targets = {
        "NM(2, 4)": Target(0.5, structure=NM(2, 4, axis=-2)),
        "NM(8, 16)": Target(0.5, structure=NM(8, 16, axis=-2)),
        "Block((4, 4))": of(structure=Block((4, 4))),
        "Block((1, 4))": of(structure=Block((1, 4))),
        "Block((32, 32))": of(structure=Block((32, 32))),
        "Channel(-1), local": Target(0.5, structure=Channel(-1), scope="local"),
        "Channel(-1), global": Target(0.5, structure=Channel(-1)),
        "local": of(scope="local"),
        "erk": of(scope="erk"),
        "min_kept": of(min_kept=0.01),
        "normalized_magnitude": of(criterion=criteria.normalized_magnitude),
        "rms_normalized_magnitude": of(criterion=criteria.rms_normalized_magnitude),
        "lamp": of(criterion=criteria.lamp),
        "saliency": of(criterion=criteria.saliency),
        "mean_saliency": of(criterion=criteria.mean_saliency()),
        "movement": of(criterion=criteria.movement),
        "fisher": of(criterion=criteria.fisher),
        "random_scores": of(criterion=criteria.random_scores(0)),
    }
    swds = {
        f"swd, {name}": functools.partial(_of_target, target)
        for name, target in targets.items()
    }
    sparse = {
        f"sparsify, {name}": lambda name=name: _after(
            swd_jax.sparsify(targets[name], STEPS)
        )
        for name in ("NM(2, 4)", "Block((4, 4))", "Channel(-1), local", "local")
    }
    return forms | swds | sparse


class Limits(NamedTuple):
    """What a step may take."""

    over_base: float
    """Bytes moved with one reading, over those of the optimizer alone."""
    temporary: float
    """Temporary memory more than the optimizer's, in multiples of the weights."""


LIMITS = {
    "swd": Limits(1.15, 0.05),
    "decoupled_swd": Limits(1.15, 0.05),
    "swd, local": Limits(1.15, 0.05),
    "swd, NM(2, 4)": Limits(1.6, 0.1),
    "swd, NM(8, 16)": Limits(1.6, 0.1),
    "swd, Block((4, 4))": Limits(1.6, 0.35),
    "swd, Block((1, 4))": Limits(1.6, 0.35),
    "swd, Block((32, 32))": Limits(1.6, 0.1),
}
# A GPU stores the masks of structures as bools, a byte for each weight. Of several
# TPUs each has so few weights here that what does not grow with them weighs as much.
MOST_TEMPORARY_ELSEWHERE = 0.35
MOST_BYTES_EXCHANGED = 65_536


def excesses(row: dict[str, Any], *, is_one_tpu: bool) -> list[str]:
    """Return in words where a row is beyond its limits."""
    limits = LIMITS[row["name"]]
    if not is_one_tpu:
        limits = limits._replace(temporary=MOST_TEMPORARY_ELSEWHERE)
    found = []
    over_base = row["with_one_reading_over_base"]
    if over_base > limits.over_base:
        found.append(f"moves {over_base:.2f} times the bytes of {BASE} alone")
    temporary = row["temporary_more_than_base"]
    if temporary > limits.temporary:
        found.append(f"takes {temporary:.2f} times the weights more temporary memory")
    for kind, each in row["collectives"].items():
        if kind != "all-reduce" or each["bytes"] > MOST_BYTES_EXCHANGED:
            found.append(f"exchanges {each['bytes']:,} bytes by {kind}")
    return [f"{row['name']} {what}" for what in found]


class Compiled(NamedTuple):
    """What XLA has made of a step, for one device."""

    outside: Bytes
    """Moved outside of the search's loop."""
    reading: Bytes
    """Moved by one iteration of each loop: the search reads the scores once."""
    temporary: int
    collectives: dict[str, dict[str, int]]
    seconds: float


def sharded(leaves: list[tuple[int, ...]], dtype: Any, mesh: Mesh) -> list[Any]:
    """Return weights divided among all devices along the first axis that divides."""
    found = []
    for shape in leaves:
        axis = next((i for i, n in enumerate(shape) if n % mesh.size == 0), None)
        spec = PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, "x")
        sharding = NamedSharding(mesh, spec)
        found.append(jax.ShapeDtypeStruct(shape, dtype, sharding=sharding))
    return found


def compile_step(
    optimizer: optax.GradientTransformation, params: list[Any], mesh: Mesh
) -> Compiled:
    """Compile an optimizer's update and the addition of it to the parameters.

    Args:
      optimizer: its state is sharded as the parameters are.
      params: shapes.
      mesh: of the devices.
    """
    by_shape = {leaf.shape: leaf.sharding for leaf in params}
    everywhere = NamedSharding(mesh, PartitionSpec())
    state = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=by_shape.get(leaf.shape, everywhere)
        ),
        jax.eval_shape(optimizer.init, params),
    )

    def step(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    started = time.perf_counter()
    jitted = jax.jit(
        step,
        donate_argnums=(1, 2),
        out_shardings=jax.tree.map(lambda leaf: leaf.sharding, (params, state)),
    )
    compiled = jitted.lower(params, state, params).compile()
    seconds = time.perf_counter() - started
    text = compiled.as_text() or ""
    memory: Any = compiled.memory_analysis()
    moved = traffic(text)
    reading = functools.reduce(Bytes.plus, moved.loops, Bytes(0, 0))
    return Compiled(
        moved.outside,
        reading,
        memory.temp_size_in_bytes,
        collectives_of(text),
        seconds,
    )


def as_row(
    name: str, step: Compiled, base: Compiled, weight_bytes: float, bandwidth: float
) -> dict[str, Any]:
    """Return the report of a step, in multiples of the weights of one device."""
    whole = step.outside.plus(step.reading)
    return {
        "name": name,
        "read": step.outside.read / weight_bytes,
        "written": step.outside.written / weight_bytes,
        "reading": step.reading.total / weight_bytes,
        "over_base": step.outside.total / base.outside.total,
        "with_one_reading_over_base": whole.total / base.outside.total,
        "temporary": step.temporary / weight_bytes,
        "temporary_more_than_base": (step.temporary - base.temporary) / weight_bytes,
        "milliseconds_at_bandwidth": 1e3 * whole.total / bandwidth,
        "collectives": step.collectives,
        "compile_seconds": step.seconds,
    }


def table(rows: list[dict[str, Any]], title: str) -> rich.table.Table:
    shown = rich.table.Table(title=title, title_justify="left")
    shown.add_column("", no_wrap=True)
    columns = {
        "read": lambda row: f"{row['read']:.2f}",
        "written": lambda row: f"{row['written']:.2f}",
        "a reading": lambda row: f"{row['reading']:.2f}",
        "over adam": lambda row: f"{row['with_one_reading_over_base']:.2f}",
        "temporary": lambda row: f"{row['temporary']:.3f}",
        "collectives": lambda row: ", ".join(
            f"{found['count']} {kind} {found['bytes']:,} B"
            for kind, found in row["collectives"].items()
        ),
        "ms": lambda row: f"{row['milliseconds_at_bandwidth']:.3g}",
        "compile s": lambda row: f"{row['compile_seconds']:.0f}",
    }
    for column in columns:
        shown.add_column(column, justify="right")
    for row in rows:
        shown.add_row(row["name"], *(cell(row) for cell in columns.values()))
    return shown


def main(config: Config) -> None:
    if config.accelerator not in ACCELERATORS:
        sys.exit(
            f"accelerator must be one of {', '.join(ACCELERATORS)}; got "
            f"{config.accelerator!r}"
        )
    known = steps()
    wanted = config.rows or tuple(LIMITS if config.check else known)
    if unknown := set(wanted) - set(known):
        sys.exit(f"rows must be among {', '.join(known)}; got {', '.join(unknown)}")
    console = new_console()
    try:
        devices = devices_of(config.accelerator)
    except RuntimeError as error:
        sys.exit(f"no compiler for {config.accelerator} here: {error}")
    mesh = Mesh(np.array(devices), ("x",))
    leaves = shapes(config.model)
    params = sharded(leaves, DTYPES[config.dtype], mesh)
    weight_bytes = sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in params
    )
    bandwidth = ACCELERATORS[config.accelerator].bytes_per_second
    options = dataclasses.asdict(config) | {"devices": len(devices)}
    del options["out"]
    total = sum(math.prod(shape) for shape in leaves)
    results = {
        "config": options,
        "weights": total,
        "leaves": len(leaves),
        "weight_bytes_of_a_device": weight_bytes,
        "bytes_per_second": bandwidth,
        "compiler": compiler_of(config.accelerator),
        **environment(),
    }
    suffix = "" if config.dtype == "f32" else f"-{config.dtype}"
    path = config.out / f"compiled-{config.accelerator}-{config.model}{suffix}.json"
    base = compile_step(known[BASE](), params, mesh)
    rows = [as_row(BASE, base, base, weight_bytes, bandwidth)]
    with rich.progress.Progress(console=console) as progress:
        bar = progress.add_task("", total=len(wanted))
        for name in wanted:
            progress.update(bar, description=name)
            if name != BASE:
                step = compile_step(known[name](), params, mesh)
                rows.append(as_row(name, step, base, weight_bytes, bandwidth))
            if not config.check:
                # A row may take minutes: what there is stays if this is stopped.
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(results | {"rows": rows}, indent=2) + "\n")
            progress.advance(bar)
    title = f"{config.accelerator}: {total:,} {config.dtype} weights, multiples of them"
    console.print(table(rows, title))
    if config.check:
        accelerator = ACCELERATORS[config.accelerator]
        is_one_tpu = is_tpu(config.accelerator) and accelerator.devices == 1
        beyond = [
            line for row in rows[1:] for line in excesses(row, is_one_tpu=is_one_tpu)
        ]
        sys.exit("\n".join(beyond) or 0)
    write(path, results | {"rows": rows}, console)


if __name__ == "__main__":
    main(tyro.cli(Config))
