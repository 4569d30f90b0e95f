"""Train networks that end with 5 % of their weights, and compare how.

On scikit-learn's handwritten digits (1,797 images of 8x8 pixels, part of the package),
the same LeNet-5 is trained dense, with `sparsify`, with `swd` and with gradual pruning:

    python examples/digits.py
    python examples/digits.py --sparsity 0.98 --epochs 120
"""

import dataclasses
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import optax
import rich.console
import rich.progress
import tyro
from digits_figure import draw_figure
from digits_report import DENSE, GRADUAL, ONE_SHOT, SPARSIFY, SWD, Run, as_dict, table
from digits_training import TRAINING_IMAGES, Returns, Trained, Trainer

import swd_jax
import whole_files


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare dense training, sparsify, swd, gradual pruning and one-shot pruning.

    All have the same network, initial weights, batches and Adam. Prints a table, and
    writes a figure and all the numbers.
    """

    sparsity: float = 0.95
    """Fraction of the weights to prune: from 0 up to, but not including, 1."""
    epochs: int = 50
    """Passes through the training images. Sparser networks need more of them."""
    batch_size: int = 32
    """Images per optimizer step."""
    learning_rate: float = 3e-3
    """Adam's learning rate at the start. It falls to 0 along a cosine."""
    a_min: float = 0.1
    """Multiplier of swd at the first step."""
    a_max: float = 1e6
    """Multiplier of swd at the last step, reached exponentially.
    If it is too small, pruning removes weights that are not yet near zero."""
    weight_decay: float = 5e-4
    """Strength of the decay by swd, before the multiplier."""
    rise: float = 0.5
    """Part of the training in which the target of swd and gradual pruning rises."""
    seeds: int = 3
    """Number of networks that each method trains, with different initial weights."""
    first_seed: int = 0
    """Seed of the first network. The others count up from there."""
    output: Path = Path("results/digits")
    """Folder to write digits.png and digits.json to."""

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("seeds", 1), ("first_seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name} must be at least {least}, got {getattr(self, name)}"
                )
        if not 1 <= self.batch_size <= TRAINING_IMAGES:
            raise ValueError(
                f"batch_size must be from 1 to {TRAINING_IMAGES}, the number of "
                f"training images, got {self.batch_size}"
            )
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(
                f"learning_rate must be greater than 0, got {self.learning_rate}"
            )
        if not 0 < self.rise <= 1:
            raise ValueError(f"rise must be in (0, 1], got {self.rise}")
        # The library checks the rest. Better now than after loading and compiling.
        swd_jax.Target(self.sparsity)
        optimizers(self)

    @property
    def steps(self) -> int:
        """Optimizer steps of one training."""
        return self.epochs * (TRAINING_IMAGES // self.batch_size)


def rising_target(config: Config) -> swd_jax.Target:
    """Return the target of swd and of gradual pruning."""
    end = max(1, round(config.rise * config.steps))
    return swd_jax.Target(swd_jax.cubic_sparsity(config.sparsity, begin=0, end=end))


def optimizers(config: Config) -> dict[str, optax.GradientTransformation]:
    """Return the chain of each method that trains a network."""
    adam = optax.adam(
        optax.cosine_decay_schedule(config.learning_rate, decay_steps=config.steps)
    )
    target = rising_target(config)
    a = swd_jax.exponential_growth(config.a_min, config.a_max, config.steps)
    swd = swd_jax.swd(target, weight_decay=config.weight_decay, a=a)
    return {
        DENSE: adam,
        SPARSIFY: optax.chain(adam, swd_jax.sparsify(config.sparsity, config.steps)),
        SWD: optax.chain(swd, adam),
        GRADUAL: optax.chain(adam, swd_jax.methods.magnitude_pruning(target)),
    }


def main(config: Config) -> dict[str, Any]:
    """Train, prune, compare. Returns what it writes to digits.json."""
    config.output.mkdir(parents=True, exist_ok=True)  # or fail before the work is done
    with whole_files.alone(config.output):
        return compare(config)


def compare(config: Config) -> dict[str, Any]:
    started = time.perf_counter()
    console = rich.console.Console(highlight=False)
    if not console.is_terminal:
        console.width = 100  # a file or a pipe has no width of its own

    with console.status("Compiling"):
        trainers = {
            name: Trainer(optimizer, config.batch_size)
            for name, optimizer in optimizers(config).items()
        }
    runs: list[Run] = []
    with progress_bar(console) as progress:
        for seed in range(config.first_seed, config.first_seed + config.seeds):
            trained = {
                name: train(name, trainer, seed, config, progress)
                for name, trainer in trainers.items()
            }
            for name, network in trained.items():
                pruned = swd_jax.prune(network.params, config.sparsity)
                after = None if name == DENSE else pruned
                runs.append(Run.of(name, seed, network, after, trainers[name].test))
            dense = trained[DENSE]
            pruned = swd_jax.prune(dense.params, config.sparsity)
            runs.append(Run.of(ONE_SHOT, seed, dense, pruned, trainers[DENSE].test))

    console.print()
    console.print(table(runs))
    console.print("\nThe last network of sparsify, as trained:\n", style="bold")
    summary = swd_jax.summarize(trained[SPARSIFY].params, config.sparsity)
    console.print(str(summary), soft_wrap=True)
    figure, numbers = config.output / "digits.png", config.output / "digits.json"
    results = {
        "config": dataclasses.asdict(config) | {"output": str(config.output)},
        "seconds": time.perf_counter() - started,
    } | as_dict(runs)
    whole_files.write(numbers, json.dumps(results, indent=2) + "\n")
    draw_figure(runs, figure)
    console.print(f"\n{results['seconds']:.0f} seconds. Written: {figure}, {numbers}")
    return results


def progress_bar(console: rich.console.Console) -> rich.progress.Progress:
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(bar_width=12),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[status]}"),
        console=console,
    )


def train(
    name: str,
    trainer: Trainer,
    seed: int,
    config: Config,
    progress: rich.progress.Progress,
) -> Trained:
    """Train one network and follow it, epoch by epoch."""
    task = progress.add_task(f"seed {seed} {name:15}", total=config.epochs, status="")
    accuracies, residuals, returned = [], [], []
    returns = Returns()
    for epoch, now in enumerate(trainer.train(seed, config.epochs)):
        accuracies.append(trainer.test(now.params).accuracy)
        # The share of the norm that pruning would take away, of dense weights too.
        residuals.append(swd_jax.summarize(now.params, config.sparsity).residual)
        returned.append(returns.count(now.params))
        status = f"{accuracies[-1]:5.1f} %{pruning_status(now.optimizer_state)}"
        progress.update(task, completed=epoch, status=status)
    return Trained(now.params, now.seconds, accuracies, residuals, returned)


def pruning_status(optimizer_state: optax.OptState) -> str:
    """Read what a method logs out of the state of the whole chain."""
    threshold, selected = (
        optax.tree_utils.tree_get(optimizer_state, name)
        for name in ("threshold", "selected_fraction")
    )
    if threshold is None:  # dense training
        return ""
    return f"  below the threshold {threshold:.4f}: {selected:.1%}"


if __name__ == "__main__":
    try:
        main(tyro.cli(Config))
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr, flush=True)
        # At once: JAX's threads may be at work still, and an ordinary exit would take
        # away what they work on.
        os._exit(130)
    except OSError as error:
        sys.exit(f"{Path(__file__).name}: {error}")
