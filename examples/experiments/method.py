"""`Method`: a chain and a target; `Training`: the training that they are part of."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

import swd_jax
from experiments import choices
from experiments.run import Run

MOMENTUM = 0.9

# None of them has a weight decay of its own: the chain has one before them.
OPTIMIZERS: dict[str, Callable[[optax.Schedule], optax.GradientTransformation]] = {
    "adam": optax.adam,
    "sgd": functools.partial(optax.sgd, momentum=MOMENTUM),
    "lion": functools.partial(optax.lion, weight_decay=0.0),
    "muon": optax.contrib.muon,
    "lamb": optax.lamb,
}


class Method(NamedTuple):
    """One way to a sparse network."""

    transform: optax.GradientTransformation
    target: swd_jax.Target
    """The target of pruning at the end, or at any step."""
    trained: Callable[[Any, jax.Array], Any] = lambda params, step: params
    """(params, step) -> the parameters with which the network computes."""


class Training(NamedTuple):
    """Facts about the training from which a method is made."""

    run: Run
    sparsity: Any  # a number, or a tracer where one program trains for all of them
    steps: int
    steps_per_epoch: int
    groups: Callable[[], swd_jax.channels.ChannelGroups]
    """Finds the coupled channels of the network."""

    def at(self, part: float) -> int:
        """The step after a part of the training."""
        return max(1, round(part * self.steps))

    def target(self, sparsity: Any, criterion: str | None = None) -> swd_jax.Target:
        run = self.run
        return swd_jax.Target(
            sparsity,
            prunable=functools.partial(choices.prunable, spared=run.spared),
            structure=choices.structure(run.structure),
            scope=run.scope,
            criterion=choices.criterion(criterion or run.criterion),
        )

    def rising(self, criterion: str | None = None) -> swd_jax.Target:
        return self.target(self.rising_sparsity(), criterion)

    def rising_sparsity(self) -> optax.Schedule:
        end = self.at(self.run.rise)
        return swd_jax.cubic_sparsity(self.sparsity, begin=0, end=end)

    def fine_tuning(self) -> tuple[int, optax.Schedule]:
        """The step at which a dense network is pruned at once, and the learning rate.

        After that it is constant, at that of the start: smaller ones mend less, on
        held-out data too.
        """
        at = self.at(self.run.dense_part)
        constant = optax.constant_schedule(self.run.learning_rate)
        return at, optax.join_schedules([self.learning_rate(at), constant], [at])

    def learning_rate(self, steps: int | None = None) -> optax.Schedule:
        steps = steps or self.steps
        start = self.run.learning_rate
        if self.run.decay == "cosine":
            return optax.cosine_decay_schedule(start, steps)
        if self.run.decay == "steps":
            thirds = {steps // 3: 0.1, 2 * steps // 3: 0.1}
            return optax.piecewise_constant_schedule(start, thirds)
        if self.run.decay == "one-cycle":
            return optax.cosine_onecycle_schedule(steps, start, pct_start=0.2)
        return optax.constant_schedule(start)

    def optimizer(
        self,
        learning_rate: optax.Schedule | None = None,
        *,
        weight_decay: float | None = None,
    ) -> optax.GradientTransformation:
        """The optimizer of the run, with the ordinary decay in the gradient."""
        rate = learning_rate or self.learning_rate()
        decay = optax.add_decayed_weights(
            self.run.weight_decay if weight_decay is None else weight_decay,
            mask=lambda params: jax.tree.map(lambda w: w.ndim > 1, params),
        )
        return optax.chain(decay, OPTIMIZERS[self.run.optimizer](rate))

    def multiplier(self) -> optax.Schedule:
        """a(t), with SGD held below where a weight that stays selected diverges.

        The results in `docs/results` were measured with this bound.
        `swd_jax.bound_multiplier` is lower: it is safe whatever is selected when.
        """
        run = self.run
        a = swd_jax.exponential_growth(run.a_min, run.a_max, self.steps)
        if run.optimizer != "sgd":
            return a
        rate = self.learning_rate()

        def bounded(step: jax.Array) -> jax.Array:
            limit = 0.95 * 2 * (1 + MOMENTUM) / (rate(step) * run.mu)
            return jnp.minimum(a(step), limit)

        return bounded

    def sparsify(
        self,
        target: swd_jax.Target,
        *,
        learning_rate: optax.Schedule | None = None,
        begin: int = 0,
    ) -> Method:
        """`swd_jax.sparsify`, around the optimizer or after it, as its docs advise."""
        optimizer = self.optimizer(learning_rate)
        if self.run.optimizer_reads_weights:
            pruning = swd_jax.sparsify(
                target, self.steps, begin=begin, optimizer=optimizer
            )
            return Method(pruning, target)
        pruning = swd_jax.sparsify(target, self.steps, begin=begin)
        return Method(optax.chain(optimizer, pruning), target)

    def swd(self, target: swd_jax.Target, **options: Any) -> Method:
        decay = swd_jax.swd(
            target,
            **{
                "weight_decay": self.run.mu,
                "a": self.multiplier(),
                "update_every": self.run.update_every,
                "tolerance": self.run.tolerance,
            }
            | options,
        )
        return Method(optax.chain(decay, self.optimizer()), target)
