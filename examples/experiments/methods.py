"""The methods: each an optax chain, with what the network is before and after pruning.

Every method gets the same epochs, batches and optimizer. `METHODS` is the list.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import swd_jax
from experiments import channels
from experiments.ablations import (
    PARTS_OF_SPARSIFY,
    fixed_multiplier,
    frozen_selection,
    not_selective,
    sparsify_without,
)
from experiments.layer_rules import gradual_layers
from experiments.method import Method, Training
from experiments.run import Run

# At what part of the training iterative pruning prunes.
ROUNDS = (0.2, 0.4, 0.6, 0.8)


def dense(training: Training) -> Method:
    return Method(training.optimizer(), training.target(training.sparsity))


def stronger_decay(training: Training) -> Method:
    optimizer = training.optimizer(weight_decay=training.run.strong_decay)
    return Method(optimizer, training.target(training.sparsity))


def sparsify(training: Training, criterion: str | None = None) -> Method:
    """The target and the number of steps, and nothing else."""
    return training.sparsify(training.target(training.sparsity, criterion))


def sparsify_chained(training: Training) -> Method:
    """After the optimizer, whatever the optimizer reads."""
    target = training.target(training.sparsity)
    pruning = swd_jax.sparsify(target, training.steps)
    return Method(optax.chain(training.optimizer(), pruning), target)


def sparsify_normalized(training: Training) -> Method:
    return sparsify(training, "normalized_magnitude")


def swd(training: Training) -> Method:
    return training.swd(training.target(training.sparsity))


def swd_normalized(training: Training) -> Method:
    return training.swd(training.target(training.sparsity, "normalized_magnitude"))


def swd_rising(training: Training) -> Method:
    return training.swd(training.rising())


def swd_rising_normalized(training: Training) -> Method:
    return training.swd(training.rising("normalized_magnitude"))


def swd_proximal(training: Training) -> Method:
    """The form after the optimizer, which Adam does not normalise."""
    target = training.rising()
    run = training.run
    decay = swd_jax.proximal_swd(
        target,
        weight_decay=run.mu,
        a=swd_jax.exponential_growth(run.a_min, run.a_max, training.steps),
        learning_rate=training.learning_rate(),
        update_every=run.update_every,
    )
    return Method(optax.chain(training.optimizer(), decay), target)


def gradual(training: Training, criterion: str | None = None) -> Method:
    target = training.rising(criterion)
    pruning = swd_jax.methods.magnitude_pruning(
        target, update_every=training.run.update_every
    )
    return Method(optax.chain(training.optimizer(), pruning), target)


def gradual_normalized(training: Training) -> Method:
    return gradual(training, "normalized_magnitude")


def fine_tuned(training: Training, criterion: str | None = None) -> Method:
    """Dense training, pruning at one step, the rest at a constant learning rate."""
    at, rate = training.fine_tuning()
    return _pruned_at(training, [at], rate, criterion)


def fine_tuned_normalized(training: Training) -> Method:
    return fine_tuned(training, "normalized_magnitude")


def rewound(training: Training) -> Method:
    """Half of the training dense, then the learning rate from its start again."""
    at = training.at(0.5)
    return _pruned_at(
        training, [at], swd_jax.schedules.rewind(training.learning_rate(at), [at], 0)
    )


def iterative(training: Training) -> Method:
    """In rounds, each with the learning rate from its start again."""
    steps = [training.at(part) for part in ROUNDS]
    rate = swd_jax.schedules.rewind(training.learning_rate(steps[0]), steps, to=0)
    return _pruned_at(training, steps, rate)


def sparsify_fine_tuned(training: Training) -> Method:
    """A dense network that becomes sparse in the part that fine-tuning has."""
    at, rate = training.fine_tuning()
    target = training.target(training.sparsity)
    return training.sparsify(target, learning_rate=rate, begin=at)


def gradual_fine_tuned(training: Training) -> Method:
    """The same by gradual pruning, which rises along the same cubic."""
    at, rate = training.fine_tuning()
    end = at + max(1, round(training.run.rise * (training.steps - at)))
    target = training.target(swd_jax.cubic_sparsity(training.sparsity, at, end))
    pruning = swd_jax.methods.magnitude_pruning(target)
    return Method(optax.chain(training.optimizer(rate), pruning), target)


def _pruned_at(
    training: Training,
    steps: list[int],
    rate: optax.Schedule,
    criterion: str | None = None,
) -> Method:
    target = training.target(
        swd_jax.schedules.staircase_sparsity(training.sparsity, steps), criterion
    )
    pruning = swd_jax.methods.magnitude_pruning(target)
    return Method(optax.chain(training.optimizer(rate), pruning), target)


def soft(training: Training) -> Method:
    target = training.target(training.sparsity)
    # An epoch; on graphs, whose epoch is a step, a hundredth of the training.
    update_every = max(training.steps_per_epoch, training.steps // 100, 1)
    pruning = swd_jax.methods.soft_pruning(target, update_every=update_every)
    return Method(optax.chain(training.optimizer(), pruning), target)


def _straight_through(training: Training, **options: Any) -> Method:
    """With options of `swd_jax.methods.straight_through`."""
    target = training.rising()

    def trained(params: Any, step: jax.Array) -> Any:
        return swd_jax.methods.straight_through(params, target, step=step, **options)

    return Method(training.optimizer(), target, trained)


def straight_through(training: Training) -> Method:
    return _straight_through(training, soft=False)


def straight_through_soft(training: Training) -> Method:
    return _straight_through(training, soft=True)


def feather(training: Training) -> Method:
    """Feather, with the theta of its authors, who use it with SGD.

    They let the sparsity rise in the first half of the training: here it is `rise`, as
    in the other methods.
    """
    scale = jnp.where(training.sparsity > 0.95, 0.5, 1.0)
    return _straight_through(training, power=3, pruned_gradient_scale=scale)


def rigl(training: Training, *, scope: str | None = None) -> Method:
    target = training.target(training.sparsity)
    if scope is not None:
        target = dataclasses.replace(target, scope=scope)
    wrapped = swd_jax.methods.rigl(
        training.optimizer(),
        target,
        until=training.at(0.75),
        update_every=max(training.steps // 100, 1),
        seed=training.run.seed,
    )
    return Method(wrapped, target)


def rigl_erk(training: Training) -> Method:
    """Every leaf keeps the part that its paper recommends: small ones a larger one."""
    return rigl(training, scope="erk")


def sparse_evolution(training: Training) -> Method:
    target = training.target(training.sparsity)
    wrapped = swd_jax.methods.sparse_evolution(
        training.optimizer(),
        target,
        update_every=max(training.steps // 100, 1),
        seed=training.run.seed,
    )
    return Method(wrapped, target)


def slimming(training: Training) -> Method:
    """Channels by the scales of batch norm; `mu` is the strength of the penalty."""
    target = swd_jax.Target(training.sparsity, prunable=swd_jax.methods.is_scale)
    penalty = swd_jax.methods.network_slimming(
        training.run.mu, prunable=swd_jax.methods.is_scale
    )
    return Method(optax.chain(penalty, training.optimizer()), target)


def swd_scales(training: Training) -> Method:
    """The first, simple form of structured SWD: channels by their batch-norm scale."""
    return training.swd(
        swd_jax.Target(training.sparsity, prunable=swd_jax.methods.is_scale)
    )


METHODS: dict[str, Callable[[Training], Method]] = {
    "dense": dense,
    "one-shot": dense,
    "stronger-decay": stronger_decay,
    "sparsify": sparsify,
    "sparsify-normalized": sparsify_normalized,
    "sparsify-chained": sparsify_chained,
    "sparsify-chained-no-forgetting": functools.partial(
        sparsify_without, chained=True, forgetting=0.0
    ),
    "swd": swd,
    "swd-normalized": swd_normalized,
    "swd-rising": swd_rising,
    "swd-rising-normalized": swd_rising_normalized,
    "swd-proximal": swd_proximal,
    "fine-tuned": fine_tuned,
    "fine-tuned-normalized": fine_tuned_normalized,
    "sparsify-fine-tuned": sparsify_fine_tuned,
    "gradual-fine-tuned": gradual_fine_tuned,
    "rewound": rewound,
    "iterative": iterative,
    "gradual": gradual,
    "gradual-normalized": gradual_normalized,
    "gradual-layers": gradual_layers,
    "soft": soft,
    "straight-through": straight_through,
    "straight-through-soft": straight_through_soft,
    "feather": feather,
    "rigl": rigl,
    "rigl-erk": rigl_erk,
    "set": sparse_evolution,
    "slimming": slimming,
    "swd-scales": swd_scales,
    **channels.METHODS,
    "fixed-multiplier": fixed_multiplier,
    "not-selective": not_selective,
    "frozen-selection": frozen_selection,
    **{
        name: functools.partial(sparsify_without, **changes)
        for name, changes in PARTS_OF_SPARSIFY.items()
    },
}

# Methods whose program depends on the sparsity: compiled for each.
SPARSE_FROM_THE_START = {
    *("gradual-layers", "rigl", "rigl-erk", "set", "sparsify-channels", "thin"),
}


def check_method(name: str) -> None:
    """Raise for a name that is none of a method."""
    if name not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {name!r}")


def make_method(training: Training) -> Method:
    """The method of a run."""
    check_method(training.run.method)
    return METHODS[training.run.method](training)


def static(run: Run) -> Run:
    """Runs with the same one train with the same compiled program."""
    if run.method in SPARSE_FROM_THE_START:
        return dataclasses.replace(run.program, sparsity=run.sparsity)
    return run.program
