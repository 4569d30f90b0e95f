"""Measure what structures, criteria and scopes cost, next to plain magnitude.

    python benchmarks/structures.py
    python benchmarks/structures.py --size 25.6M --dtype bf16

Prints a table and writes JSON. A step is that of swd followed by plain SGD, so that
there is little else in it. Every entry has weights and a state of its own, which are
carried from step to step.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import optax

import swd_jax

try:
    import tyro
    from report import new_console, report
    from timing import DTYPES, Config, Entry, chosen, measure
    from weights import random_leaves
except ImportError as error:
    sys.exit(f"{error}. Install the extra that has it: pip install 'swd-jax[examples]'")

# Small, so that the weights keep the distribution of a network's over all steps.
LEARNING_RATE = 1e-5
WEIGHT_DECAY, A = 5e-4, 1.0
BASE = "single weights, magnitude"
NOTES = {
    "ratio": f"to {BASE}",
    "step": "swd, then SGD without momentum",
    "sparsity": "that of the options, but a half for n of m",
    "state_bytes": "of the transformation's state",
    "gradients": "random, and the same at every step; for fisher, their squares too",
}


def targets(sparsity: float) -> dict[str, swd_jax.Target]:
    """Return the targets to time: structures by magnitude, then other criteria."""
    of = functools.partial(swd_jax.Target, sparsity)
    half = functools.partial(swd_jax.Target, 0.5)
    return {
        BASE: of(),
        "NM(2, 4)": half(structure=swd_jax.NM(2, 4, axis=-2)),
        "NM(2, 4, axis=-1)": half(structure=swd_jax.NM(2, 4, axis=-1)),
        "NM(8, 16)": half(structure=swd_jax.NM(8, 16, axis=-2)),
        "NM(16, 32)": half(structure=swd_jax.NM(16, 32, axis=-2)),
        "NM(32, 64)": half(structure=swd_jax.NM(32, 64, axis=-2)),
        "NM(128, 256)": half(structure=swd_jax.NM(128, 256, axis=-2)),
        "Block((1, 4))": of(structure=swd_jax.Block((1, 4))),
        "Block((4, 4))": of(structure=swd_jax.Block((4, 4))),
        "Block((16, 16))": of(structure=swd_jax.Block((16, 16))),
        "Channel(-1)": of(structure=swd_jax.Channel(-1)),
        "Channel(-2)": of(structure=swd_jax.Channel(-2)),
        "local": of(scope="local"),
        "erk": of(scope="erk"),
        "min_kept=0.01": of(min_kept=0.01),
        "normalized_magnitude": of(criterion="normalized_magnitude"),
        "rms_normalized_magnitude": of(criterion="rms_normalized_magnitude"),
        "saliency": of(criterion="saliency"),
        "fisher": of(criterion="fisher"),
        "random_scores": of(criterion=swd_jax.criteria.random_scores(0)),
        "a function of the weights": of(criterion=_square),
        "mean_saliency": of(criterion=swd_jax.criteria.mean_saliency()),
        "movement": of(criterion="movement"),
        "lamp": of(criterion="lamp"),
    }


def _square(weights: jax.Array) -> jax.Array:
    return weights * weights


def entry(
    name: str, target: swd_jax.Target, make: Callable[[], Any], gradients: Any
) -> Entry:
    """Return a step under a target; its weights are made when it is timed."""
    swd = swd_jax.swd(target, weight_decay=WEIGHT_DECAY, a=A)
    tx = optax.chain(swd, optax.sgd(LEARNING_RATE))

    def step(weights: Any, state: Any, gradients: Any, *nu: Any) -> tuple[Any, Any]:
        extra = {"nu": nu[0]} if nu else {}
        updates, state = tx.update(gradients, state, weights, **extra)
        return optax.apply_updates(weights, updates), state

    def start() -> tuple[Any, Any]:
        weights = make()
        return weights, tx.init(weights)

    given = (gradients,)
    if "nu" in target.criterion.extra_args:
        given = (gradients, jax.tree.map(lambda g: g * g, gradients))
    _, states = jax.eval_shape(start)
    state_bytes = sum(s.size * s.dtype.itemsize for s in jax.tree.leaves(states))
    return Entry(name, step, given, start, (BASE,), extra={"state_bytes": state_bytes})


def main(config: Config) -> None:
    console = new_console()
    keys = jax.random.split(jax.random.key(0), 2)
    make = functools.partial(
        random_leaves, size=config.size, dtype=DTYPES[config.dtype]
    )
    gradients = make(keys[1])
    measured = [
        entry(name, target, functools.partial(make, keys[0]), gradients)
        for name, target in targets(config.sparsity).items()
    ]
    measured = chosen(measured, config)
    measure(measured, config, console)
    report(
        "structures",
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
