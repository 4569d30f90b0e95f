"""The forms of selective weight decay that go after the optimizer."""

import jax
import jax.numpy as jnp
import optax

from swd_jax._arguments import validation
from swd_jax._arrays.manual_sharding import AxisName
from swd_jax._targets.target import Targets
from swd_jax._transforms.selective_decay import selective_decay


def decoupled_swd(
    target: Targets,
    *,
    weight_decay: validation.Number | optax.Schedule,
    a: validation.Number | optax.Schedule,
    learning_rate: validation.Number | optax.Schedule,
    update_every: int = 1,
    tolerance: validation.Number | None = None,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Selective weight decay on the final update. Goes AFTER the optimizer.

    Decoupled from the gradient as AdamW decouples ordinary decay: neither momentum nor
    Adam's normalisation sees it, and every step takes a fraction of each selected
    weight, whatever its gradient does.

    .. math::

        u_i \leftarrow u_i - \min(1,\; \eta\, a(t)\, \mu)\; w_i
        \quad\text{where } |w_i| < \tau_t

    with the learning rate :math:`\eta`, and :math:`\tau_t` and the selection as in
    `swd`. No more than the whole weight is taken, so no value makes it unstable.

    Where it stands: last, `optax.chain(optax.adam(lr), decoupled_swd(...,
    learning_rate=lr))`, where the updates are what will be added to the parameters. It
    is the same as `swd` between an optimizer's scaling and its learning rate,
    `optax.chain(optax.scale_by_adam(), swd(...), optax.scale_by_learning_rate(lr))`,
    as long as `lr * a * mu` is at most 1. Beyond, a selected weight is reduced to the
    optimizer's last update; `proximal_swd` shrinks that too. Momentum does not multiply
    this decay, as it does for `swd` before SGD (by 1 / (1 - momentum)), so a larger `a`
    is needed for the same effect.

    Args:
      target: what is pruned, as for `swd`.
      weight_decay: mu, at least 0; a number or a schedule of the optimizer step.
      a: the multiplier a(t), at least 0; a number or a schedule of the optimizer step.
      learning_rate: the optimizer's own, at least 0; a number or a schedule of the
        optimizer step.
      update_every: as for `swd`.
      tolerance: as for `swd`.
      axis_name: as for `swd`.

    Returns:
      A transformation with the state of `swd`. Criteria that read the gradient need
      the extra argument `gradient`, since the updates are not gradients any more.

    Raises:
      ValueError: as `swd`.

    Examples:
      >>> import jax.numpy as jnp, optax, swd_jax
      >>> params = {"kernel": jnp.array([[0.1, -0.2, 3.0, 4.0]])}
      >>> tx = optax.chain(
      ...     optax.adam(0.1),
      ...     swd_jax.decoupled_swd(0.5, weight_decay=0.1, a=20.0, learning_rate=0.1),
      ... )
      >>> gradient = {"kernel": jnp.zeros((1, 4))}
      >>> updates, state = tx.update(gradient, tx.init(params), params)
      >>> print(optax.apply_updates(params, updates)["kernel"])
      [[ 0.08 -0.16  3.    4.  ]]

    Source: the rule of arXiv 2011.10520 in the place that Loshchilov & Hutter,
    "Decoupled weight decay regularization" (arXiv 1711.05101), give to decay.
    """

    def take(update: jax.Array, weight: jax.Array, rate: jax.Array) -> jax.Array:
        return update - jnp.minimum(rate, 1) * weight

    return selective_decay(
        target,
        take,
        weight_decay=weight_decay,
        a=a,
        learning_rate=learning_rate,
        update_every=update_every,
        tolerance=tolerance,
        axis_name=axis_name,
    )


def proximal_swd(
    target: Targets,
    *,
    weight_decay: validation.Number | optax.Schedule,
    a: validation.Number | optax.Schedule,
    learning_rate: validation.Number | optax.Schedule,
    update_every: int = 1,
    tolerance: validation.Number | None = None,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Selective weight decay as a proximal step. Goes AFTER the optimizer.

    The optimizer takes its step first; the selected weights are then put where the
    penalty :math:`\tfrac{1}{2} a(t) \mu \lVert w^* \rVert^2` and the distance from
    there balance:

    .. math::

        w_i \leftarrow \frac{w_i + u_i}{1 + \eta\, a(t)\, \mu}
        \quad\text{where } |w_i| < \tau_t

    expressed as an update, with the learning rate :math:`\eta`, and :math:`\tau_t` and
    the selection as in `swd`. A step shrinks and never overshoots: it is stable for
    any learning rate, mu and a, and with very large ones sets the selected weights to
    zero.

    Where it stands: last, `optax.chain(optax.sgd(lr, momentum=0.9), proximal_swd(...,
    learning_rate=lr))`, where the updates are what will be added to the parameters. As
    for `decoupled_swd`, no momentum multiplies the decay.

    Args:
      target: what is pruned, as for `swd`.
      weight_decay: mu, at least 0; a number or a schedule of the optimizer step.
      a: the multiplier a(t), at least 0; a number or a schedule of the optimizer step.
      learning_rate: the optimizer's own, at least 0; a number or a schedule of the
        optimizer step.
      update_every: as for `swd`.
      tolerance: as for `swd`.
      axis_name: as for `swd`.

    Returns:
      A transformation with the state of `swd`. Criteria that read the gradient need
      the extra argument `gradient`, since the updates are not gradients any more.

    Raises:
      ValueError: as `swd`.

    Examples:
      >>> import jax.numpy as jnp, optax, swd_jax
      >>> params = {"kernel": jnp.array([[0.1, -0.2, 3.0, 4.0]])}
      >>> tx = optax.chain(
      ...     optax.sgd(0.1),
      ...     swd_jax.proximal_swd(0.5, weight_decay=0.1, a=100.0, learning_rate=0.1),
      ... )
      >>> gradient = {"kernel": jnp.zeros((1, 4))}
      >>> updates, state = tx.update(gradient, tx.init(params), params)
      >>> print(optax.apply_updates(params, updates)["kernel"])
      [[ 0.05 -0.1   3.    4.  ]]

    Source: the penalty of arXiv 2011.10520 under a proximal step (Parikh & Boyd,
    "Proximal algorithms", section 6.1.1: the proximal operator of a squared norm).
    """

    def shrink(update: jax.Array, weight: jax.Array, rate: jax.Array) -> jax.Array:
        # (w + u) / (1 + c) - w, in a form that leaves u as it is when c is 0, is
        # accurate when c is small and finite when c is not.
        rate = jnp.minimum(rate, jnp.finfo(rate.dtype).max)
        return update / (1 + rate) - rate / (1 + rate) * weight

    return selective_decay(
        target,
        shrink,
        weight_decay=weight_decay,
        a=a,
        learning_rate=learning_rate,
        update_every=update_every,
        tolerance=tolerance,
        axis_name=axis_name,
    )
