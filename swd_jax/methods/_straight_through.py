"""Pruned weights in the forward pass, gradients for all of them."""

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from swd_jax._arrays import sort_keys
from swd_jax._arrays.manual_sharding import AxisName
from swd_jax._ranking.leaf_ranking import Ranking
from swd_jax._targets import resolve
from swd_jax._targets.target import Targets, as_targets

Tree = TypeVar("Tree")


def straight_through(
    params: Tree,
    target: Targets,
    *,
    step: ArrayLike | None = None,
    soft: bool = True,
    axis_name: AxisName = None,
    evidence: Mapping[str, Any] | None = None,
) -> Tree:
    r"""Parameters as if pruned, through which gradients pass as if they were not.

    .. math::

        \hat w_i = \begin{cases} 0 & |w_i| < \tau_t \\
        w_i - \tau_t \operatorname{sign}(w_i) & \text{else} \end{cases}
        \qquad \frac{\partial \hat w_i}{\partial w_i} := 1

    with the threshold of `swd` for the sparsity at the step, and with :math:`w_i` for
    the second line where `soft` is false. (With a criterion of score s other than
    :math:`|w|`, the second line is :math:`w_i (1 - \tau_t / s_i)`.)

    Where it stands: not in the chain but in the loss, round the parameters that the
    model gets: `loss(straight_through(params, target, step=step))`. The optimizer keeps
    and moves the dense weights, so a pruned one may come back. After training
    the network is `straight_through(params, target)`, with `prune` for ties.

    Args:
      params: any tree of arrays.
      target: what is pruned, as for `swd`; the sparsity may be a schedule, such as
        `cubic_sparsity(...)`.
      step: where the target's sparsity is a schedule, the optimizer step, which may be
        traced; by default the value on which the schedule settles.
      soft: whether what is kept shrinks by the threshold, so that no weight jumps when
        it crosses.
      axis_name: as for `swd`.
      evidence: as for `prune`.

    Returns:
      The same tree with the same dtypes and shardings.

    Raises:
      ValueError: as `prune`.

    Examples:
      >>> import jax, jax.numpy as jnp, swd_jax
      >>> params = {"kernel": jnp.array([[0.25, -0.5, 3.0, -4.0]])}
      >>> print(swd_jax.methods.straight_through(params, 0.25)["kernel"])
      [[ 0.   0.   2.5 -3.5]]
      >>> print(swd_jax.methods.straight_through(params, 0.25, soft=False)["kernel"])
      [[ 0.  -0.5  3.  -4. ]]
      >>> loss = lambda p: swd_jax.methods.straight_through(p, 0.25)["kernel"].sum()
      >>> print(jax.grad(loss)(params)["kernel"])
      [[1. 1. 1. 1.]]

    Source: Vanderschueren & De Vleeschouwer, "Are straight-through gradients and
    soft-thresholding all you need for sparse training?" (arXiv 2212.01076), section 3;
    the gradient is that of Bengio et al. (arXiv 1308.3432).
    """
    targets = as_targets(target)
    resolve.check_evidence(targets, evidence)
    tree, ranked = resolve.rank(params, targets, axis_name, evidence=evidence)
    pruned = {}
    for each in ranked:
        if not each.leaves:
            continue
        ranking = each.ranking
        if soft and not isinstance(ranking, Ranking):
            raise ValueError(
                f"soft=True takes the threshold from every weight, which with "
                f"{each.target.structure!r} is that of channels: give soft=False"
            )
        found = ranking.thresholds(each.counts(step))
        masks = ranking.expanded(ranking.below(found.limits))
        for i, (leaf, below) in enumerate(zip(each.leaves, masks, strict=True)):
            weights = jax.lax.stop_gradient(jnp.asarray(leaf.weights))
            kept = weights
            if soft and isinstance(ranking, Ranking):
                kept = _shrunk(ranking, i, found.limits[i])
            forward = jnp.where(below, jnp.zeros_like(weights), kept)
            # The difference is 0, and has the gradient.
            difference = jnp.asarray(leaf.weights) - weights
            pruned[leaf.position] = forward + jnp.where(
                jnp.isnan(difference), 0, difference
            )
    return tree.rebuilt(pruned)


def _shrunk(ranking: Ranking, i: int, limit: jax.Array) -> jax.Array:
    """A leaf's weights, those above the threshold less as much as that."""
    weights, statistic, evidence = ranking.scored[i]
    if ranking.group_scores is None:
        scores = ranking.scores(weights, statistic, evidence)
    else:
        scores = ranking.structure.expand(ranking.group_scores[i], weights.shape)
    threshold = sort_keys.from_key(limit, ranking.dtype)
    left = jnp.where(scores > threshold, (scores - threshold) / scores, 0)
    # What is not finite stays as it is, for all to see.
    left = jnp.where(jnp.isfinite(scores), left, 1)
    wide = sort_keys.widen(weights, ranking.dtype)
    return (wide * left).astype(weights.dtype)
