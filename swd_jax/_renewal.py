"""Thresholds kept in the state of a transformation and renewed now and then."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from swd_jax import _float_order, _guesses, _paths, _ranking, _sparsity, _wide
from swd_jax._prunable import PrunableLeaf, find_prunable
from swd_jax._shards import AxisName
from swd_jax._target import Target


class Remembered(NamedTuple):
    """What a state keeps from one update to the next: scalars, whatever the model."""

    step: jax.Array
    threshold: jax.Array
    threshold_change: jax.Array
    fraction: jax.Array


class Selection(NamedTuple):
    """The weights that a target selects at a step."""

    leaves: list[PrunableLeaf]
    masks: list[jax.Array]
    """Where each leaf's scores are strictly below the threshold."""
    threshold: jax.Array
    threshold_change: jax.Array
    fraction: jax.Array
    """Selected weights over prunable weights, when the threshold was last renewed."""


def start(target: Target, params: optax.Params) -> Remembered:
    """What there is to remember before the first step: zeros.

    Raises:
      ValueError: if the target does not fit the parameters.
    """
    leaves = find_prunable(target.prunable, _paths.flatten(params), params)
    dtype = _float_order.score_dtype(*(leaf.weights.dtype for leaf in leaves))
    shape = (len(leaves),) if target.scope == "local" else ()
    return Remembered(
        step=jnp.zeros((), jnp.int32),
        threshold=jnp.zeros(shape, dtype),
        threshold_change=jnp.zeros(shape, dtype),
        fraction=jnp.zeros((), jnp.float32),
    )


def is_due(count: jax.Array, every: int) -> bool | jax.Array:
    """Whether the step of this number is one of every so many, the first included."""
    return True if isinstance(every, int) and every == 1 else count % every == 0


def select(
    target: Target,
    params: Any,
    last: Remembered,
    due: bool | jax.Array,
    axis_name: AxisName,
) -> Selection:
    """Select by the threshold, renewed if that is due.

    Args:
      target: what is pruned.
      params: the parameters.
      last: what was remembered.
      due: whether to renew the threshold for the target at step `last.step`.
      axis_name: mesh axes over which the parameters are divided by hand, if they are.

    Returns:
      The selection, made from the current weights in either case.
    """
    _, leaves, ranking = _ranking.rank(params, target, axis_name)
    threshold, change, fraction = last.threshold, last.threshold_change, last.fraction
    if not leaves:
        return Selection([], [], threshold, change, fraction)
    sparsity = _sparsity.sparsity_at(target.sparsity, last.step)
    found = ranking.thresholds(
        ranking.counts(sparsity),
        last=_guesses.Last(
            jnp.atleast_1d(threshold).astype(ranking.dtype),
            jnp.atleast_1d(change).astype(ranking.dtype),
        ),
        renew=None if due is True else jnp.asarray(due),
    )
    scores = _float_order.from_key(jnp.stack(found.keys), ranking.dtype)
    renewed = scores.reshape(threshold.shape).astype(threshold.dtype)
    return Selection(
        leaves,
        ranking.below(found.keys),
        threshold=renewed,
        threshold_change=jnp.where(due, _change(last, renewed), change),
        fraction=jnp.where(
            due, _fraction(found.below, sum(ranking.sizes())), fraction
        ).astype(jnp.float32),
    )


def _change(last: Remembered, threshold: jax.Array) -> jax.Array:
    """How far the threshold has moved since it was remembered."""
    known = (last.step > 0) & jnp.isfinite(last.threshold) & jnp.isfinite(threshold)
    return jnp.where(known, threshold - last.threshold, 0)


def _fraction(below: jax.Array, total: int) -> jax.Array:
    """The selected share of all prunable weights."""
    selected = _wide.to_float32(_wide.sum_last_but_one(below))
    return selected / np.float32(max(total, 1))


def next_count(count: jax.Array) -> jax.Array:
    """One more, without wrapping round."""
    return jnp.asarray(optax.safe_increment(count))
