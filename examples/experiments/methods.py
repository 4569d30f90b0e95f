"""The methods: each an optax chain, with what the network is before and after pruning.

Every method gets the same epochs, batches and optimizer. `METHODS` is the list.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import swd_jax
from experiments.run import Run

MOMENTUM = 0.9
# Of the learning rate at the start: what is left of it for fine-tuning.
FINE_TUNING = 0.1
# At what part of the training iterative pruning prunes.
ROUNDS = (0.4, 0.5, 0.6, 0.7, 0.8)


class Method(NamedTuple):
    """One way to a sparse network."""

    transform: optax.GradientTransformation
    target: swd_jax.Target
    """What is pruned in the end, or would be at any step."""
    trained: Callable[[Any, jax.Array], Any] = lambda params, step: params
    """(params, step) -> the parameters with which the network computes."""


class Training(NamedTuple):
    """What a method may need to know of the training that it is part of."""

    run: Run
    sparsity: Any  # a number, or a tracer where one program trains for all of them
    steps: int
    steps_per_epoch: int

    def at(self, part: float) -> int:
        """The step after a part of the training."""
        return max(1, round(part * self.steps))

    def target(self, sparsity: Any, criterion: str = "magnitude") -> swd_jax.Target:
        return swd_jax.Target(sparsity, criterion=criterion)

    def rising(self, criterion: str = "magnitude") -> swd_jax.Target:
        end = self.at(self.run.rise)
        sparsity = swd_jax.cubic_sparsity(self.sparsity, begin=0, end=end)
        return self.target(sparsity, criterion)

    def learning_rate(self, steps: int | None = None) -> optax.Schedule:
        steps = steps or self.steps
        start = self.run.learning_rate
        if self.run.decay == "cosine":
            return optax.cosine_decay_schedule(start, steps)
        if self.run.decay == "steps":
            thirds = {steps // 3: 0.1, 2 * steps // 3: 0.1}
            return optax.piecewise_constant_schedule(start, thirds)
        return optax.constant_schedule(start)

    def optimizer(
        self,
        learning_rate: optax.Schedule | None = None,
        *,
        weight_decay: float | None = None,
    ) -> optax.GradientTransformation:
        """Adam or SGD, with the ordinary decay in the gradient."""
        rate = learning_rate or self.learning_rate()
        decay = optax.add_decayed_weights(
            self.run.weight_decay if weight_decay is None else weight_decay,
            mask=lambda params: jax.tree.map(lambda w: w.ndim > 1, params),
        )
        if self.run.optimizer == "adam":
            return optax.chain(decay, optax.adam(rate))
        return optax.chain(decay, optax.sgd(rate, momentum=MOMENTUM))

    def multiplier(self) -> optax.Schedule:
        """a(t), held below where SGD diverges."""
        run = self.run
        a = swd_jax.exponential_growth(run.a_min, run.a_max, self.steps)
        if run.optimizer == "adam":
            return a
        return swd_jax.bound_multiplier(
            a,
            learning_rate=self.learning_rate(),
            weight_decay=run.mu,
            momentum=MOMENTUM,
        )

    def swd(self, target: swd_jax.Target, **options: Any) -> Method:
        decay = swd_jax.swd(
            target,
            **{
                "weight_decay": self.run.mu,
                "a": self.multiplier(),
                "update_every": self.run.update_every,
            }
            | options,
        )
        return Method(optax.chain(decay, self.optimizer()), target)


def dense(training: Training) -> Method:
    return Method(training.optimizer(), training.target(training.sparsity))


def stronger_decay(training: Training) -> Method:
    optimizer = training.optimizer(weight_decay=training.run.strong_decay)
    return Method(optimizer, training.target(training.sparsity))


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


def gradual(training: Training, criterion: str = "magnitude") -> Method:
    target = training.rising(criterion)
    pruning = swd_jax.magnitude_pruning(target, update_every=training.run.update_every)
    return Method(optax.chain(training.optimizer(), pruning), target)


def gradual_normalized(training: Training) -> Method:
    return gradual(training, "normalized_magnitude")


def fine_tuned(training: Training, criterion: str = "magnitude") -> Method:
    """Dense training, pruning at one step, the rest at a small learning rate."""
    at = training.at(training.run.dense_part)
    rate = optax.join_schedules(
        [
            training.learning_rate(at),
            optax.constant_schedule(FINE_TUNING * training.run.learning_rate),
        ],
        [at],
    )
    return _pruned_at(training, [at], rate, criterion)


def fine_tuned_normalized(training: Training) -> Method:
    return fine_tuned(training, "normalized_magnitude")


def rewound(training: Training) -> Method:
    """As fine-tuning, but the learning rate goes through its last part again."""
    at = training.at(training.run.dense_part)
    back = max(0, 2 * at - training.steps)
    rate = swd_jax.rewind(training.learning_rate(at), [at], to=back)
    return _pruned_at(training, [at], rate)


def iterative(training: Training) -> Method:
    return _pruned_at(training, [training.at(part) for part in ROUNDS])


def _pruned_at(
    training: Training,
    steps: list[int],
    rate: optax.Schedule | None = None,
    criterion: str = "magnitude",
) -> Method:
    target = training.target(
        swd_jax.staircase_sparsity(training.sparsity, steps), criterion
    )
    pruning = swd_jax.magnitude_pruning(target)
    return Method(optax.chain(training.optimizer(rate), pruning), target)


def soft(training: Training) -> Method:
    target = training.target(training.sparsity)
    # An epoch; on graphs, whose epoch is a step, a hundredth of the training.
    every = max(training.steps_per_epoch, training.steps // 100, 1)
    pruning = swd_jax.soft_pruning(target, every=every)
    return Method(optax.chain(training.optimizer(), pruning), target)


def straight_through(training: Training, *, soft: bool = False) -> Method:
    target = training.rising()

    def trained(params: Any, step: jax.Array) -> Any:
        return swd_jax.straight_through(params, target, step=step, soft=soft)

    return Method(training.optimizer(), target, trained)


def straight_through_soft(training: Training) -> Method:
    return straight_through(training, soft=True)


def rigl(training: Training) -> Method:
    wrapped = swd_jax.rigl(
        training.optimizer(),
        # Not the paper's uniform distribution, which starves small leaves.
        training.sparsity,
        until=training.at(0.75),
        update_every=max(training.steps // 100, 1),
        seed=training.run.seed,
    )
    return Method(wrapped, training.target(training.sparsity))


def sparse_evolution(training: Training) -> Method:
    wrapped = swd_jax.sparse_evolution(
        training.optimizer(),
        training.sparsity,
        update_every=max(training.steps // 100, 1),
        seed=training.run.seed,
    )
    return Method(wrapped, training.target(training.sparsity))


def slimming(training: Training) -> Method:
    """Channels by the scales of batch norm; `mu` is the strength of the penalty."""
    target = swd_jax.Target(training.sparsity, prunable=swd_jax.is_scale)
    penalty = swd_jax.network_slimming(training.run.mu, prunable=swd_jax.is_scale)
    return Method(optax.chain(penalty, training.optimizer()), target)


def swd_scales(training: Training) -> Method:
    """The first, simple form of structured SWD: channels by their batch-norm scale."""
    return training.swd(swd_jax.Target(training.sparsity, prunable=swd_jax.is_scale))


# Ablations: one thing less than `swd_rising`.


def fixed_multiplier(training: Training) -> Method:
    """The multiplier does not grow: `a_max` from the first step on."""
    return training.swd(training.rising(), a=training.run.a_max)


def not_selective(training: Training) -> Method:
    """The growing decay of all weights, and pruning at the end."""
    run = training.run

    def update(
        updates: Any, state: optax.ScaleByScheduleState, params: Any = None
    ) -> tuple[Any, optax.ScaleByScheduleState]:
        rate = run.mu * training.multiplier()(state.count)
        decayed = jax.tree.map(
            lambda u, w: u + rate * w if w.ndim > 1 else u, updates, params
        )
        return decayed, optax.ScaleByScheduleState(state.count + 1)

    def init(params: Any) -> optax.ScaleByScheduleState:
        del params
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    decay = optax.GradientTransformation(init, update)
    optimizer = optax.chain(decay, training.optimizer())
    return Method(optimizer, training.target(training.sparsity))


class Frozen(NamedTuple):
    """A selection that is made once."""

    count: jax.Array
    kept: Any


def frozen_selection(training: Training) -> Method:
    """What is selected after a tenth of the training stays selected."""
    target = training.target(training.sparsity)
    begin = training.at(0.1)

    def init(params: Any) -> Frozen:
        kept = jax.tree.map(lambda w: jnp.ones(w.shape, bool), params)
        return Frozen(jnp.zeros((), jnp.int32), kept)

    def update(updates: Any, state: Frozen, params: Any = None) -> tuple[Any, Frozen]:
        kept = jax.lax.cond(
            state.count == begin,
            lambda: swd_jax.prune_mask(params, target),
            lambda: state.kept,
        )
        rate = training.run.mu * training.multiplier()(state.count)
        decayed = jax.tree.map(
            lambda u, w, k: jnp.where(k, u, u + rate * w), updates, params, kept
        )
        return decayed, Frozen(state.count + 1, kept)

    decay = optax.GradientTransformation(init, update)
    return Method(optax.chain(decay, training.optimizer()), target)


METHODS: dict[str, Callable[[Training], Method]] = {
    "dense": dense,
    "one-shot": dense,
    "stronger-decay": stronger_decay,
    "swd": swd,
    "swd-normalized": swd_normalized,
    "swd-rising": swd_rising,
    "swd-rising-normalized": swd_rising_normalized,
    "swd-proximal": swd_proximal,
    "fine-tuned": fine_tuned,
    "fine-tuned-normalized": fine_tuned_normalized,
    "rewound": rewound,
    "iterative": iterative,
    "gradual": gradual,
    "gradual-normalized": gradual_normalized,
    "soft": soft,
    "straight-through": straight_through,
    "straight-through-soft": straight_through_soft,
    "rigl": rigl,
    "set": sparse_evolution,
    "slimming": slimming,
    "swd-scales": swd_scales,
    "fixed-multiplier": fixed_multiplier,
    "not-selective": not_selective,
    "frozen-selection": frozen_selection,
}

# Methods whose program depends on the sparsity: compiled for each.
SPARSE_FROM_THE_START = {"rigl", "set"}


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
