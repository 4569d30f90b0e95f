"""Straight-through training: pruned weights in the loss, gradients for all of them."""

from collections.abc import Mapping
from typing import Any, TypeVar

import jax.numpy as jnp
from jax.typing import ArrayLike

from swd_jax._arrays.manual_sharding import AxisName
from swd_jax._targets.extra_arguments import check_extra_args
from swd_jax._targets.resolve import rank, resolve
from swd_jax._targets.target import Targets, as_targets

Tree = TypeVar("Tree")


def straight_through(
    params: Tree,
    target: Targets,
    *,
    step: ArrayLike | None = None,
    soft: bool = True,
    axis_name: AxisName = None,
    extra_args: Mapping[str, Any] | None = None,
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
      extra_args: as for `prune`.

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
    check_extra_args(targets, extra_args)
    resolved = resolve(targets, params)
    new_leaves = {}
    for ranked in rank(resolved, axis_name, extra_args=extra_args):
        ranking = ranked.ranking
        thresholds = ranking.find_thresholds(ranked.budgets(step)).leaf_thresholds
        masks = ranking.masks_below(thresholds)
        for i, leaf in enumerate(ranked.leaves):
            weights = ranking.weights[i]
            kept = ranking.soft_thresholded(i, thresholds[i]) if soft else weights
            forward = jnp.where(masks[i], jnp.zeros_like(weights), kept)
            # w - stop_gradient(w) is 0 and carries the identity gradient.
            identity = jnp.asarray(leaf.weights) - weights
            identity = jnp.where(jnp.isnan(identity), 0, identity)
            new_leaves[leaf.position] = forward + identity
    return resolved.tree.rebuild(new_leaves)
