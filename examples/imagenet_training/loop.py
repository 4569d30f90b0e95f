"""A whole run: from the folder to the pruned network."""

import contextlib
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

import swd_jax
import whole_files
from imagenet_training import pipeline, placement
from imagenet_training.checkpoints import Checkpoints, save_pruned
from imagenet_training.config import IMAGENET_CLASSES, Config
from imagenet_training.data import Data, find_data
from imagenet_training.folder import BadFolder
from imagenet_training.metrics import Metrics, Speed
from imagenet_training.trainer import Network, Sums, Trainer, TrainState, best_network


def run(config: Config) -> dict[str, Any]:
    """Train, evaluate, prune, evaluate. Returns what it writes to result.json."""
    if config.distributed:
        jax.distributed.initialize(
            config.coordinator, config.process_count, config.process_index
        )
    placement.check_batch_size(config.batch_size)
    mesh = placement.make_mesh()
    config.output.mkdir(parents=True, exist_ok=True)  # or fail before the work is done
    # Processes of one run share the folder, and the first one holds it for all.
    is_first = jax.process_index() == 0
    with whole_files.alone(config.output) if is_first else contextlib.nullcontext():
        return _run(config, mesh)


def _run(config: Config, mesh: Mesh) -> dict[str, Any]:
    data = find_data(config)
    steps = config.total_steps(data.images)
    steps_per_epoch = config.steps_per_epoch(data.images)
    trainer = Trainer(config, mesh, data.classes, steps, steps_per_epoch)
    checkpoints = Checkpoints(config, data.fingerprint)
    state = checkpoints.restore(trainer.abstract, trainer.shardings)
    resumed = state is not None
    if state is None:
        state = trainer.start()
    first = int(state.step)
    metrics = Metrics(config, first, steps)
    metrics.say(_describe(config, data, steps, mesh))
    if resumed:
        metrics.say(f"Goes on from step {first:,}.")
    with metrics.progress:
        state = train(config, trainer, data, checkpoints, metrics, state, steps)
    checkpoints.save(steps, state)
    checkpoints.close()
    result = finish(config, trainer, data, metrics, state, steps)
    metrics.close()
    return result


def train(
    config: Config,
    trainer: Trainer,
    data: Data,
    checkpoints: Checkpoints,
    metrics: Metrics,
    state: TrainState,
    steps: int,
) -> TrainState:
    """Train from the state's step to the last."""
    first = int(state.step)
    every = config.evaluate_every * config.steps_per_epoch(data.images)
    speed = Speed()
    before: Any = None
    simulated = trainer.mesh.size > 1 and trainer.mesh.devices.flat[0].platform == "cpu"
    with contextlib.closing(
        training_arrays(config, data, trainer.mesh, first)
    ) as batches:
        for step in range(first + 1, steps + 1):
            # This only begins a step: the next batch is made while the devices compute.
            # But no more than one ahead, for their memory holds the batches.
            state, values = trainer.step(state, next(batches))
            # (Simulated devices share a few threads, for which two steps may wait for
            # each other for ever.)
            jax.block_until_ready(values if simulated else before)
            before = values
            if step == first + 1:
                jax.block_until_ready(values)
                speed.restart(step)  # compiled by now
                metrics.show(step)
            elif step % config.log_every == 0 or step == steps:
                point = _point(trainer, state, values)  # waits for the step
                point["images_per_second"] = speed.images_per_second(
                    step, config.batch_size
                )
                metrics.write(step, "train", point)
                metrics.show(step, point)
            else:
                metrics.show(step)
            if step < steps and step % config.checkpoint_every == 0:
                checkpoints.save(step, state)
                speed.restart(step)
            if step < steps and step % every == 0 and data.validation is not None:
                scores = evaluate(config, trainer, data, best_network(state))
                metrics.write(step, "evaluation", scores)
                metrics.say(f"Step {step:,}: {_scores(scores)}")
                speed.restart(step)
    return state


def training_arrays(
    config: Config, data: Data, mesh: Mesh, start: int
) -> Generator[dict[str, jax.Array]]:
    """The batches on the devices, from number `start` on."""
    if data.train is None:
        batch = _noise(config, mesh)
        while True:
            yield batch
    with contextlib.closing(
        pipeline.iterate(
            data.train, start=start, threads=config.threads, workers=config.workers
        )
    ) as batches:
        for batch in batches:
            yield placement.to_devices(mesh, batch)


