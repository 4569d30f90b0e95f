"""A learning rate that is rewound at each pruning."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import optax
from jax.core import Tracer
from jax.typing import ArrayLike

from swd_jax._arguments import hashable, validation
from swd_jax._arguments.short_text import shown
from swd_jax.schedules._ascending_steps import check_ascending


def rewind(schedule: optax.Schedule, steps: Sequence[int], to: int) -> optax.Schedule:
    """A learning rate that goes back to an earlier value at each pruning.

        lr(t)            before the first of the steps
        lr(to + t - t_i)  from the step t_i on, until the next

    Args:
      schedule: the learning rate lr, a schedule of the optimizer step.
      steps: t_i, the optimizer steps at which it goes back, in ascending order: those
        of `staircase_sparsity`.
      to: the step of `schedule` to which it goes back, at least 0.

    Returns:
      A schedule for the optimizer. Schedules of equal arguments are equal.

    Raises:
      ValueError: if an argument is out of range, or there are no steps.

    Examples:
      >>> import optax, swd_jax
      >>> falling = optax.linear_schedule(1.0, 0.0, transition_steps=10)
      >>> again = swd_jax.schedules.rewind(falling, [10], to=5)
      >>> [round(float(again(step)), 4) for step in (0, 5, 9, 10, 12, 15)]
      [1.0, 0.5, 0.1, 0.5, 0.3, 0.0]

    Source: Renda et al., "Comparing rewinding and fine-tuning in neural network
    pruning" (arXiv 2003.02389), section 2.
    """
    if not callable(schedule):
        raise ValueError(
            "schedule must be a schedule of the step, such as "
            f"optax.cosine_decay_schedule(...), got {shown(schedule)}"
        )
    check_ascending("steps", steps)
    to_step = validation.as_step_count("to", to, minimum=0)
    is_known = not isinstance(steps[0], Tracer) and not isinstance(to, Tracer)
    if is_known and to_step > steps[0]:
        raise ValueError(
            f"to must be a step before the first of steps, {steps[0]}, to go back to "
            f"it, got {to_step}"
        )
    return _Rewind(
        schedule,
        tuple(hashable.whole_number(step) for step in steps),
        hashable.whole_number(to),
    )


@dataclasses.dataclass(frozen=True)
class _Rewind:
    schedule: optax.Schedule
    steps: tuple[Any, ...]
    to: Any

    def __call__(self, step: ArrayLike) -> ArrayLike:
        def rewound(since: ArrayLike) -> ArrayLike:
            # The sum of two int32 counts wraps round; the count itself ends there.
            last = validation.MAX_STEPS - self.to
            return self.schedule(jnp.minimum(since, last) + self.to)

        schedules = [self.schedule, *[rewound] * len(self.steps)]
        return optax.join_schedules(schedules, list(self.steps))(step)
