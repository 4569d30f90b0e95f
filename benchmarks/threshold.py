"""The selection alone: the part of an optimizer step that finds the threshold.

Private modules are imported because `swd_jax.thresholds` has no warm start and does not
return the number of passes.
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
    """Return the thresholds of all pools, and the number of passes over the weights.

    Args:
      params: the weights.
      target: what is selected.
      last: the last threshold and its change, as in `SwdState.selection`; None for a
        cold start.
    """
    _, [of_target] = resolve.rank(params, [target])
    ranking = of_target.ranking
    known = last and warm_start.PreviousThresholds(
        *(jnp.atleast_1d(value) for value in last)
    )
    found = ranking.thresholds(of_target.counts(0), last=known)
    thresholds = sort_keys.from_key(jnp.stack(found.keys), ranking.dtype)
    return thresholds, found.readings


def from_state(
    params: Any, target: swd_jax.Target, state: swd_jax.SwdState
) -> tuple[jax.Array, jax.Array]:
    """Search as the optimizer's next step does, from the state of `swd`."""
    selection = state.selection
    return find(params, target, (selection.threshold, selection.threshold_change))
