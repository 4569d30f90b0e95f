"""The growth of the decay's multiplier over training."""

import dataclasses
from typing import Any

import numpy as np
import optax
from jax.typing import ArrayLike

from swd_jax._arguments import hashable, validation
from swd_jax._arguments.schedule_probes import CheckedSchedule
from swd_jax._arguments.short_text import shown


def exponential_growth(a_min: float, a_max: float, total_steps: int) -> optax.Schedule:
    """The multiplier of the selective decay over training, as in the paper.

        a(t) = a_min * (a_max / a_min) ** (t / total_steps),   and a_max from then on.

    A small a_min leaves the network free to choose its weights, and a large a_max
    brings the selected ones to zero. The residual in `summarize` shows whether a_max
    was large enough: if the residual is large at the end of training, raise a_max, or
    give the schedule more steps. The code of the paper goes from 0.1 to 1e5. Adam moves
    a weight by about its learning rate at most, whatever a is, so that the sum of the
    learning rates must suffice to bring weights to zero; there a from 10 to 1e6 or more
    did better than from 0.1 (the page on the paper has a grid). With SGD see
    `bound_multiplier`: a large a_max can make it diverge.

    Args:
      a_min: multiplier at step 0, greater than 0.
      a_max: multiplier at `total_steps`, at least `a_min`.
      total_steps: T, the optimizer steps of the whole training, at least 1.

    Returns:
      A schedule for `swd(a=...)` and the forms after the optimizer. Schedules of equal
      arguments are equal.

    Raises:
      ValueError: if an argument is out of range, or a_max / a_min is above 3.4e38, the
        largest float32.

    Examples:
      >>> import swd_jax
      >>> a = swd_jax.exponential_growth(a_min=0.1, a_max=1e3, total_steps=400)
      >>> [round(float(a(step)), 4) for step in (0, 100, 200, 400, 1000)]
      [0.1, 1.0, 10.0, 1000.0, 1000.0]

    Source: equation 3 and algorithm 1 of arXiv 2011.10520.
    """
    lowest = validation.as_decimal("a_min", a_min)
    highest = validation.as_decimal("a_max", a_max)
    validation.as_step_count("total_steps", total_steps, minimum=1)
    if lowest is None or highest is None:
        raise ValueError(
            "a_min and a_max must be known when the schedule is made, got a traced "
            "value: give swd a function of the step instead"
        )
    if lowest <= 0:
        raise ValueError(f"a_min must be greater than 0, got {shown(a_min)}")
    if highest < lowest:
        raise ValueError(f"a_max must be at least a_min={a_min!r}, got {shown(a_max)}")
    largest = float(np.finfo(np.float32).max)
    if highest > largest or highest / lowest > largest:
        raise ValueError(
            f"a_max must be at most {largest:.3g}, the largest float32, and at most so "
            f"many times a_min={a_min!r}, got {shown(a_max)}"
        )
    return _ExponentialGrowth(
        float(lowest),
        float(highest),
        hashable.whole_number(total_steps),
        growth=float(highest / lowest),
    )


@dataclasses.dataclass(frozen=True, repr=False)
class _ExponentialGrowth(CheckedSchedule):
    a_min: float
    a_max: float
    total_steps: Any
    # The ratio of the exact decimals: in floats it may differ in the last bit.
    growth: float = dataclasses.field(kw_only=True, repr=False)

    def __call__(self, step: ArrayLike) -> ArrayLike:
        return optax.exponential_decay(
            init_value=self.a_min,
            transition_steps=self.total_steps,
            decay_rate=self.growth,
            end_value=self.a_max,
        )(step)
