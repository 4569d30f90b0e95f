"""The target sparsity: its type, its check, and its value at a step."""

import itertools
import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.typing import ArrayLike

from swd_jax._allocation import exact_counts
from swd_jax._arguments import hashable, schedule_probes, validation

Sparsity: TypeAlias = validation.Number | optax.Schedule
"""The fraction of weights to prune, in [0, 1), or a schedule of it."""

# Steps at which a schedule must agree for its value to count as settled.
_LATE_STEPS = (2**29, 2**30, 2**31 - 1)
# Of a schedule's float32.
_ROUNDING = 1e-6


def as_sparsity(sparsity: Any, *, name: str = "sparsity") -> Sparsity:
    """Check a user's sparsity and make it hashable. Idempotent.

    Args:
      sparsity: a number or a schedule.
      name: what to call it in an error.

    Returns:
      A NumPy scalar for a concrete array, which prints as the same decimal; anything
      else, a tracer too, as it was given.

    Raises:
      ValueError: if a number, or a value of a schedule that settles, is not in
        [0, 1).

    Warns:
      UserWarning: if a schedule that settles falls.
    """
    validation.check_schedule(name, sparsity)
    number = validation.as_decimal(
        name,
        validation.value_at_step(sparsity, 0),
        expected="a number in [0, 1) or a schedule of the step",
    )
    if number is not None and not 0 <= number < 1:
        raise ValueError(
            f"{name}, the fraction of weights to prune, must be in [0, 1), got "
            f"{validation.describe(sparsity)}{validation.percentage_hint(number)}"
        )
    _check_probes(name, schedule_probes.probe(sparsity))
    return hashable.hashable_number(sparsity)


def _check_probes(name: str, probed: list[tuple[int, float]]) -> None:
    """Raise or warn if values of a schedule leave the range, or fall."""
    for step, value in probed:
        if not -_ROUNDING <= value < 1:
            raise ValueError(
                f"{name}, the fraction of weights to prune, must be in [0, 1), got a "
                f"schedule that is {value:.6g} at step {step:,}"
                f"{validation.percentage_hint(Fraction(probed[-1][1]))}"
            )
    for (_, before), (step, value) in itertools.pairwise(probed):
        if value < before - _ROUNDING:
            warnings.warn(
                f"The sparsity's schedule falls from {before:.6g} to {value:.6g} by "
                f"step {step:,}, and settles on {probed[-1][1]:.6g}: weights that were "
                "pruned come back, and prune uses the final value.",
                stacklevel=5,
            )
            return


def sparsity_at(sparsity: Sparsity, step: ArrayLike | None) -> Fraction | jax.Array:
    """Evaluate the sparsity at a step.

    Args:
      sparsity: a number or a schedule.
      step: the optimizer step; None for the value on which a schedule has settled.

    Returns:
      A `Fraction`, or a float32 array of shape () if the value is traced.

    Raises:
      ValueError: for a schedule that has not settled, if there is no step.
    """
    if not callable(sparsity):
        exact = validation.as_decimal("sparsity", sparsity)
        return exact if exact is not None else jnp.asarray(sparsity, jnp.float32)
    if step is not None:
        # Steps of the library itself are arrays, which a check would wait for.
        if not isinstance(step, jax.Array):
            validation.as_step_count("step", step, minimum=0)
        value = validation.value_at_step(sparsity, step)
    else:
        value = settled_value("sparsity", sparsity)
    if isinstance(value, Tracer):
        return jnp.asarray(value, jnp.float32)
    # With NumPy, since jax.numpy would trace a known value while a caller is traced.
    return exact_counts.nearest_decimal(float(np.float32(np.asarray(value))))


def settled_value(name: str, schedule: Callable[..., Any]) -> Any:
    """Evaluate a schedule at steps so late that it no longer changes.

    Args:
      name: the argument's name, for the error.
      schedule: a function of the optimizer step.

    Raises:
      ValueError: if the schedule still changes after half a billion steps, or cannot
        be evaluated at so late a step.
    """
    way_out = f"Give the step at which {name} is to be evaluated, as step=..."
    try:
        values = [
            np.asarray(validation.value_at_step(schedule, s)) for s in _LATE_STEPS
        ]
    except Exception as error:
        raise ValueError(
            f"{name} is a schedule whose final value cannot be found: {error} {way_out}"
        ) from error
    if any(value != values[0] for value in values):
        raise ValueError(
            f"{name} is a schedule that never settles on a final value. {way_out}"
        )
    return values[0]
