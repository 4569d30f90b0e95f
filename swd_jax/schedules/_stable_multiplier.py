"""The multiplier up to which SGD is stable, and a bound that respects it."""

import dataclasses
import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from swd_jax._arguments import hashable, schedule_probes, validation
from swd_jax._arguments.schedule_probes import CheckedSchedule
from swd_jax._arguments.short_text import shown

# Without momentum the weights oscillate for ever at the limit. Below it there is room
# for plain decay, which adds to the penalty.
_MARGIN = 0.95

# Steps up to the largest int32, each at most 2 % beyond the one before.
_PROBED_STEPS = np.unique(np.geomspace(1, 2**31 - 1, 1024).astype(np.int32)) - 1


def largest_stable_multiplier(
    *,
    learning_rate: float,
    weight_decay: float,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> float:
    r"""The multiplier up to which SGD with `swd` before it is stable.

    The selection changes from step to step: a weight that overshoots zero may leave
    it, move on with the momentum that the penalty gave it, and come back. Up to the
    limit nothing grows, whichever weights are selected at which steps:

    .. math::

        \eta\, a\, \mu \le \frac{2 (1 - m)^2}{1 + m},
        \quad\text{with Nesterov's momentum}\quad
        \eta\, a\, \mu \le \frac{2 (1 - m)^2}{1 - m + 2 m^2}

    Without momentum :math:`m` that is 2. The limit holds for a constant learning rate
    and any a(t) below it. If the loss is convex, the limit also holds for the sum of
    :math:`a \mu`, plain weight decay and the largest curvature, in place of
    :math:`a \mu`. Training does not diverge at every larger multiplier: a weight
    that stays selected for ever is stable up to :math:`2 (1 + m)`, and between the two
    it depends on when weights leave the selection. Optimizers that normalise the
    gradient, such as Adam, have no such limit.

    Args:
      learning_rate: the largest that is used with the multiplier, at least 0.
      weight_decay: mu, at least 0.
      momentum: of the SGD, in [0, 1).
      nesterov: whether the momentum is Nesterov's.

    Returns:
      The limit; infinity if the learning rate or mu is 0.

    Raises:
      ValueError: if an argument is out of range.

    Examples:
      >>> import swd_jax
      >>> limit = swd_jax.schedules.largest_stable_multiplier(
      ...     learning_rate=0.1, weight_decay=5e-4, momentum=0.9
      ... )
      >>> round(limit)
      211

    Source: a quadratic Lyapunov function that every step has in common; the page on
    the chain derives it. The limit is not in the paper.
    """
    for name, value in (
        ("learning_rate", learning_rate),
        ("weight_decay", weight_decay),
    ):
        if callable(value):
            raise ValueError(
                f"{name} must be a number, got a schedule. bound_multiplier takes "
                "schedules, and finds the limit at every step"
            )
        validation.check_coefficient(name, value)
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
    r"""The multiplier a(t), bounded so that SGD is stable.

    .. math::

        \min\left(a(t),\;
        0.95 \cdot \frac{2 (1 - m)^2}{(1 + m)\, \eta(t)\, \mu(t)}\right)

    (with the limit of `largest_stable_multiplier` for Nesterov's momentum).

    Up to 95 % of the limit the rule is the paper's. A larger multiplier is replaced by
    95 % of the limit. Then the penalty makes no weight grow, whatever is selected when.
    A selected weight shrinks no slower for it with (classical) momentum: from
    :math:`\eta\, a\, \mu = (1 - \sqrt m)^2` on, the factor is :math:`\sqrt m` a step.
    A weight that the loss pulls on, however, settles where :math:`a\, \mu\, w`
    balances its gradient. If the residual in `summarize` is too large at the bound, let
    the learning rate fall, which raises the bound, or use `proximal_swd`.

    Where it stands: around the `a` of `swd` before SGD. Adam and similar optimizers
    need no bound, nor do `decoupled_swd` and `proximal_swd`.

    Args:
      a: the multiplier, at least 0; a number or a schedule of the optimizer step.
      learning_rate: that of the SGD; a number or a schedule of the optimizer step.
      weight_decay: mu, the same as for `swd`; a number or a schedule.
      momentum: of the SGD, in [0, 1).
      nesterov: whether the momentum is Nesterov's.

    Returns:
      A schedule for `swd(a=...)`. Schedules of equal arguments are equal.

    Raises:
      ValueError: if a number is out of range.

    Warns:
      UserWarning: if the bound takes effect, from about which step on, and how to avoid
        it. No warning is given for traced numbers and schedules.

    Examples:
      >>> import optax, swd_jax
      >>> lr = optax.piecewise_constant_schedule(0.1, {100: 0.1, 200: 0.1})
      >>> a = swd_jax.exponential_growth(a_min=0.1, a_max=1e4, total_steps=300)
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
    bounded = _BoundMultiplier(
        hashable.hashable_number(a),
        hashable.hashable_number(learning_rate),
        hashable.hashable_number(weight_decay),
        _MARGIN * _largest_stable_rate(momentum, nesterov),
    )
    _warn_if_bounded(bounded)
    return bounded


@dataclasses.dataclass(frozen=True, repr=False)
class _BoundMultiplier(CheckedSchedule):
    a: Any
    learning_rate: Any
    weight_decay: Any
    largest_rate: Any = dataclasses.field(repr=False)

    def __call__(self, step: ArrayLike) -> jax.Array:
        multiplier = validation.coefficient_at(self.a, step)
        return jnp.minimum(multiplier, self.limit_at(step))

    def limit_at(self, step: ArrayLike) -> jax.Array:
        rate = validation.coefficient_at(self.learning_rate, step)
        return self.largest_rate / (
            rate * validation.coefficient_at(self.weight_decay, step)
        )


def _largest_stable_rate(momentum: float, nesterov: bool) -> float:
    """Compute the limit of learning rate * a * mu."""
    validation.check_bool("nesterov", nesterov)
    exact = validation.as_decimal("momentum", momentum)
    if exact is not None and not 0 <= exact < 1:
        raise ValueError(f"momentum must be in [0, 1), got {shown(momentum)}")
    # Nesterov's step looks ahead, which multiplies the penalty in the velocity by m.
    ahead = momentum if nesterov else 1
    return 2 * (1 - momentum) ** 2 / (1 - momentum + 2 * momentum * ahead)


def _warn_if_bounded(bounded: _BoundMultiplier) -> None:
    def at_step(step: ArrayLike) -> tuple[jax.Array, jax.Array]:
        return validation.coefficient_at(bounded.a, step), bounded.limit_at(step)

    try:
        with schedule_probes.known_values():
            values, limits = map(np.asarray, jax.vmap(at_step)(_PROBED_STEPS))
    except jax.errors.TracerArrayConversionError:
        return
    exceeding = np.flatnonzero(values > limits)
    if exceeding.size:
        worst = exceeding[np.argmax(values[exceeding] / limits[exceeding])]
        warnings.warn(
            f"The multiplier a reaches {values[worst]:.3g}, where SGD with swd "
            f"before it is sure to be stable up to {limits[worst] / _MARGIN:.3g}: from "
            f"about step {_PROBED_STEPS[exceeding[0]]} on it is held at {_MARGIN:.0%} "
            "of that. For the whole growth choose a smaller a_max, a learning rate "
            "that falls, or proximal_swd, which has no such limit.",
            stacklevel=3,
        )
