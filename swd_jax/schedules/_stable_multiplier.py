"""How large the multiplier may grow before SGD diverges."""

import math
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from swd_jax._arguments import validation

# A little below the limit, where what is left of the penalty still dies out.
_MARGIN = 0.95

# Dense enough to meet any growth, however long the training: 2 % apart.
_PROBED_STEPS = np.unique(np.geomspace(1, 2**31 - 1, 1024).astype(np.int32)) - 1


def largest_stable_multiplier(
    learning_rate: float,
    weight_decay: float,
    momentum: float = 0.0,
    *,
    nesterov: bool = False,
) -> float:
    r"""The multiplier from which SGD with `swd` before it diverges.

    Under the penalty alone a weight follows :math:`w \leftarrow w - \eta a \mu w`, with
    momentum :math:`m` if there is one. That is a linear recursion, and it grows without
    bound once

    .. math::

        \eta\, a\, \mu > 2 (1 + m), \quad\text{with Nesterov's momentum}\quad
        \eta\, a\, \mu > \frac{2 (1 + m)}{1 + 2 m}

    The curvature of the loss comes on top. Optimizers that normalise the gradient, such
    as Adam, have no such limit.

    Args:
      learning_rate: the largest in use with that multiplier, at least 0.
      weight_decay: mu, at least 0.
      momentum: of the SGD, in [0, 1).
      nesterov: whether the momentum is Nesterov's.

    Returns:
      The limit; infinity if the learning rate or mu is 0.

    Raises:
      ValueError: if an argument is out of range.

    Examples:
      >>> import swd_jax
      >>> limit = swd_jax.schedules.largest_stable_multiplier(0.1, 5e-4, momentum=0.9)
      >>> round(limit)
      76000

    Source: the roots of the recursion's characteristic polynomial,
    :math:`z^2 - (1 + m - \eta a \mu) z + m` and, with Nesterov's momentum,
    :math:`z^2 - (1 + m) (1 - \eta a \mu) z + m (1 - \eta a \mu)`.
    """
    validation.check_coefficient("learning_rate", learning_rate)
    validation.check_coefficient("weight_decay", weight_decay)
    rate = learning_rate * weight_decay
    limit = _largest_stable_rate(momentum, nesterov)
    return limit / rate if rate > 0 else math.inf


def bound_multiplier(
    a: validation.Number | optax.Schedule,
    *,
    learning_rate: validation.Number | optax.Schedule,
    weight_decay: validation.Number | optax.Schedule,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> optax.Schedule:
    r"""The multiplier a(t), kept where SGD is stable.

    .. math:: \min\left(a(t),\; 0.95 \cdot \frac{2 (1 + m)}{\eta(t)\, \mu(t)}\right)

    (with the limit of `largest_stable_multiplier` for Nesterov's momentum).

    Up to 95 % of the limit the rule is the paper's, untouched. A multiplier that would
    go further is held there: the selected weights still shrink as fast as SGD allows,
    and nothing diverges.

    Where it stands: round the `a` of `swd` before SGD. Adam and its like need none, nor
    do `decoupled_swd` and `proximal_swd`.

    Args:
      a: the multiplier, at least 0; a number or a schedule of the optimizer step.
      learning_rate: that of the SGD; a number or a schedule of the optimizer step.
      weight_decay: mu, the same as for `swd`; a number or a schedule.
      momentum: of the SGD, in [0, 1).
      nesterov: whether the momentum is Nesterov's.

    Returns:
      A schedule for `swd(a=...)`.

    Raises:
      ValueError: if a number is out of range.

    Warns:
      UserWarning: if the bound will be met, from about which step on, and what can be
        done about it. (Not where a number or a schedule is traced and so unknown.)

    Examples:
      >>> import optax, swd_jax
      >>> lr = optax.piecewise_constant_schedule(0.1, {100: 0.1, 200: 0.1})
      >>> a = swd_jax.exponential_growth(a_min=0.1, a_max=1e5, total_steps=300)
      >>> a = swd_jax.bound_multiplier(
      ...     a, learning_rate=lr, weight_decay=5e-4, momentum=0.9
      ... )
      >>> tx = optax.chain(
      ...     swd_jax.swd(0.9, weight_decay=5e-4, a=a), optax.sgd(lr, momentum=0.9)
      ... )

    Source: the limit of `largest_stable_multiplier`; the bound is not in the paper.
    """
    validation.check_coefficient("a", a)
    validation.check_coefficient("learning_rate", learning_rate)
    validation.check_coefficient("weight_decay", weight_decay)
    largest = _MARGIN * _largest_stable_rate(momentum, nesterov)

    def limit_at(step: ArrayLike) -> jax.Array:
        rate = validation.coefficient_at(learning_rate, step)
        return largest / (rate * validation.coefficient_at(weight_decay, step))

    def bounded(step: ArrayLike) -> jax.Array:
        return jnp.minimum(validation.coefficient_at(a, step), limit_at(step))

    _warn_if_met(a, limit_at)
    return bounded


def _largest_stable_rate(momentum: float, nesterov: bool) -> float:
    """The limit of learning rate * a * mu."""
    value = validation.as_decimal("momentum", momentum)
    if value is not None and not 0 <= value < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum!r}")
    limit = 2 * (1 + momentum)
    return limit / (1 + 2 * momentum) if nesterov else limit


def _warn_if_met(
    a: validation.Number | optax.Schedule, limit_at: Callable[[ArrayLike], jax.Array]
) -> None:
    try:
        with jax.ensure_compile_time_eval():
            multiplier, limit = jax.vmap(
                lambda step: (validation.coefficient_at(a, step), limit_at(step))
            )(_PROBED_STEPS)
            multiplier, limit = np.asarray(multiplier), np.asarray(limit)
    except jax.errors.TracerArrayConversionError:
        return
    met = np.flatnonzero(multiplier > limit)
    if met.size:
        worst = met[np.argmax(multiplier[met] / limit[met])]
        warnings.warn(
            f"The multiplier a reaches {multiplier[worst]:.3g}, where SGD with swd "
            f"before it stays stable up to {limit[worst] / _MARGIN:.3g}: from about "
            f"step {_PROBED_STEPS[met[0]]} on it is held at {_MARGIN:.0%} of that. For "
            "the whole growth choose a smaller a_max, a learning rate that falls, or "
            "proximal_swd, which has no such limit.",
            stacklevel=3,
        )
