"""The methods that take whole channels, and a dense network that never had them.

Which channels go is a matter of their batch-norm scales in all of them but `sparsify`,
and the target counts the parameters of the whole network that disappear.
"""

from typing import Any

import optax

import swd_jax
from experiments.method import Method, Training


def coupled(training: Training, sparsity: Any) -> swd_jax.Target:
    structure = swd_jax.CoupledChannels(
        training.groups(), norm="bn_scale", min_channels=training.run.min_channels
    )
    return swd_jax.Target(sparsity, structure=structure)


def sparsify_channels(training: Training) -> Method:
    """The target and the number of steps; the norm and the floor are the defaults.

    On held-out images of the digits, at 10 % of the parameters, the default "rms" of
    all weights is better by far than the scales of batch norm. These are so close to
    each other that a continuous threshold shrinks most of them.
    """
    structure = swd_jax.CoupledChannels(training.groups())
    return training.sparsify(swd_jax.Target(training.sparsity, structure=structure))


def swd_channels(training: Training) -> Method:
    """The paper's form: scales, biases and filters decay, the target is constant."""
    return training.swd(coupled(training, training.sparsity))


def swd_channels_rising(training: Training) -> Method:
    return training.swd(coupled(training, training.rising_sparsity()))


def gradual_channels(training: Training) -> Method:
    target = coupled(training, training.rising_sparsity())
    update_every = training.run.update_every
    pruning = swd_jax.methods.magnitude_pruning(target, update_every=update_every)
    return Method(optax.chain(training.optimizer(), pruning), target)


def slimming_tuned(training: Training) -> Method:
    """Network slimming: a penalty, pruning at one step, fine-tuning without penalty."""
    at, rate = training.fine_tuning()
    strength = optax.piecewise_constant_schedule(training.run.mu, {at: 0.0})
    penalty = swd_jax.methods.network_slimming(strength)
    sparsity = swd_jax.schedules.staircase_sparsity(training.sparsity, [at])
    target = coupled(training, sparsity)
    pruning = swd_jax.methods.magnitude_pruning(target)
    return Method(optax.chain(penalty, training.optimizer(rate), pruning), target)


def thin(training: Training) -> Method:
    """Nothing is pruned: the network is as small from the start."""
    return Method(training.optimizer(), training.target(0.0))


METHODS = {
    "sparsify-channels": sparsify_channels,
    "swd-channels": swd_channels,
    "swd-channels-rising": swd_channels_rising,
    "gradual-channels": gradual_channels,
    "slimming-tuned": slimming_tuned,
    "thin": thin,
}
