"""Measure the ImageNet example: what SWD adds to its step, and if the data keep up.

    python benchmarks/imagenet.py
    python benchmarks/imagenet.py --data DIR --resolution 224 --batch-size 64

DIR has train/<class>/*.JPEG. Prints tables and writes JSON. Steps are timed in turns.
"""

import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

# Before this folder, whose models are others: nothing else here is imported.
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

try:
    import rich.console
    import rich.table
    import tyro

    from experiments.environment import environment
    from imagenet_training import pipeline, placement
    from imagenet_training.config import Config as Run
    from imagenet_training.folder import find_images
    from imagenet_training.trainer import Trainer
except ImportError as error:
    sys.exit(f"{error}. Install the extra: pip install 'swd-jax[imagenet]'")


# Number of turns in which each of the three sources of images is timed.
ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Config:
    """Programs to time, and number of repeats."""

    data: Path | None = None
    """Folder with train/<class>/*.JPEG. Without one only the steps are timed."""
    depth: int = 50
    """Number of layers of the network."""
    width: int = 64
    """Maps of its first convolution."""
    resolution: int = 64
    """Height and width of the images."""
    batch_size: int = 8
    """Images per step."""
    bfloat16: bool = False
    """Compute in bfloat16."""
    threads: int = 2
    """That decode images."""
    workers: int = 0
    """Processes that decode images."""
    repeats: int = 15
    """Steps that are timed of each kind."""
    out: Path = Path(__file__).parent / "results"
    """Folder for the JSON file."""


def trainers(config: Config) -> dict[str, Trainer]:
    """One for each kind of step. They differ in the optimizer alone."""
    run = Run(
        depth=config.depth,
        width=config.width,
        resolution=config.resolution,
        batch_size=config.batch_size,
        bfloat16=config.bfloat16,
    )
    kinds = {
        "dense": dataclasses.replace(run, sparsity=0.0),
        "swd": run,
        "swd, update_every=10": dataclasses.replace(run, update_every=10),
    }
    mesh = placement.make_mesh()
    return {
        # The full length, so that the multiplier is that of the first steps.
        name: Trainer(kind, mesh, 1000, kind.total_steps(1_281_167), 1251)
        for name, kind in kinds.items()
    }


def noise(config: Config) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    shape = (config.batch_size, config.resolution, config.resolution, 3)
    return {
        "images": generator.integers(0, 256, shape, np.uint8),
        "labels": generator.integers(0, 1000, shape[:1], np.int32),
    }


def time_steps(
    config: Config, made: dict[str, Trainer], console: rich.console.Console
) -> dict[str, list[float]]:
    """Seconds of each step, all kinds in turns: A B C A B C ..."""
    batch = placement.to_devices(placement.make_mesh(), noise(config))
    states = {}
    with console.status("") as status:
        for name, trainer in made.items():
            status.update(f"Compiling: {name}")
            states[name] = jax.block_until_ready(trainer.step(trainer.start(), batch))
        seconds: dict[str, list[float]] = {name: [] for name in made}
        for repeat in range(config.repeats):
            status.update(f"Timing: {repeat + 1} of {config.repeats}")
            for name, trainer in made.items():
                start = time.perf_counter()
                states[name] = trainer.step(states[name][0], batch)
                jax.block_until_ready(states[name])
                seconds[name].append(time.perf_counter() - start)
    return seconds


def time_data(
    config: Config, trainer: Trainer, folder: Path, console: rich.console.Console
) -> dict[str, float]:
    """Images per second: the pipeline alone, training on its images, and on noise."""
    mesh = trainer.mesh
    with tempfile.TemporaryDirectory() as place:
        batches = pipeline.training_batches(
            find_images("data", folder / "train"),
            resolution=config.resolution,
            batch_size=config.batch_size,
            seed=0,
            bad_images=pipeline.BadImageList(Path(place) / "bad_images.txt"),
        )
        made = pipeline.iterate(
            batches, start=0, threads=config.threads, workers=config.workers
        )
        on_devices = placement.to_devices(mesh, noise(config))
        state, _ = jax.block_until_ready(trainer.step(trainer.start(), on_devices))

        def alone(state: Any) -> Any:
            next(made)
            return state

        def on_images(state: Any) -> Any:
            return trainer.step(state, placement.to_devices(mesh, next(made)))[0]

        def on_noise(state: Any) -> Any:
            return trainer.step(state, on_devices)[0]

        kinds = {"pipeline alone": alone, "on images": on_images, "on noise": on_noise}
        speeds: dict[str, list[float]] = {name: [] for name in kinds}
        with console.status("Timing the data"):
            for _ in range(ROUNDS):  # in turns
                for name, function in kinds.items():
                    for _ in range(2 * config.threads + 1):  # what was made before
                        state = function(state)
                    jax.block_until_ready(state)
                    start = time.perf_counter()
                    for _ in range(config.repeats):
                        state = function(state)
                    jax.block_until_ready(state)
                    elapsed = time.perf_counter() - start
                    speeds[name].append(config.repeats * config.batch_size / elapsed)
        made.close()
    return {name: float(np.median(values)) for name, values in speeds.items()}


def main(config: Config) -> None:
    console = rich.console.Console(highlight=False)
    if not console.is_terminal:
        console.width = 100  # a file or a pipe has no width of its own
    made = trainers(config)
    seconds = time_steps(config, made, console)
    dense = float(np.median(seconds["dense"]))
    shown = rich.table.Table("step", "ms, median", "quartiles", "times dense")
    steps = {}
    for name, times in seconds.items():
        low, middle, high = 1e3 * np.quantile(times, [0.25, 0.5, 0.75])
        ratio = middle / (1e3 * dense)
        shown.add_row(name, f"{middle:.1f}", f"{low:.1f} - {high:.1f}", f"{ratio:.3f}")
        steps[name] = {
            "median_ms": middle,
            "quartiles_ms": [low, high],
            "times_dense": ratio,
        }
    console.print(shown)
    speeds = {}
    if config.data is not None:
        speeds = time_data(config, made["swd"], config.data, console)
        shown = rich.table.Table("data", "images/s, median")
        for name, speed in speeds.items():
            shown.add_row(name, f"{speed:,.1f}")
        console.print(shown)
    about = environment()
    device = about["hardware"]["device_kind"].lower().replace(" ", "-")
    options = dataclasses.asdict(config)
    for name in ("out", "data"):
        del options[name]
    options["devices"] = jax.device_count()
    name = f"imagenet-{device}-resnet{config.depth}x{config.width}-{config.resolution}"
    results = {"config": options, "steps": steps, "images_per_second": speeds, **about}
    config.out.mkdir(parents=True, exist_ok=True)
    file = config.out / f"{name}.json"
    file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    console.print(f"Written: {file}")


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
