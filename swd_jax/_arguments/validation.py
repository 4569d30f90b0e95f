"""Checks of numbers that users pass, and their exact decimal values."""

import inspect
import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.typing import ArrayLike

from swd_jax._arguments import schedule_probes
from swd_jax._arguments.short_text import shown
from swd_jax._arrays import sort_keys

# Types that jax.numpy rejects, or accepts only up to a size.
_PYTHON_NUMBERS = (int, Fraction, Decimal)

Number: TypeAlias = ArrayLike | Fraction | Decimal
"""A real number, or an array of shape () that holds one, traced or not."""


def as_decimal(name: str, value: Any, *, expected: str = "a number") -> Fraction | None:
    """Return the exact value of the decimal that a number prints as.

    0.29 is 29/100, both as a Python float and in float32, though neither type holds it
    exactly.

    Args:
      name: the argument's name, for the error.
      value: the argument.
      expected: what the argument may be, for the error.

    Returns:
      The value; None if it is traced.

    Raises:
      ValueError: if it is not a finite real number.
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
        raise ValueError(
            f"{name} must be {expected}, got {shown(value)}{_number_in(value)}"
        )
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {shown(value)}")
    return Fraction(str(number))


def _number_in(text: Any) -> str:
    """Return the advice to give the number that a string holds, "" for others."""
    if not isinstance(text, str):
        return ""
    try:
        return f", which is a string: give {float(text):g}"
    except ValueError:
        return ""


def _is_real(number: Any) -> bool:
    dtype = getattr(number, "dtype", None)
    return (
        dtype is not None
        and number.ndim == 0
        and (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer))
    )


def check_coefficient(name: str, value: Number | optax.Schedule) -> None:
    """Raise if a number, or a value of a schedule that settles, is below zero.

    Raises:
      ValueError: naming the argument. Traced values are not checked.
    """
    check_schedule(name, value)
    number = as_decimal(
        name, value_at_step(value, 0), expected="a number or a schedule of the step"
    )
    if number is not None and number < 0:
        raise ValueError(f"{name} must be at least 0, got {describe(value)}")
    probed = schedule_probes.probe(value)
    for step, probed_value in probed:
        if probed_value < 0:
            raise ValueError(
                f"{name} must be at least 0, got a schedule that is "
                f"{probed_value:.6g} at step {step:,}"
            )


def check_schedule(name: str, value: Any) -> None:
    """Raise if a callable does not take the optimizer step, and only that.

    Raises:
      ValueError: naming the argument.
    """
    reason = why_not_callable(value, 1) if callable(value) else None
    if reason is not None:
        raise ValueError(
            f"{name} must be a number or a function of the optimizer step alone, "
            f"lambda step: ..., and {shown(value)} does not take one argument: {reason}"
        )


def why_not_callable(
    function: Callable[..., Any], num_arguments: int, *names: str
) -> str | None:
    """Return why a function cannot be called so; None if it can, or nobody knows.

    Args:
      function: that of a user.
      num_arguments: the number of positional arguments.
      names: arguments by name.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    try:
        signature.bind(*[None] * num_arguments, **dict.fromkeys(names))
    except TypeError as error:
        return str(error)
    return None


def percentage_hint(number: Fraction) -> str:
    """Return what a number above 1 is as a percentage, for an error."""
    return f". Is it {float(number / 100):g}?" if 1 < number < 100 else ""


def check_bool(name: str, value: Any) -> None:
    """Raise if a value is neither True nor False."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")


def check_seed(seed: Any) -> None:
    """Raise if a seed is not a whole number."""
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool):
        raise ValueError(f"seed must be a whole number, got {shown(seed)}")


def check_optimizer(optimizer: Any) -> None:
    """Raise if a value is no transformation of optax."""
    if not isinstance(optimizer, optax.GradientTransformation):
        raise ValueError(
            "optimizer must be a transformation, such as optax.adam(1e-3), got "
            f"{shown(optimizer)}"
        )


def coefficient_at(value: Number | optax.Schedule, step: ArrayLike) -> jax.Array:
    """Return a number's or a schedule's value as an array of at least float32."""
    number = value_at_step(value, step)
    number = jnp.asarray(
        float(number) if isinstance(number, _PYTHON_NUMBERS) else number
    )
    return number.astype(sort_keys.score_dtype(number.dtype))


def value_at_step(value: Any, step: ArrayLike) -> Any:
    """Return a schedule's value at a step, and a number unchanged."""
    if not callable(value):
        return value
    if isinstance(step, Tracer):
        return value(step)
    # A concrete step gives a concrete value, also while a caller is traced.
    with schedule_probes.known_values():
        return value(jnp.asarray(step))


