"""Measure what selective weight decay adds to an optimizer step.

    python benchmarks/optimizer_step.py
    python benchmarks/optimizer_step.py --size 25.6M --dtype bf16

Prints a table and writes JSON. It measures and asserts nothing. The steps take turns
(A B C A B C ...), so that what else the machine does slows all of them alike.
"""

import dataclasses
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from environment import environment
from models import Size, random_leaves

import swd_jax

try:
    import rich.console
    import rich.table
    import tyro
except ImportError as error:
    sys.exit(f"{error}. Install the extra that has it: pip install 'swd-jax[examples]'")

RESULTS = Path(__file__).parent / "results"


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare optimizer steps, and ways to find the threshold alone."""

    size: Size = "4.3M"
    """4.3M: ResNet-20 with 64 maps. 4.1M: 1,000 leaves of 64 x 64. 25.6M: ResNet-50.
    1G: a transformer, for GPUs."""
    dtype: Literal["f32", "bf16"] = "f32"
    """Type of the weights, the gradients and Adam's moments."""
    sparsity: float = 0.9
    """Fraction of the weights that is selected."""
    repeats: int = 21
    """How often each step is timed."""
    seconds_per_entry: float = 60.0
    """An entry that has taken so long is not timed again."""
    alternatives: bool = True
    """Also time sort and top_k, which are slow and need all weights in one array."""
    out: Path | None = None
    """JSON file; by default benchmarks/results/optimizer_step-<device>-<size>.json."""


@dataclasses.dataclass
class Entry:
    """Something to time: `run(weights, state, gradients) -> (weights, state)`."""

    name: str
    run: Callable[[Any, Any, Any], tuple[Any, Any]]
    state: Any = ()
    steps: int = 1  # timed together; one of them is reported
    compile_seconds: float = math.nan
    temp_bytes: int = 0
    warm_up_seconds: float = math.nan
    samples: list[float] = dataclasses.field(default_factory=list)
    failure: str | None = None

    @property
    def is_baseline(self) -> bool:
        return self.name == "adam" or self.name.startswith("read:")

    def compile(self, weights: Any, gradients: Any) -> None:
        start = time.perf_counter()
        jitted = jax.jit(self.run, donate_argnums=(0, 1))
        self.run = jitted.lower(weights, self.state, gradients).compile()
        self.compile_seconds = time.perf_counter() - start
        analysis = self.run.memory_analysis()
        self.temp_bytes = analysis.temp_size_in_bytes if analysis else 0

    def timed(self, weights: Any, gradients: Any) -> tuple[Any, float]:
        """The weights for whoever comes next, and seconds per step."""
        jax.block_until_ready((weights, self.state, gradients))
        start = time.perf_counter()
        for _ in range(self.steps):
            weights, self.state = self.run(weights, self.state, gradients)
        jax.block_until_ready((weights, self.state))
        return weights, (time.perf_counter() - start) / self.steps

    def spent(self) -> float:
        return self.steps * (self.warm_up_seconds + sum(self.samples))

    def times(self) -> list[float]:
        return self.samples or [self.warm_up_seconds]

    def median(self) -> float:
        return statistics.median(self.times())


def entries(config: Config, weights: Any) -> list[Entry]:
    # So small a rate leaves the weights as they are, however many steps are timed.
    adam = optax.adam(1e-9)

    def step(name: str, tx: optax.GradientTransformation, steps: int = 1) -> Entry:
        def run(weights: Any, state: Any, gradients: Any) -> tuple[Any, Any]:
            updates, state = tx.update(gradients, state, weights)
            return optax.apply_updates(weights, updates), state

        return Entry(name, run, tx.init(weights), steps)

    def decay(update_every: int = 1, **options: Any) -> optax.GradientTransformation:
        target = swd_jax.Target(config.sparsity, **options)
        return swd_jax.swd(target, weight_decay=5e-4, a=1.0, update_every=update_every)

    def alone(name: str, find: Callable[[Any], jax.Array]) -> Entry:
        def run(weights: Any, state: Any, gradients: Any) -> tuple[Any, Any]:
            del state, gradients
            return weights, find(weights)

        return Entry(name, run, jnp.zeros((), jnp.float32))

    def ours(weights: Any) -> jax.Array:
        tx = decay()
        return tx.update(weights, tx.init(weights), weights)[1].threshold

    def magnitudes(weights: Any) -> tuple[jax.Array, int]:
        leaves = [leaf.ravel() for leaf in weights if swd_jax.is_weight("w", leaf)]
        n = sum(leaf.size for leaf in leaves)
        return jnp.abs(jnp.concatenate(leaves)), int(config.sparsity * n)

    def by_sorting(weights: Any) -> jax.Array:
        scores, k = magnitudes(weights)
        return jnp.sort(scores)[k].astype(jnp.float32)

    def by_top_k(weights: Any) -> jax.Array:
        scores, k = magnitudes(weights)
        return jax.lax.top_k(scores, scores.size - k)[0][-1].astype(jnp.float32)

    def read(weights: Any) -> jax.Array:
        return sum(jnp.sum(leaf, dtype=jnp.float32) for leaf in weights)

    normalized = decay(criterion="normalized_magnitude")
    found = [
        step("adam", adam),
        step("swd + adam", optax.chain(decay(), adam)),
        step("swd + adam, update_every=10", optax.chain(decay(10), adam), 10),
        step("swd + adam, local", optax.chain(decay(scope="local"), adam)),
        step("swd + adam, normalized_magnitude", optax.chain(normalized, adam)),
        alone("read: sum of all weights", read),
        alone("threshold alone: swd_jax", ours),
    ]
    if config.alternatives:
        found.append(alone("threshold alone: jnp.sort", by_sorting))
        found.append(alone("threshold alone: lax.top_k", by_top_k))
    return found


