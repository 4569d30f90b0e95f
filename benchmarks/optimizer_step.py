"""Measure what selective weight decay adds to an optimizer step.

    python benchmarks/optimizer_step.py
    python benchmarks/optimizer_step.py --size 25.6M --dtype bf16

Prints a table and writes JSON. Every entry has weights and a state of its own, which
are carried from step to step, so that the weights move and every search has a warm
start.
"""

import functools
import sys
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import swd_jax

try:
    import tyro
    from report import new_console, report
    from threshold import find, from_state, scores
    from timing import DTYPES, Config, Entry, chosen, measure
    from weights import random_leaves
except ImportError as error:
    sys.exit(f"{error}. Install the extra that has it: pip install 'swd-jax[examples]'")

# Small, so that the weights keep the distribution of a network's over all steps.
LEARNING_RATE = 1e-5
MOMENTUM = 0.9
WEIGHT_DECAY, A = 5e-4, 1.0
# Timed together, so that no step waits for the one before.
STEPS = 10
TOLERANCE = Fraction(1, 10_000)
ADAM, SGD = "adam", "sgd, momentum 0.9"
NOTES = {
    "ratio": "to adam alone, or to sgd alone",
    "learning_rate": LEARNING_RATE,
    "momentum": MOMENTUM,
    "gradients": "random, and the same at every step: adam moves each weight by about "
    "the learning rate, sgd by up to ten times the learning rate times its gradient",
    "fixed threshold + adam": "decays the weights below a given threshold, without a "
    "search: the cost of swd without its selection",
    "readings": "passes over all weights in the search of the step after the last",
    "steps": "taken without waiting between them, as a training loop takes them",
}


class FixedThreshold(NamedTuple):
    threshold: jax.Array


def below_fixed_threshold(target: swd_jax.Target) -> optax.GradientTransformation:
    """Decay like `swd`, with the threshold of the initial weights throughout."""

    def init(params: Any) -> FixedThreshold:
        return FixedThreshold(scores(find(params, target))[0])

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def decayed(update: jax.Array, weight: jax.Array) -> jax.Array:
            if not swd_jax.is_weight("w", weight):
                return update
            selected = jnp.abs(weight) < state.threshold
            return jnp.where(selected, update + A * WEIGHT_DECAY * weight, update)

        return jax.tree.map(decayed, updates, params), state

    return optax.GradientTransformation(init, update)


def entries(config: Config) -> tuple[list[Entry], dict[str, swd_jax.Target]]:
    """Return all entries to time, and the targets of those that have one."""
    dtype = DTYPES[config.dtype]
    keys = jax.random.split(jax.random.key(0), 2)
    gradients = random_leaves(keys[1], config.size, dtype)
    adam = optax.adam(LEARNING_RATE)
    sgd = optax.sgd(LEARNING_RATE, momentum=MOMENTUM)
    of = functools.partial(swd_jax.Target, config.sparsity)
    decay = functools.partial(swd_jax.swd, weight_decay=WEIGHT_DECAY, a=A)
    after = functools.partial(
        swd_jax.decoupled_swd,
        of(),
        weight_decay=WEIGHT_DECAY,
        a=A,
        learning_rate=LEARNING_RATE,
    )
    every_tenth = decay(of(), update_every=10)
    normalized = of(criterion="normalized_magnitude")
    measured: list[Entry] = []
    targets: dict[str, swd_jax.Target] = {}

    def add(
        name: str,
        *links: optax.GradientTransformation,
        base: str = ADAM,
        target: swd_jax.Target | None = None,
    ) -> None:
        tx = optax.chain(*links)

        def step(weights: Any, state: Any, gradients: Any) -> tuple[Any, Any]:
            updates, state = tx.update(gradients, state, weights)
            return optax.apply_updates(weights, updates), state

        def start() -> tuple[Any, Any]:
            weights = random_leaves(keys[0], config.size, dtype)
            return weights, tx.init(weights)

        measured.append(Entry(name, step, (gradients,), start, (base,), STEPS))
        if target is not None:
            targets[name] = target

    add(ADAM, adam)
    add("swd + adam", decay(of()), adam, target=of())
    add("fixed threshold + adam", below_fixed_threshold(of()), adam)
    add("swd + adam, tolerance=1e-4", decay(of(), tolerance=TOLERANCE), adam)
    add("swd + adam, update_every=10", every_tenth, adam, target=of())
    local = of(scope="local")
    add("swd + adam, local", decay(local), adam, target=local)
    name = "swd + adam, normalized_magnitude"
    add(name, decay(normalized), adam, target=normalized)
    add("adam + decoupled_swd", adam, after(tolerance=0), target=of())
    add("adam + decoupled_swd, tolerance=1e-4", adam, after(tolerance=TOLERANCE))
    # The whole target from the second step on, as after the rise.
    sparsify = functools.partial(swd_jax.sparsify, of(), 10, end=1)
    add("adam + sparsify", adam, sparsify())
    add("adam + sparsify, tolerance=1e-4", adam, sparsify(tolerance=TOLERANCE))
    add("adam + sparsify, bfloat16 memory", adam, sparsify(memory=jnp.bfloat16))
    add("adam + magnitude_pruning", adam, swd_jax.methods.magnitude_pruning(of()))
    add(SGD, sgd, base=SGD)
    add("swd + sgd", decay(of()), sgd, base=SGD, target=of())
    return measured, targets


def add_passes(measured: list[Entry], targets: dict[str, swd_jax.Target]) -> None:
    """Add the number of passes that the search of the step after the last makes."""

    def swd_state(states: Any) -> swd_jax.SwdState:
        return next(state for state in states if isinstance(state, swd_jax.SwdState))

    search = jax.jit(from_state, static_argnums=1)
    for entry in measured:
        if entry.failure or entry.name not in targets:
            continue
        weights, states = entry.state
        found = search(weights, targets[entry.name], swd_state(states))
        entry.extra["readings"] = int(found.num_passes)


def main(config: Config) -> None:
    console = new_console()
    measured, targets = entries(config)
    measured = chosen(measured, config)
    measure(measured, config, console)
    add_passes(measured, targets)
    [gradients] = measured[0].given  # in the shapes of the weights
    report(
        "optimizer_step",
        config,
        measured,
        weights=gradients,
        console=console,
        notes=NOTES,
    )


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
