"""Straight-through training: pruned weights in the loss, gradients for all of them."""

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from swd_jax._arguments import validation
from swd_jax._arguments.short_text import shown
from swd_jax._arrays import sort_keys
from swd_jax._arrays.manual_sharding import AxisName
from swd_jax._ranking.ranking import Ranking
from swd_jax._targets.by_platform import compute_by_platform
from swd_jax._targets.resolve import ResolvedTargets, rank, resolve_arguments
from swd_jax._targets.target import Targets

Tree = TypeVar("Tree")


def straight_through(
    params: Tree,
    target: Targets,
    *,
    step: ArrayLike | None = None,
    soft: bool = True,
    power: validation.Number = 1.0,
    pruned_gradient_scale: validation.Number = 1.0,
    axis_name: AxisName = None,
    extra_args: Mapping[str, Any] | None = None,
) -> Tree:
    r"""Parameters as if pruned, through which gradients pass as if they were not.

    .. math::

        \hat w_i = \begin{cases} 0 & i \in P_t \\
        w_i \, (1 - (\sigma_t / s_i)^p)^{1/p} & \text{else} \end{cases}
        \qquad \frac{\partial \hat w_i}{\partial w_i} := \begin{cases}
        \theta & i \in P_t \\ 1 & \text{else} \end{cases}

    :math:`P_t` are the weights that `prune` sets to zero for the sparsity at the step,
    :math:`s_i` is the score of the weight, or of the block or channel that it belongs
    to, and :math:`\sigma_t` the largest score that is pruned. For single weights and
    their magnitudes the second line is
    :math:`\operatorname{sign}(w_i) (|w_i|^p - \sigma_t^p)^{1/p}`. Where `soft` is
    false, it is :math:`w_i`; so it is for weights that `NM` never prunes, and for a
    criterion whose scores may be negative, such as `movement`. With p = 1 and
    :math:`\theta` = 1, the defaults, what is kept shrinks by the threshold, and
    gradients pass unchanged: that is ST-3.

    Feather is p = 3, which leaves large weights almost as they are, with
    :math:`\theta` = 0.5 for a final sparsity above 0.95 and 1 up to it, at all steps.
    Its sparsity is `cubic_sparsity(...)` from the first step to half of the training,
    its optimizer SGD with momentum and ordinary weight decay.

    Where it stands: not in the chain but in the loss, round the parameters that the
    model gets: `loss(straight_through(params, target, step=step))`. The optimizer keeps
    and moves the dense weights, so a pruned one may come back. After training
    the network is `straight_through(params, target)`, whose zeros are those of
    `prune(params, target)`.

    Args:
      params: any tree of arrays.
      target: what is pruned, as for `swd`; the sparsity may be a schedule, such as
        `cubic_sparsity(...)`.
      step: where the target's sparsity is a schedule, the optimizer step, which may be
        traced; by default the value on which the schedule settles.
      soft: whether what is kept shrinks, so that no weight jumps when it crosses the
        threshold.
      power: p, greater than 0: the larger it is, the less a weight shrinks that is
        well above the threshold.
      pruned_gradient_scale: theta, at least 0: what the gradients of the weights that
        are pruned at this step are multiplied by. It may be traced.
      axis_name: as for `swd`.
      extra_args: as for `prune`.

    Returns:
      The same tree with the same dtypes and shardings.

    Raises:
      ValueError: as `prune`; if `power` or `pruned_gradient_scale` is out of range, or
        `power` is not 1 where `soft` is false.

    Examples:
      >>> import jax, jax.numpy as jnp, swd_jax
      >>> params = {"kernel": jnp.array([[0.25, -0.5, 3.0, -4.0]])}
      >>> print(swd_jax.methods.straight_through(params, 0.25)["kernel"])
      [[ 0.   -0.25  2.75 -3.75]]
      >>> print(swd_jax.methods.straight_through(params, 0.25, soft=False)["kernel"])
      [[ 0.  -0.5  3.  -4. ]]
      >>> loss = lambda p: swd_jax.methods.straight_through(p, 0.25)["kernel"].sum()
      >>> print(jax.grad(loss)(params)["kernel"])
      [[1. 1. 1. 1.]]

      Feather's threshold, and its gradients at a high sparsity:

      >>> def feather(params):
      ...     return swd_jax.methods.straight_through(
      ...         params, 0.25, power=3, pruned_gradient_scale=0.5
      ...     )["kernel"]
      >>> print([round(float(weight), 3) for weight in feather(params)[0]])
      [0.0, -0.478, 2.999, -4.0]
      >>> print(jax.grad(lambda p: feather(p).sum())(params)["kernel"])
      [[0.5 1.  1.  1. ]]

    Source: Vanderschueren & De Vleeschouwer, "Are straight-through gradients and
    soft-thresholding all you need for sparse training?" (arXiv 2212.01076), section 3;
    the gradient is that of Bengio et al. (arXiv 1308.3432). p and theta: Glentis
    Georgoulakis et al., "Feather: an elegant solution to effective DNN sparsification"
    (arXiv 2310.02448); its theta and schedule are those of the authors' code
    (github.com/athglentis/feather). Both papers shrink by a threshold between the
    largest magnitude that is pruned and the smallest that is kept. Here the threshold
    is the former, so that what is kept is never zero.
    """
    exponent = _check_power(power, soft=soft)
    scale = validation.as_factor("pruned_gradient_scale", pruned_gradient_scale)
    resolved = resolve_arguments(params, target, extra_args)

    def pruned_leaves(resolved: ResolvedTargets) -> dict[int, jax.Array]:
        new_leaves = {}
        for ranked in rank(resolved, axis_name, extra_args=extra_args):
            ranking, budgets = ranked.ranking, ranked.budgets(step)
            masks = ranking.map_exact_k(_is_pruned, budgets)
            kept_weights = ranking.weights
            if soft:
                kept_weights = _shrunk_weights(ranking, budgets, exponent)
            for i, leaf in enumerate(ranked.leaves):
                weights = ranking.weights[i]
                forward = jnp.where(masks[i], jnp.zeros_like(weights), kept_weights[i])
                # w - stop_gradient(w) is 0 and carries the identity gradient.
                identity = jnp.asarray(leaf.weights) - weights
                identity = jnp.where(jnp.isnan(identity), 0, identity)
                if scale is not None:
                    scaled = jnp.asarray(scale, identity.dtype) * identity
                    identity = jnp.where(masks[i], scaled, identity)
                new_leaves[leaf.position] = forward + identity
        return new_leaves

    inputs = (params, extra_args, step)
    return resolved.tree.rebuild(compute_by_platform(resolved, pruned_leaves, inputs))


def _is_pruned(weights: jax.Array, pruned: jax.Array) -> jax.Array:
    del weights
    return pruned


def _shrunk_weights(
    ranking: Ranking, budgets: jax.Array, power: float
) -> list[jax.Array]:
    """Return the weights, shrunk by the largest score below the threshold.

    Units that tie with the threshold count as kept: of those that `prune` keeps, none
    may shrink to zero.
    """
    thresholds = ranking.find_thresholds(budgets).leaf_thresholds
    masks = ranking.masks_below(thresholds)
    shares = ranking.kept_shares(masks, thresholds, power)
    return [
        (sort_keys.widen(weights, ranking.dtype) * factor).astype(weights.dtype)
        for weights, factor in zip(ranking.weights, shares.factors, strict=True)
    ]


def _check_power(power: Any, *, soft: bool) -> float:
    number = validation.as_decimal("power", power)
    if number is None or number <= 0:
        raise ValueError(
            f"power must be a known number greater than 0, got {shown(power)}"
        )
    validation.check_bool("soft", soft)
    if not soft and number != 1:
        raise ValueError(
            "power must be 1 with soft=False, which shrinks no weight, got "
            f"{shown(power)}"
        )
    return float(number)
