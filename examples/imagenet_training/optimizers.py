"""The optax chain of a run: ordinary decay, selective decay, the base optimizer."""

from typing import Any

import jax
import optax

import swd_jax
from imagenet_training.config import Config


def learning_rate(config: Config, steps: int, steps_per_epoch: int) -> optax.Schedule:
    """Warm-up along a line, then a cosine to 0, or a tenth at each third."""
    peak = config.peak_learning_rate
    warmup = min(round(config.warmup_epochs * steps_per_epoch), steps - 1)
    if config.schedule == "thirds":
        thirds = {round(steps / 3) - warmup: 0.1, round(2 * steps / 3) - warmup: 0.1}
        falling = optax.piecewise_constant_schedule(peak, thirds)
    else:
        falling = optax.cosine_decay_schedule(peak, decay_steps=steps - warmup)
    if warmup == 0:
        return falling
    # From one step's share and not from 0, where the first step would be for nothing.
    rising = optax.linear_schedule(peak / warmup, peak, warmup - 1)
    return optax.join_schedules([rising, falling], [warmup])


def pruning_target(config: Config, steps: int) -> swd_jax.Target:
    """Return what is pruned: one value for training, pruning and reporting."""
    sparsity = config.sparsity
    if config.rise and sparsity:
        end = max(1, round(config.rise * steps))
        rising = swd_jax.cubic_sparsity(sparsity, begin=0, end=end)
        return swd_jax.Target(rising, criterion=config.criterion)
    return swd_jax.Target(sparsity, criterion=config.criterion)


def make_optimizer(
    config: Config, steps: int, steps_per_epoch: int
) -> optax.GradientTransformationExtraArgs:
    """The whole chain. Without sparsity it is that of ordinary training."""
    rate = learning_rate(config, steps, steps_per_epoch)
    links = []
    if config.sparsity:
        a = swd_jax.exponential_growth(config.a_min, config.a_max, total_steps=steps)
        if config.optimizer == "sgd":
            # LARS and LAMB need no bound: they give the step of a layer its length.
            a = swd_jax.bound_multiplier(
                a,
                learning_rate=rate,
                weight_decay=config.selective_decay,
                momentum=config.momentum,
                nesterov=config.nesterov,
            )
        target = pruning_target(config, steps)
        links.append(
            swd_jax.swd(
                target,
                weight_decay=config.selective_decay,
                a=a,
                update_every=config.update_every,
            )
        )
    decayed = True if config.decay_all else _weights
    if config.optimizer == "sgd":
        links.append(optax.add_decayed_weights(config.weight_decay, mask=decayed))
        links.append(
            optax.sgd(rate, momentum=config.momentum, nesterov=config.nesterov)
        )
    elif config.optimizer == "lars":
        links.append(
            optax.lars(
                rate,
                weight_decay=config.weight_decay,
                weight_decay_mask=decayed,
                trust_ratio_mask=_weights,
                momentum=config.momentum,
                nesterov=config.nesterov,
            )
        )
    else:
        links.append(optax.lamb(rate, weight_decay=config.weight_decay, mask=decayed))
    return optax.chain(*links)


def _weights(params: Any) -> Any:
    """Which leaves are kernels, and not biases or parameters of batch norm."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
