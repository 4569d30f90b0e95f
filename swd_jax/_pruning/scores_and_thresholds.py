"""The scores of weights, and the thresholds below which they are pruned."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
from jax.typing import ArrayLike

from swd_jax._arrays import sort_keys
from swd_jax._arrays.manual_sharding import AxisName
from swd_jax._targets.by_platform import compute_by_platform
from swd_jax._targets.resolve import (
    RankedTarget,
    ResolvedTargets,
    rank,
    resolve_arguments,
)
from swd_jax._targets.target import Targets

Tree = TypeVar("Tree")


def scores(
    params: Tree,
    target: Targets,
    *,
    axis_name: AxisName = None,
    extra_args: Mapping[str, Any] | None = None,
) -> Tree:
    """Return the scores by which a target ranks the weights: the lowest are pruned.

    A weight has the score of the unit that it is pruned with: its own, that of its
    block or channel, or, with `CoupledChannels`, the lowest of the channels that it
    belongs to. Scores of either sign (`Criterion.signed`) are mapped to magnitudes in
    the same order. A weight with an infinite score is never pruned.

    Where it stands: beside a training loop, to plot or to log what is being ranked. It
    can be jitted.

    Args:
      params: any tree of arrays.
      target: what is pruned, as for `prune`. The sparsity has no influence.
      axis_name: as for `prune`.
      extra_args: as for `prune`.

    Returns:
      The tree of the parameters with an array of scores, float32 at least, in the shape
      of every prunable leaf, and `optax.MaskedNode` for all other leaves.

    Raises:
      ValueError: if the target does not fit the parameters, or an extra argument is
        missing.

    Examples:
      >>> import jax, jax.numpy as jnp, swd_jax
      >>> params = {"kernel": jnp.array([[0.25, -4.0], [2.0, 0.5]])}
      >>> target = swd_jax.Target(0.5)
      >>> print(swd_jax.scores(params, target)["kernel"])
      [[0.25 4.  ]
       [2.   0.5 ]]
      >>> below = jax.tree.map(
      ...     lambda score, threshold: score < threshold,
      ...     swd_jax.scores(params, target),
      ...     swd_jax.thresholds(params, target),
      ... )
      >>> print(below["kernel"])
      [[ True False]
       [False  True]]

    Source: `Target(criterion=...)`; section 3.1 of arXiv 2011.10520 for magnitudes.
    """
    return _map_rankings(
        lambda ranked: ranked.ranking.weight_scores(),
        params,
        target,
        axis_name=axis_name,
        extra_args=extra_args,
    )


def thresholds(
    params: Tree,
    target: Targets,
    *,
    step: ArrayLike | None = None,
    axis_name: AxisName = None,
    extra_args: Mapping[str, Any] | None = None,
) -> Tree:
    """Return the threshold of every prunable leaf: lower scores are selected.

        tau = the greatest score below which there are at most k = floor(s n) weights

    in the leaf's pool; lower for a leaf that would keep less than `min_kept`. All
    leaves have the same threshold with scope="global". `swd` selects the weights that
    are strictly below, and `prune` some of those that tie with it as well, so that
    exactly k are pruned.

    Where it stands: beside a training loop, to plot or to log; the state of `swd` has
    the thresholds of its last update. It can be jitted.

    Args:
      params: any tree of arrays.
      target: what is pruned, as for `prune`.
      step: as for `prune`.
      axis_name: as for `prune`.
      extra_args: as for `prune`.

    Returns:
      The tree of the parameters with a number, float32 at least, for every prunable
      leaf, to be compared with its `scores`, and `optax.MaskedNode` for all others.

    Raises:
      ValueError: as `prune`.

    Examples:
      >>> import jax.numpy as jnp, swd_jax
      >>> params = {"kernel": jnp.array([[0.25, -4.0], [2.0, 0.5]])}
      >>> print(swd_jax.thresholds(params, 0.5)["kernel"])
      2.0

    Source: section 3.1 of arXiv 2011.10520.
    """

    def leaf_thresholds(ranked: RankedTarget) -> list[jax.Array]:
        ranking = ranked.ranking
        keys = ranking.find_thresholds(ranked.budgets(step)).leaf_thresholds
        return [sort_keys.from_key(key, ranking.dtype) for key in keys]

    return _map_rankings(
        leaf_thresholds, params, target, axis_name=axis_name, extra_args=extra_args
    )


def _map_rankings(
    function: Callable[[RankedTarget], list[jax.Array]],
    params: Tree,
    target: Targets,
    *,
    axis_name: AxisName,
    extra_args: Mapping[str, Any] | None,
) -> Tree:
    """Return a tree with an array for every prunable leaf, `MaskedNode` elsewhere.

    Args:
      function: from a target's ranking to an array for each of its leaves.
      params: as for `scores`.
      target: as for `scores`.
      axis_name: as for `scores`.
      extra_args: as for `scores`.
    """
    resolved = resolve_arguments(params, target, extra_args)

    def of_prunable(resolved: ResolvedTargets) -> dict[int, jax.Array]:
        return {
            leaf.position: array
            for ranked in rank(resolved, axis_name, extra_args=extra_args)
            for leaf, array in zip(ranked.leaves, function(ranked), strict=True)
        }

    entries = compute_by_platform(resolved, of_prunable, extra_args)
    return resolved.tree.rebuild_masked(entries)
