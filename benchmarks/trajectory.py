"""Follow the search for the threshold through the training of a real network.

    python benchmarks/trajectory.py
    python benchmarks/trajectory.py --steps 600 --sparsity 0.98

A perceptron of 4.1 million weights learns scikit-learn's handwritten digits under
selective weight decay, with Adam and with SGD, exactly and with a tolerance. Every step
records the passes of a search with a warm start, the time that it takes, whether NumPy
finds the same threshold, and the fraction of the weights that is not selected though it
is below NumPy's. Prints a table and writes JSON.
"""

import dataclasses
import functools
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import swd_jax

try:
    import rich.table
    import tyro
    from alternatives import by_partition
    from environment import environment
    from report import new_console, write
    from sklearn.datasets import load_digits
    from threshold import from_state, scores
    from timing import RESULTS
except ImportError as error:
    sys.exit(f"{error}. Install the extra that has it: pip install 'swd-jax[examples]'")

WIDTHS = (64, 2000, 2000, 10)
BATCH = 128
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
A_MIN, A_MAX = 0.1, 4e4
FIFTHS = 5


@dataclasses.dataclass(frozen=True)
class Config:
    """Training of the network."""

    steps: int = 150
    """Optimizer steps. The learning rate falls to a tenth after each third."""
    sparsity: float = 0.9
    """Fraction of the weights that is selected."""
    tolerance: float = 1e-4
    """Fraction of the weights that may be missing in a selection."""
    adam_learning_rate: float = 1e-3
    """Learning rate of the first third."""
    sgd_learning_rate: float = 0.1
    """Learning rate of the first third; momentum 0.9."""
    seed: int = 0
    """Seed of the initial weights and the batches."""
    out: Path = RESULTS
    """Folder for the JSON file."""


def initial_weights(key: jax.Array) -> dict[str, dict[str, jax.Array]]:
    params = {}
    for i, (inputs, outputs) in enumerate(itertools.pairwise(WIDTHS)):
        key, at = jax.random.split(key)
        kernel = jax.random.normal(at, (inputs, outputs)) * np.sqrt(2 / inputs)
        params[f"dense{i}"] = {"kernel": kernel, "bias": jnp.zeros(outputs)}
    return params


def kernels(params: Any) -> list[jax.Array]:
    return [layer["kernel"] for layer in params.values()]


