"""Ablations of selective weight decay: one thing less, to see what it is good for."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import swd_jax
from experiments.method import Method, Training


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


def sparsify_without(
    training: Training, *, chained: bool = False, **changes: Any
) -> Method:
    """`sparsify` with other constants.

    Args:
      training: the training.
      chained: after the optimizer, whatever the optimizer reads.
      **changes: of `rise`, the part of the training in which the sparsity rises, or of
        the arguments of `methods.latent_pruning`.
    """
    constants = {"rise": 0.5, "forgetting": 0.05, "power": 2.0, "max_rescale": 4.0}
    arguments = constants | changes
    end = training.at(arguments.pop("rise"))
    target = training.target(
        swd_jax.cubic_sparsity(training.sparsity, begin=0, end=end)
    )
    optimizer = training.optimizer()
    if training.run.optimizer_reads_weights and not chained:
        arguments |= {"optimizer": optimizer, "pruned_gradient_scale": 0.5}
        return Method(swd_jax.methods.latent_pruning(target, **arguments), target)
    pruning = swd_jax.methods.latent_pruning(target, **arguments)
    return Method(optax.chain(optimizer, pruning), target)


PARTS_OF_SPARSIFY = {
    "sparsify-no-forgetting": {"forgetting": 0.0},
    "sparsify-twice-forgetting": {"forgetting": 0.1},
    "sparsify-hard-zeros": {"power": math.inf},
    "sparsify-power-3": {"power": 3.0},
    "sparsify-norm-not-restored": {"max_rescale": 1.0},
    "sparsify-longer-rise": {"rise": 0.7},
}
"""Changes of one constant each, by the names of their rows."""


class Frozen(NamedTuple):
    """A selection that is made once."""

    count: jax.Array
    kept: Any


def frozen_selection(training: Training) -> Method:
    """Freeze the selection after a tenth of the training."""
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
