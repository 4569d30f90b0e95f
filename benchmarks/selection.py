"""Measure how long it takes to find the threshold, next to other ways to find it.

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
from swd_jax import _reductions, _wide

try:
    import tyro
    from models import random_leaves
    from report import new_console, report
    from threshold import by_partition, find, prunable, rank_wanted
    from timing import DTYPES, Config, Entry, measure
except ImportError as error:
    sys.exit(f"{error}. Install the extra that has it: pip install 'swd-jax[examples]'")

NOISE = 1e-3
READS = ("read: jnp.sum of each leaf", "read: jnp.max of each leaf")
NOTES = {
    "baseline": "the faster of two plain reads: every leaf is read once",
    "warm, same weights": "the last threshold is that of these weights",
    "warm, moved weights": "the last threshold is that of the weights before each was "
    f"multiplied by 1 + {NOISE} times a normal number, and the last change that of the "
    "threshold in such a step before",
    "noise": NOISE,
}


def moved(weights: list[jax.Array], key: jax.Array) -> list[jax.Array]:
    """The weights after a small random step, relative to each."""

    def of_leaf(leaf: jax.Array, key: jax.Array) -> jax.Array:
        noise = jax.random.normal(key, leaf.shape)
        return (leaf * (1 + NOISE * noise)).astype(leaf.dtype)

    keys = jax.random.split(key, len(weights))
    step = jax.jit(of_leaf, donate_argnums=0)
    return [step(leaf, key) for leaf, key in zip(weights, keys, strict=True)]


def magnitudes(weights: list[jax.Array]) -> jax.Array:
    return jnp.abs(jnp.concatenate([leaf.ravel() for leaf in prunable(weights)]))


def bisection(weights: list[jax.Array], k: int) -> jax.Array:
    """The threshold bit by bit, one counting read for each, as well compiled as ours."""
    leaves = prunable(weights)
    bits = 8 * leaves[0].dtype.itemsize - 1
    integer = jnp.dtype(f"int{bits + 1}")

    def settle_bit(i: jax.Array, low: jax.Array) -> jax.Array:
        candidate = low | jnp.left_shift(1, bits - 1 - i).astype(integer)
        # So the compiler keeps no copy of all magnitudes as integers.
        barred, candidate = jax.lax.optimization_barrier((leaves, candidate))
        keys = [jax.lax.bitcast_convert_type(jnp.abs(leaf), integer) for leaf in barred]
        counts = _reductions.count_true([[key < candidate] for key in keys])
        below = _wide.sum_last_but_one(counts[:, 0])
        fits = ~_wide.less(jnp.asarray(_wide.from_int(k)), below)
        return jnp.where(fits, candidate, low)

    found = jax.lax.fori_loop(0, bits, settle_bit, jnp.zeros((), integer))
    return jax.lax.bitcast_convert_type(found, leaves[0].dtype)


def entries(config: Config) -> tuple[list[Entry], list[jax.Array]]:
    """Everything that is timed, and the weights."""
    target = swd_jax.Target(config.sparsity)
    keys = jax.random.split(jax.random.key(0), 3)
    weights = random_leaves(keys[0], config.size, DTYPES[config.dtype])
    thresholds = []
    search = jax.jit(lambda weights: find(weights, target)[0][0])
    for key in (None, *keys[1:]):
        weights = weights if key is None else moved(weights, key)
        thresholds.append(search(weights))
    first, before, now = thresholds
    k = rank_wanted(weights, config.sparsity)

    def ours(name: str, last: tuple[jax.Array, jax.Array] | None) -> Entry:
        def function(weights: Any, last: Any) -> tuple[jax.Array, jax.Array]:
            thresholds, readings = find(weights, target, last)
            return thresholds[0], readings

        return Entry(name, function, (weights, last), compared_with=READS)

    def other(name: str, function: Callable[[Any], Any]) -> Entry:
        return Entry(name, function, (weights,), compared_with=READS)

    size = sum(leaf.size for leaf in prunable(weights))
    on_host = Entry(
        "np.partition on the host, copy included",
        lambda weights: by_partition(weights, config.sparsity),
        (weights,),
        compared_with=READS,
        on_host=True,
        temp_bytes=4 * size,
    )
    found = [
        other(READS[0], lambda ws: [jnp.sum(w, dtype=jnp.float32) for w in ws]),
        other(READS[1], lambda ws: [jnp.max(w) for w in ws]),
        ours("swd_jax: warm, same weights", (now, jnp.zeros_like(now))),
        ours("swd_jax: warm, moved weights", (before, before - first)),
        ours("swd_jax: cold", None),
        other("bisection: a read for each bit", lambda ws: bisection(ws, k)),
        on_host,
        other("jax.lax.top_k", lambda ws: jax.lax.top_k(magnitudes(ws), size - k)[0][-1]),
        other("jnp.sort", lambda ws: jnp.sort(magnitudes(ws))[k]),
    ]
    return found, weights


def add_results(measured: list[Entry], expected: float) -> None:
    """What was found, whether it is NumPy's, and the readings that it took."""
    for entry in measured:
        if entry.failure or entry.name in READS:
            continue
        threshold = entry.result
        if entry.name.startswith("swd_jax"):
            threshold, readings = entry.result
            entry.extra["readings"] = int(readings)
        entry.extra["threshold"] = float(threshold)
        entry.extra["exact"] = float(threshold) == expected


def main(config: Config) -> None:
    console = new_console()
    measured, weights = entries(config)
    measure(measured, config, console)
    add_results(measured, by_partition(weights, config.sparsity))
    report("selection", config, measured, weights, console, {"notes": NOTES})


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