def loss(params: Any, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
    """The mean loss, and the share of correct answers."""
    values = images
    for name in sorted(params):
        values = values @ params[name]["kernel"] + params[name]["bias"][None]
        values = values if name == max(params) else jax.nn.relu(values)
    right = jnp.mean(jnp.argmax(values, -1) == labels)
    losses = optax.softmax_cross_entropy_with_integer_labels(values, labels)
    return jnp.mean(losses), right


def batches(config: Config) -> Iterator[tuple[jax.Array, jax.Array]]:
    digits = load_digits()
    images, labels = digits.data.astype(np.float32) / 16, digits.target
    random = np.random.default_rng(config.seed)
    for _ in range(config.steps):
        chosen = random.choice(len(labels), BATCH, replace=False)
        yield jnp.asarray(images[chosen]), jnp.asarray(labels[chosen])


def falling(learning_rate: float, steps: int) -> optax.Schedule:
    drops = {steps // 3: 0.1, 2 * steps // 3: 0.1}
    return optax.piecewise_constant_schedule(learning_rate, drops)


def optimizers(config: Config) -> dict[str, tuple[optax.GradientTransformation, float]]:
    """Return the chains, in which `swd` is first, and their tolerances."""
    a = swd_jax.exponential_growth(A_MIN, A_MAX, config.steps)
    adam_rate = falling(config.adam_learning_rate, config.steps)
    sgd_rate = falling(config.sgd_learning_rate, config.steps)
    bounded = swd_jax.bound_multiplier(
        a, learning_rate=sgd_rate, weight_decay=WEIGHT_DECAY, momentum=MOMENTUM
    )
    chains = {
        "adam": (a, optax.adam(adam_rate)),
        "sgd": (bounded, optax.sgd(sgd_rate, momentum=MOMENTUM)),
    }
    return {
        f"{name}, tolerance={tolerance:g}" if tolerance else name: (
            optax.chain(
                swd_jax.swd(
                    config.sparsity,
                    weight_decay=WEIGHT_DECAY,
                    a=multiplier,
                    tolerance=tolerance,
                ),
                optimizer,
            ),
            tolerance,
        )
        for name, (multiplier, optimizer) in chains.items()
        for tolerance in (0.0, config.tolerance)
    }


def compiled_step(tx: optax.GradientTransformation) -> Callable[..., Any]:
    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, images: Any, labels: Any) -> tuple[Any, ...]:
        (value, right), gradients = jax.value_and_grad(loss, has_aux=True)(
            params, images, labels
        )
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value, right

    return step


def follow(
    tx: optax.GradientTransformation, tolerance: float, config: Config
) -> dict[str, list[Any]]:
    """Train, and time each step's search apart from the step."""
    target = swd_jax.Target(config.sparsity)
    params = initial_weights(jax.random.key(config.seed))
    state = tx.init(params)
    step = compiled_step(tx)
    exact_tolerance = Fraction(str(tolerance))

    @jax.jit
    def search(params: Any, state: Any) -> Any:
        return from_state(params, target, state, exact_tolerance)

    jax.block_until_ready(search(params, state[0]))  # compile
    names = "readings milliseconds threshold exact shortfall loss accuracy".split()
    history: dict[str, list[Any]] = {name: [] for name in names}
    for images, labels in batches(config):
        jax.block_until_ready((params, state))
        start = time.perf_counter()
        found = jax.block_until_ready(search(params, state[0]))
        seconds = time.perf_counter() - start
        threshold = float(scores(found)[0])
        of_numpy = by_partition(kernels(params), config.sparsity)
        between = [_between(leaf, threshold, of_numpy) for leaf in kernels(params)]
        params, state, value, right = step(params, state, images, labels)
        row = (
            int(found.num_passes),
            1e3 * seconds,
            threshold,
            threshold == of_numpy,
            sum(between) / sum(leaf.size for leaf in kernels(params)),
            float(value),
            float(right),
        )
        for name, item in zip(names, row, strict=True):
            history[name].append(item)
    history["residual"] = [swd_jax.summarize(params, target).residual]
    return history


def _between(leaf: jax.Array, low: float, high: float) -> int:
    """Return how many magnitudes are in [low, high)."""
    magnitudes = np.abs(np.asarray(leaf))
    return int(((magnitudes >= low) & (magnitudes < high)).sum())


def fifths(history: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Summarize each fifth of the training."""
    steps = len(history["readings"])
    bounds = [steps * i // FIFTHS for i in range(FIFTHS + 1)]
    rows = []
    for first, last in itertools.pairwise(bounds):
        passes = history["readings"][first:last]
        rows.append(
            {
                "steps": [first, last],
                "readings_mean": statistics.mean(passes),
                "readings_median": statistics.median(passes),
                "readings_max": max(passes),
                "shortfall_max": max(history["shortfall"][first:last]),
                "median_ms": statistics.median(history["milliseconds"][first:last]),
                "accuracy": history["accuracy"][last - 1],
            }
        )
    return rows


def table(runs: dict[str, Any]) -> rich.table.Table:
    columns = "steps|passes: mean|median|most|most not selected|ms, median|accuracy"
    shown = rich.table.Table("", *columns.split("|"))
    for name, run in runs.items():
        for row in run["fifths"]:
            shown.add_row(
                name,
                f"{row['steps'][0]} - {row['steps'][1] - 1}",
                f"{row['readings_mean']:.2f}",
                f"{row['readings_median']:g}",
                f"{row['readings_max']}",
                f"{row['shortfall_max']:.4%}",
                f"{row['median_ms']:.2f}",
                f"{row['accuracy']:.1%}",
            )
        shown.add_section()
    return shown


def main(config: Config) -> None:
    console = new_console()
    runs = {}
    for name, (tx, tolerance) in optimizers(config).items():
        with console.status(f"Training with {name}"):
            history = follow(tx, tolerance, config)
        runs[name] = {"fifths": fifths(history), **history}
    console.print(table(runs))
    for name, run in runs.items():
        exact, steps = sum(run["exact"]), len(run["exact"])
        console.print(
            f"{name}: {exact} of {steps} thresholds are NumPy's; pruning would take "
            f"{run['residual'][0]:.2%} of the norm"
        )
    about = environment()
    device = about["hardware"]["device_kind"].lower().replace(" ", "-")
    options = dataclasses.asdict(config)
    del options["out"]
    results = {"config": options, "widths": WIDTHS, "batch": BATCH}
    results |= {"weight_decay": WEIGHT_DECAY, "a": [A_MIN, A_MAX], **about}
    write(config.out / f"trajectory-{device}.json", results | {"runs": runs}, console)


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
