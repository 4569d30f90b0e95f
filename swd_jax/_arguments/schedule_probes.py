"""Values of users' schedules at many steps, where they can be known beforehand."""

import contextlib
import dataclasses
import re
import warnings
from collections.abc import Callable, Generator
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arguments.short_text import shown

# Up to 2**27 steps, each at most 8 % beyond the one before; then steps at which a
# schedule must agree for its value to count as settled.
_STEPS = np.concatenate(
    [
        np.unique(np.geomspace(1, 2**27, 256).astype(np.int32)) - 1,
        np.array([2**29, 2**30, 2**31 - 1], np.int32),
    ]
)


@contextlib.contextmanager
def known_values() -> Generator[None, None, None]:
    """Evaluate schedules at known steps, whatever users have told jax to forbid.

    While a caller is traced, values stay known. `jax_transfer_guard` would forbid the
    transfer of the steps.
    """
    with jax.ensure_compile_time_eval(), jax.transfer_guard("allow"):
        yield


class CheckedSchedule:
    """A schedule of this package, whose values need no check.

    Its classes are dataclasses, which print as the call that makes them.
    """

    def __repr__(self) -> str:
        name = re.sub("([A-Z])", r"_\1", type(self).__name__).lower().lstrip("_")
        arguments = [
            f"{field.name}={shown(getattr(self, field.name))}"
            for field in dataclasses.fields(cast(Any, self))
            if field.repr
        ]
        return f"{name}({', '.join(arguments)})"


def probe(schedule: Any) -> list[tuple[int, float]]:
    """Return steps and values of a schedule that settles on a final value.

    Nothing is known of another one, which may be meant for the steps of a run only.

    Args:
      schedule: that of a user, or a number.

    Returns:
      Steps in ascending order, each with a value; [] for a number, a schedule of this
      package, one that does not settle, and one that cannot be evaluated for many
      steps at once, or only while it is traced.
    """
    if not callable(schedule) or isinstance(schedule, CheckedSchedule):
        return []
    values = evaluate(schedule, _STEPS)
    if values is None or np.any(values[-3:] != values[-1]):
        return []
    return list(zip(_STEPS.tolist(), values.tolist(), strict=True))


def evaluate(schedule: Callable[..., Any], steps: np.ndarray) -> np.ndarray | None:
    """Return the values of a schedule at some steps; None if they cannot be known."""
    try:
        with known_values(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = jax.vmap(lambda step: jnp.asarray(schedule(step)))(steps)
            array = np.asarray(values, np.float64)
    # A schedule is code of a user, and may do what does not work for arrays.
    except Exception:
        return None
    return array if array.shape == steps.shape else None


def largest_rise(
    schedule: Callable[..., Any], total_steps: int
) -> tuple[int, float] | None:
    """Return the step after which a schedule rises most, and by how much.

    Returns:
      None if the values cannot be known.
    """
    low, high = 0, total_steps
    while True:
        steps = np.unique(np.linspace(low, high, 1025).astype(np.int32))
        values = evaluate(schedule, steps)
        if values is None or len(steps) < 2:
            return None
        index = int(np.argmax(np.diff(values)))
        low, high = int(steps[index]), int(steps[index + 1])
        if high - low == 1:
            return low, float(values[index + 1] - values[index])