def describe(value: Any) -> str:
    """Return a number, or a schedule's value at step 0, for an error message."""
    if callable(value):
        return f"a schedule that starts at {value_at_step(value, 0)}"
    return shown(value)


def as_factor(name: str, value: Any) -> ArrayLike | None:
    """Return a factor as a float, or as it is if it is traced; None for 1.

    Raises:
      ValueError: if it is below zero, naming the argument.
    """
    number = as_decimal(name, value)
    if number is None:
        return value
    if number < 0:
        raise ValueError(f"{name} must be at least 0, got {shown(value)}")
    return None if number == 1 else float(number)


MAX_STEPS = 2**31 - 1
"""The largest count of steps that `optax.safe_increment` gives."""


def as_step_count(name: str, value: Any, *, minimum: int) -> Any:
    """Return a number of steps as an int, or as it is if it is traced.

    Whole floats are numbers of steps too: 1e4.

    Raises:
      ValueError: if it is not a whole number of at least `minimum` and at most
        `MAX_STEPS`, naming the argument. Traced values are not checked.
    """
    is_bool = isinstance(value, bool)
    expected = f"a whole number of at least {minimum}"
    number = None if is_bool else as_decimal(name, value, expected=expected)
    is_wrong = number is not None and (number.denominator != 1 or number < minimum)
    if is_bool or is_wrong:
        raise ValueError(f"{name} must be {expected}, got {shown(value)}")
    if number is not None and number > MAX_STEPS:
        raise ValueError(
            f"{name} must be at most {MAX_STEPS}, got {shown(value)}: optimizers count "
            "their steps in int32, and stop there"
        )
    return value if number is None else int(number)


def refuse_traced(name: str, value: Any) -> None:
    """Raise if a number is traced that the program itself depends on.

    Raises:
      ValueError: naming the argument.
    """
    if isinstance(value, Tracer):
        raise ValueError(
            f"{name} is traced, and must be known beforehand: with "
            "inject_hyperparams, name it among the static_args"
        )


def check_end(begin: Any, end: Any) -> None:
    """Raise if `end` is not a whole number of steps that is greater than `begin`.

    Raises:
      ValueError: naming both. Traced values are not checked.
    """
    end = as_step_count("end", end, minimum=1)
    if not isinstance(begin, Tracer) and not isinstance(end, Tracer) and end <= begin:
        raise ValueError(f"end must be a step after begin, {begin}, got {end}")


def as_tolerance(tolerance: Any) -> Fraction:
    """Return the exact value of a tolerance; 0 for None.

    Raises:
      ValueError: if it is not a fraction in [0, 1), or traced.
    """
    refuse_traced("tolerance", tolerance)
    expected = "a number in [0, 1)"
    number = (
        Fraction(0)
        if tolerance is None
        else as_decimal("tolerance", tolerance, expected=expected)
    )
    if number is None or not 0 <= number < 1:
        raise ValueError(f"tolerance must be {expected}, got {shown(tolerance)}")
    return number


def as_min_kept(
    name: str, value: Any, *, item_name: str, whole_name: str
) -> int | Fraction:
    """Return a number of items to keep at least, or a fraction of all items below 1.

    Args:
      name: the argument's name, for the error.
      value: the argument.
      item_name: the items in the plural ("weights"), for the error.
      whole_name: the thing that has the items ("leaf"), for the error.

    Raises:
      ValueError: if the value is neither.
    """
    expected = (
        f"a number of {item_name}, 0 or more, or a fraction of a {whole_name} below 1"
    )
    exact = as_decimal(name, value, expected=expected)
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if exact is not None and exact >= 0 and is_integer:
        return int(value)
    if exact is not None and 0 <= exact < 1:
        return exact
    raise ValueError(f"{name} must be {expected}, got {shown(value)}")