def measure(config: Config, console: rich.console.Console) -> tuple[list[Entry], Any]:
    """Compile, warm up and time every entry, in turns."""
    dtype = {"f32": jnp.float32, "bf16": jnp.bfloat16}[config.dtype]
    keys = jax.random.split(jax.random.key(0), 2)
    weights, gradients = (random_leaves(key, config.size, dtype) for key in keys)
    measured = entries(config, weights)
    with console.status("") as status:
        for entry in measured:
            status.update(f"Compiling: {entry.name}")
            try:
                entry.compile(weights, gradients)
                weights, entry.warm_up_seconds = entry.timed(weights, gradients)
            except jax.errors.JaxRuntimeError as error:
                entry.failure = str(error).splitlines()[0]
                weights = random_leaves(keys[0], config.size, dtype)
        for repeat in range(config.repeats):
            status.update(f"Timing: {repeat + 1} of {config.repeats}")
            for entry in measured:
                if not entry.failure and entry.spent() < config.seconds_per_entry:
                    weights, seconds = entry.timed(weights, gradients)
                    entry.samples.append(seconds)
    return measured, weights


def row(entry: Entry, baselines: dict[str, float], total_bytes: int) -> dict[str, Any]:
    """What is reported of an entry. One timed only once has its warm-up."""
    if entry.failure:
        return {"name": entry.name, "failure": entry.failure}
    return {
        "name": entry.name,
        "failure": None,
        "median_ms": 1e3 * entry.median(),
        "quartiles_ms": (1e3 * np.quantile(entry.times(), [0.25, 0.75])).tolist(),
        "samples": len(entry.samples),
        "steps_per_sample": entry.steps,
        **{f"times_{name}": entry.median() / of for name, of in baselines.items()},
        "compile_seconds": entry.compile_seconds,
        "temp_bytes": entry.temp_bytes,
        "temp_percent_of_weights": 100 * entry.temp_bytes / total_bytes,
        "threshold": float(entry.state) if isinstance(entry.state, jax.Array) else None,
    }


def table(reported: list[dict[str, Any]], title: str) -> rich.table.Table:
    shown = rich.table.Table("", title=title, title_justify="left")
    for column in "ms a step|quartiles|x adam|x read|compile s|temporary".split("|"):
        shown.add_column(column, justify="right")
    for entry in reported:
        if entry["failure"]:
            shown.add_row(entry["name"], "failed")
            continue
        low, high = entry["quartiles_ms"]
        shown.add_row(
            entry["name"],
            f"{entry['median_ms']:.4g}",
            f"{low:.4g} - {high:.4g}",
            f"{entry['times_adam']:.2f}",
            f"{entry['times_read']:.1f}",
            f"{entry['compile_seconds']:.1f}",
            f"{entry['temp_percent_of_weights']:.2f} %",
        )
    return shown


def main(config: Config) -> None:
    console = rich.console.Console(highlight=False)
    if not console.is_terminal:
        console.width = 120  # a file or a pipe has no width of its own
    about = environment()
    device = about["hardware"]["device_kind"].lower().replace(" ", "-")
    suffix = "" if config.dtype == "f32" else f"-{config.dtype}"
    name = f"optimizer_step-{device}-{config.size}{suffix}.json"
    out = config.out or RESULTS / name
    out.parent.mkdir(parents=True, exist_ok=True)
    measured, weights = measure(config, console)
    total, weight_bytes = sum(w.size for w in weights), sum(w.nbytes for w in weights)
    baselines = {e.name.split(":")[0]: e.median() for e in measured if e.is_baseline}
    reported = [row(entry, baselines, weight_bytes) for entry in measured]
    title = f"{total:,} {config.dtype} weights in {len(weights)} leaves, {device}"
    console.print(table(reported, title))
    options = {**dataclasses.asdict(config), "out": None}
    results = {"config": options, "weights": total, "leaves": len(weights)}
    results |= {"weight_bytes": weight_bytes, **about, "entries": reported}
    out.write_text(json.dumps(results, indent=2) + "\n")
    console.print(f"Written: {out}")


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
