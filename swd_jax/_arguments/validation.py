"""Reading numbers that users give: exact decimals, and clear words about bad ones."""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.typing import ArrayLike

from swd_jax._arrays import sort_keys

# What JAX does not take, or not at every size.
_EXACT = (int, Fraction, Decimal)

Number: TypeAlias = ArrayLike | Fraction | Decimal
"""A real number; an array of no dimensions, traced or not, is one."""


def as_decimal(name: str, value: Any) -> Fraction | None:
    """The exact value of the decimal that a number prints as.

    0.29 is 29/100, as a Python float as well as in float32, though neither type holds
    it exactly.

    Args:
      name: the argument's name, for the error.
      value: what the user gave.

    Returns:
      The value, or None for one that is traced and so unknown yet.

    Raises:
      ValueError: if it is no finite real number.
    """
    if isinstance(value, Fraction | int) and not isinstance(value, bool):
        return Fraction(value)
    try:
        number = value if isinstance(value, Decimal) else np.asarray(value)[()]
    except jax.errors.TracerArrayConversionError:
        return None
    except (TypeError, ValueError):
        number = value
    if not (isinstance(number, Decimal) or _is_real(number)):
        raise ValueError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return Fraction(str(number))


def _is_real(number: Any) -> bool:
    dtype = getattr(number, "dtype", None)
    return (
        dtype is not None
        and number.ndim == 0
        and (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer))
    )


def check_coefficient(name: str, value: Number | optax.Schedule) -> None:
    """Raise if a number, or a schedule's value at step 0, is not at least zero."""
    number = as_decimal(name, at_step(value, 0))
    if number is not None and number < 0:
        raise ValueError(f"{name} must be at least 0, got {value_of(value)}")


def coefficient_at(value: Number | optax.Schedule, step: ArrayLike) -> jax.Array:
    """A number's or a schedule's value, in float32 at least."""
    number = at_step(value, step)
    number = jnp.asarray(float(number) if isinstance(number, _EXACT) else number)
    return number.astype(sort_keys.score_dtype(number.dtype))


def at_step(value: Any, step: ArrayLike) -> Any:
    """A schedule's value at a step; a number as it is."""
    if not callable(value):
        return value
    if isinstance(step, Tracer):
        return value(step)
    # Known steps give known values, also while something else is being traced.
    with jax.ensure_compile_time_eval():
        return value(jnp.asarray(step))


def value_of(value: Any) -> str:
    """A number or a schedule with its value at step 0, for an error message."""
    if callable(value):
        return f"a schedule that starts at {at_step(value, 0)}"
    return repr(value)


def check_step_count(name: str, value: Any, *, least: int) -> None:
    """Raise if a number of steps is known and is not a whole number from `least` on."""
    number = None if isinstance(value, bool) else as_decimal(name, value)
    if isinstance(value, bool) or (
        number is not None and (number.denominator != 1 or number < least)
    ):
        raise ValueError(
            f"{name} must be a whole number of at least {least}, got {value!r}"
        )


def as_floor(name: str, value: Any, *, counted: str, of: str) -> int | Fraction:
    """What is kept at least: a number of things, or a fraction of all below 1.

    Raises:
      ValueError: if it is neither.
    """
    exact = as_decimal(name, value)
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if exact is not None and exact >= 0 and whole:
        return int(value)
    if exact is not None and 0 <= exact < 1:
        return exact
    raise ValueError(
        f"{name} must be a number of {counted}, 0 or more, or a fraction of a {of} "
        f"below 1, got {value!r}"
    )
