"""The target sparsity: checked, read as a decimal, turned into an exact count."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.typing import ArrayLike

from swd_jax._arguments import validation
from swd_jax._arrays import uint64

Sparsity: TypeAlias = validation.Number | optax.Schedule
"""The fraction of weights to prune, in [0, 1), or a schedule of it."""

# A schedule's value is a float32; seven places are what it can tell apart near 1.
_PLACES = 10**7
_LATE_STEPS = (2**29, 2**30, 2**31 - 1)


def check_sparsity(sparsity: Any) -> None:
    """Raise if a number, or a schedule's value at step 0, is not in [0, 1)."""
    number = validation.as_decimal("sparsity", validation.at_step(sparsity, 0))
    if number is not None and not 0 <= number < 1:
        raise ValueError(
            "sparsity, the fraction of weights to prune, must be in [0, 1), got "
            f"{validation.value_of(sparsity)}"
        )


def sparsity_at(sparsity: Any, step: ArrayLike | None) -> Fraction | jax.Array:
    """The sparsity in force at a step.

    Args:
      sparsity: a number or a schedule.
      step: the optimizer step; None for the value on which a schedule has settled.

    Returns:
      A `Fraction`, or an array for what is traced and so unknown yet.

    Raises:
      ValueError: for a schedule that has not settled, if there is no step.
    """
    if not callable(sparsity):
        exact = validation.as_decimal("sparsity", sparsity)
        return jnp.asarray(sparsity, jnp.float32) if exact is None else exact
    if step is not None:
        value = validation.at_step(sparsity, step)
    else:
        value = settled_value("sparsity", sparsity)
    value = jnp.asarray(value, jnp.float32)
    return value if isinstance(value, Tracer) else _as_fraction(float(value))


def _as_fraction(value: float) -> Fraction:
    """What `pruned_count` reads a traced float32 as, of a known one."""
    inside = min(value, 1.0) if value > 0 else 0.0
    binary = round(inside * (1 << 24))
    return Fraction((binary * _PLACES + (1 << 23)) >> 24, _PLACES)


def settled_value(name: str, schedule: Callable[..., Any]) -> Any:
    """The value that a schedule keeps in the end.

    Raises:
      ValueError: if the schedule still changes after half a billion steps, or cannot
        be asked for so late a step.
    """
    way_out = f"Give the step at which {name} is wanted, as step=..."
    try:
        values = [np.asarray(validation.at_step(schedule, s)) for s in _LATE_STEPS]
    except Exception as error:
        raise ValueError(
            f"{name} is a schedule whose final value cannot be found: {error} {way_out}"
        ) from error
    if any(value != values[0] for value in values):
        raise ValueError(
            f"{name} is a schedule that never settles on a final value. {way_out}"
        )
    return values[0]


def pruned_count(sparsity: Fraction | jax.Array, weights: int) -> jax.Array:
    """k = floor(s n) as a wide number, in integer arithmetic.

    Args:
      sparsity: an exact fraction, or an array (traced or not) that is read as the
        decimal of seven places nearest to it, and as 0 or 1 beyond these.
      weights: n, how many weights are ranked together.

    Returns:
      k, never more than n - 1: one weight is always kept.
    """
    if isinstance(sparsity, Fraction):
        return jnp.asarray(uint64.from_int(known_count(sparsity, weights)))
    value = jnp.where(sparsity > 0, jnp.minimum(sparsity, 1), 0)
    # Times 2**24 is exact, and so is all that follows.
    binary = uint64.from_uint32(jnp.round(value * (1 << 24)).astype(jnp.uint32))
    half = jnp.asarray(uint64.from_int(1 << 23))
    decimal = uint64.add(uint64.multiply(binary, _PLACES), half)
    decimal = uint64.divide(uint64.divide(decimal, 1 << 12), 1 << 12)
    count = uint64.multiply(decimal, weights)
    count = uint64.divide(uint64.divide(count, 10**4), 10**3)
    return uint64.minimum(count, jnp.asarray(uint64.from_int(max(weights - 1, 0))))


def known_count(sparsity: Fraction, weights: int) -> int:
    """The same for a sparsity that is known."""
    return min(int(sparsity * weights), max(weights - 1, 0))


def as_sparsity(s):
    return s
