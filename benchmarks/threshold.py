"""The selection alone: the part of an optimizer step that finds the threshold.

It is no part of the public interface, so this asks the library's private modules.
"""

from typing import Any

import jax
import jax.numpy as jnp

import swd_jax
from swd_jax._arrays import sort_keys
from swd_jax._selection import warm_start
from swd_jax._targets import resolve


def find(
    params: Any,
    target: swd_jax.Target,
    last: tuple[jax.Array, jax.Array] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The thresholds of all groups, and how often the weights were read for them.

    Args:
      params: the weights.
      target: what is selected.
      last: the last threshold and how far it had moved, as in `SwdState`; None for a
        cold start.
    """
    _, [of_target] = resolve.rank(params, [target])
    ranking = of_target.ranking
    known = last and warm_start.Last(*(jnp.atleast_1d(value) for value in last))
    found = ranking.thresholds(of_target.counts(0), last=known)
    thresholds = sort_keys.from_key(jnp.stack(found.keys), ranking.dtype)
    return thresholds, found.readings


def from_state(
    params: Any, target: swd_jax.Target, state: swd_jax.SwdState
) -> tuple[jax.Array, jax.Array]:
    """The same as the optimizer's next step, from the state of `swd`."""
    return find(params, target, (state.selection.threshold, state.selection.threshold_change))