def _noise(config: Config, mesh: Mesh) -> dict[str, jax.Array]:
    shape = (config.batch_size, config.resolution, config.resolution, 3)

    def make() -> dict[str, jax.Array]:
        for_images, for_labels = jax.random.split(jax.random.key(config.seed))
        return {
            "images": jax.random.bits(for_images, shape, jnp.uint8),
            "labels": jax.random.randint(for_labels, shape[:1], 0, IMAGENET_CLASSES),
        }

    return jax.jit(make, out_shardings=placement.divided_batch(mesh))()


def evaluate(
    config: Config, trainer: Trainer, data: Data, network: Network
) -> dict[str, float]:
    """Loss, and the share of the images that are right, in percent."""
    assert data.validation is not None
    total = before = Sums()
    with contextlib.closing(
        pipeline.iterate(
            data.validation, start=0, threads=config.threads, workers=config.workers
        )
    ) as batches:
        for batch in batches:
            sums = trainer.evaluate(network, placement.to_devices(trainer.mesh, batch))
            # Those of the batch before: the devices are at work on this one.
            total, before = _add(total, before), sums
    total = _add(total, before)
    images = float(total.images)
    if images == 0:
        raise BadFolder(
            "val_folder: none of its images can be decoded. Name another: "
            "--val-folder DIR"
        )
    return {
        "loss": float(total.loss) / images,
        "top1": 100 * float(total.top1) / images,
        "top5": 100 * float(total.top5) / images,
        "images": images,
    }


def finish(
    config: Config,
    trainer: Trainer,
    data: Data,
    metrics: Metrics,
    state: TrainState,
    steps: int,
) -> dict[str, Any]:
    """Prune, and say what that did."""
    result: dict[str, Any] = {"steps": steps}
    network = best_network(state)
    if data.validation is not None:
        result["trained"] = evaluate(config, trainer, data, network)
        metrics.write(steps, "evaluation", result["trained"])
        metrics.say(f"Trained:  {_scores(result['trained'])}")
    if config.sparsity:
        before = swd_jax.summarize(
            trainer.gather(network.params), trainer.target, step=steps
        )
        network = network._replace(params=trainer.prune(network.params))
        if data.validation is not None:
            result["pruned"] = evaluate(config, trainer, data, network)
            metrics.write(steps, "pruned", result["pruned"])
            metrics.say(f"Pruned:   {_scores(result['pruned'])}")
        after = swd_jax.summarize(
            trainer.gather(network.params), trainer.target, step=steps
        )
        result["obtained_sparsity"] = after.obtained_sparsity
        result["residual"] = before.residual
        metrics.say(f"\n{after}\n")
        metrics.say(
            f"Pruning took away {before.residual:.2%} of the norm of the weights."
        )
        place = save_pruned(config, trainer.gather(network))
        metrics.say(f"Written: {place}")
    file = config.output / "result.json"
    if metrics.first:
        whole_files.write(file, json.dumps(result, indent=2) + "\n")
    metrics.say(f"Written: {file}")
    return result


def _add(total: Sums, sums: Sums) -> Sums:
    return Sums(*(a + np.float64(b) for a, b in zip(total, sums, strict=True)))


def _point(
    trainer: Trainer, state: TrainState, values: dict[str, jax.Array]
) -> dict[str, float]:
    """Return the metrics of a step, read from the devices."""
    point = {name: float(value) for name, value in values.items()}
    point["learning_rate"] = float(trainer.learning_rate(int(state.step) - 1))
    for name in ("multiplier", "threshold", "selected_fraction"):
        value = optax.tree_utils.tree_get(state.optimizer_state, name)
        if value is not None:
            point[name] = float(value)
    return point


def _scores(scores: dict[str, float]) -> str:
    return (
        f"top-1 {scores['top1']:.2f} %, top-5 {scores['top5']:.2f} %, "
        f"loss {scores['loss']:.4f}, {scores['images']:,.0f} images"
    )


def _describe(config: Config, data: Data, steps: int, mesh: Mesh) -> str:
    kind = jax.devices()[0].device_kind
    source: Path | str | None = "noise" if config.synthetic else config.data
    return (
        f"ResNet-{config.depth} on {source}: {data.images:,} images, {data.classes:,} "
        f"classes, {steps:,} steps of {config.batch_size:,}; {mesh.size} x {kind}, "
        f"{config.mesh}."
    )
