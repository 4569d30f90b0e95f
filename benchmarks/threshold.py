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
    [ranked] = resolve.rank(resolve.resolve([target], params))
    ranking = ranked.ranking
    previous = last and warm_start.PreviousThresholds(
        *(jnp.atleast_1d(value) for value in last)
    )
    thresholds = ranking.find_thresholds(ranked.budgets(0), previous=previous)
    scores = sort_keys.from_key(jnp.stack(thresholds.keys), ranking.dtype)
    return scores, thresholds.num_passes


def from_state(
    params: Any, target: swd_jax.Target, state: swd_jax.SwdState
) -> tuple[jax.Array, jax.Array]:
    """Search as the optimizer's next step does, from the state of `swd`."""
    selection = state.selection
    return find(params, target, (selection.threshold, selection.threshold_change))
