"""The selection alone: the part of an optimizer step that finds the threshold.

Private modules are imported because `swd_jax.thresholds` has no warm start and does not
return the number of passes.
"""

from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp

import swd_jax
from swd_jax._allocation import exact_counts
from swd_jax._arrays import sort_keys
from swd_jax._ranking.ranking import Thresholds
from swd_jax._selection import warm_start
from swd_jax._targets import resolve


def find(
    params: Any,
    target: swd_jax.Target,
    last: warm_start.PreviousThresholds | None = None,
    tolerance: Fraction = Fraction(0),
) -> Thresholds:
    """Return the thresholds of all pools, with the number of passes over the weights.

    Args:
      params: the weights.
      target: what is selected.
      last: what the search starts from; None for a cold start.
      tolerance: as for `swd`.
    """
    [of_target] = resolve.rank(resolve.resolve([target], params))
    ranking = of_target.ranking
    slack = None
    if tolerance:
        slack = exact_counts.known_counts(tolerance, ranking.pool_sizes())
    if last is not None:
        last = last.of_pools(slice(None), ranking.dtype)
    return ranking.find_thresholds(of_target.budgets(0), slack=slack, previous=last)


def scores(thresholds: Thresholds) -> jax.Array:
    """Return the thresholds as scores in float32, shape (pools,)."""
    return sort_keys.from_key(jnp.stack(thresholds.keys), jnp.float32)


def from_state(
    params: Any,
    target: swd_jax.Target,
    state: swd_jax.SwdState,
    tolerance: Fraction = Fraction(0),
) -> Thresholds:
    """Search as the optimizer's next step does, from the state of `swd`."""
    selection = state.selection
    last = warm_start.PreviousThresholds(
        selection.threshold, selection.threshold_change, selection.tracking or None
    )
    return find(params, target, last, tolerance)
