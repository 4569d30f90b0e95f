"""Measure the time of the search for the threshold, next to other ways to find it.

    python benchmarks/selection.py
    python benchmarks/selection.py --size 25.6M --dtype bf16

Prints a table and writes JSON.
"""

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import swd_jax
from swd_jax._selection.warm_start import PreviousThresholds

try:
    import alternatives
    import tyro
    from report import new_console, report
    from threshold import find, scores
    from timing import DTYPES, Config, Entry, chosen, measure
    from weights import random_leaves
except ImportError as error:
    sys.exit(f"{error}. Install the extra that has it: pip install 'swd-jax[examples]'")

NOISE = 1e-3
# Bytes a number that a sort of XLA:CPU allocates and its memory analysis leaves out
# (measured at 50 million float32: a peak of 20 bytes each, of which it counts 4).
HIDDEN_IN_A_SORT = 16
READS = {
    "read: jnp.sum of each leaf": alternatives.total,
    "read: jnp.max of each leaf": alternatives.greatest,
}
BISECTION = "bisection: a read for each bit"
PARTITION = "np.partition on the host, copy included"
NOTES = {
    "ratio": "to the faster of the two plain reads, a sum or a maximum of every leaf",
    "warm, same weights": "the last threshold is that of these weights",
    "warm, moved weights": "the last threshold is that of the weights before each was "
    f"multiplied by 1 + {NOISE} times a normal number, and the last change that of the "
    "threshold in such a step before",
    "cold": "there is no last threshold",
    PARTITION: "the copy is of all magnitudes, in float32",
}


def moved(weights: list[jax.Array], key: jax.Array) -> list[jax.Array]:
    """Return the weights after a small random step, relative to each weight."""

    def of_leaf(leaf: jax.Array, key: jax.Array) -> jax.Array:
        noise = jax.random.normal(key, leaf.shape)
        return (leaf * (1 + NOISE * noise)).astype(leaf.dtype)

    keys = jax.random.split(key, len(weights))
    step = jax.jit(of_leaf, donate_argnums=0)
    return [step(leaf, key) for leaf, key in zip(weights, keys, strict=True)]


def entries(config: Config) -> tuple[list[Entry], list[jax.Array]]:
    """Return all entries to time, and the weights."""
    target = swd_jax.Target(config.sparsity)
    keys = jax.random.split(jax.random.key(0), 3)
    weights = random_leaves(keys[0], config.size, DTYPES[config.dtype])
    search = jax.jit(lambda weights: scores(find(weights, target))[0])
    first = search(weights)
    weights = moved(weights, keys[1])
    before = search(weights)
    weights = moved(weights, keys[2])
    now = search(weights)

    def ours(name: str, last: PreviousThresholds | None) -> Entry:
        def function(weights: Any, last: Any) -> tuple[jax.Array, jax.Array]:
            found = find(weights, target, last)
            return scores(found)[0], found.num_passes

        return Entry(name, function, (weights, last), compared_with=tuple(READS))

    def alternative(name: str, way: Callable[..., Any], **options: Any) -> Entry:
        def function(weights: Any) -> Any:
            return way(weights, config.sparsity)

        return Entry(name, function, (weights,), compared_with=tuple(READS), **options)

    ranked = sum(leaf.size for leaf in alternatives.prunable(weights))
    hidden = HIDDEN_IN_A_SORT * ranked if jax.default_backend() == "cpu" else 0
    measured = [
        *(
            Entry(name, read, (weights,), compared_with=tuple(READS))
            for name, read in READS.items()
        ),
        ours(
            "swd_jax: warm, same weights", PreviousThresholds(now, jnp.zeros_like(now))
        ),
        ours(
            "swd_jax: warm, moved weights", PreviousThresholds(before, before - first)
        ),
        ours("swd_jax: cold", None),
        alternative(BISECTION, alternatives.by_bisection),
        alternative(
            PARTITION, alternatives.by_partition, on_host=True, temp_bytes=4 * ranked
        ),
        alternative("jax.lax.top_k", alternatives.by_top_k, hidden_bytes=hidden),
        alternative("jnp.sort", alternatives.by_sorting, hidden_bytes=hidden),
    ]
    return measured, weights


def add_results(
    measured: list[Entry], weights: list[jax.Array], sparsity: float
) -> None:
    """Add the threshold, whether it equals NumPy's, and the number of passes."""
    expected = alternatives.by_partition(weights, sparsity)
    for entry in measured:
        if entry.failure or entry.name in READS:
            continue
        threshold = entry.result
        if entry.name.startswith("swd_jax"):
            threshold, passes = entry.result
            entry.extra["readings"] = int(passes)
        elif entry.name == BISECTION:
            entry.extra["readings"] = alternatives.key_bits(weights)
        entry.extra["threshold"] = float(threshold)
        entry.extra["exact"] = float(threshold) == expected


def main(config: Config) -> None:
    console = new_console()
    measured, weights = entries(config)
    measured = chosen(measured, config)
    measure(measured, config, console)
    add_results(measured, weights, config.sparsity)
    report("selection", config, measured, weights=weights, console=console, notes=NOTES)


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
