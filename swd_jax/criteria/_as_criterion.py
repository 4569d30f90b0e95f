"""Conversion of a user's criterion: a name, a plain function, or a `Criterion`."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax

from swd_jax._arguments.short_text import shown
from swd_jax._arrays import tree_paths
from swd_jax.criteria._criterion import Criterion
from swd_jax.criteria._gradient_criteria import (
    fisher,
    mean_saliency,
    movement,
    saliency,
)
from swd_jax.criteria._lamp import lamp
from swd_jax.criteria._magnitudes import (
    magnitude,
    normalized_magnitude,
    rms_normalized_magnitude,
)
from swd_jax.criteria._random import random_scores

_BY_NAME = {
    criterion.name: criterion
    for criterion in (
        magnitude,
        normalized_magnitude,
        rms_normalized_magnitude,
        lamp,
        saliency,
        movement,
        fisher,
    )
}


def as_criterion(criterion: Criterion | Callable[..., Any] | str | Any) -> Criterion:
    """Convert a user's criterion. Idempotent.

    Args:
      criterion: a criterion, the name of one, or a function of the weights and of extra
        arguments, whose scores may have either sign.

    Raises:
      ValueError: for anything else, a function that is not hashable, or one whose
        parameters are not a known number of names.
    """
    if isinstance(criterion, Criterion):
        return criterion
    for function in (mean_saliency, random_scores):
        if criterion is function:
            raise ValueError(
                f"criterion is the function {function.__name__}, and must be what it "
                f"returns: swd_jax.criteria.{function.__name__}(...)"
            )
    if isinstance(criterion, str) and criterion in _BY_NAME:
        return _BY_NAME[criterion]
    if callable(criterion):
        return _from_function(criterion)
    raise ValueError(
        f"criterion must be {', '.join(map(repr, _BY_NAME))}, another one of "
        "swd_jax.criteria, or a function of the weights, got "
        f"{shown(criterion)}"
    )


def _from_function(function: Callable[..., Any]) -> Criterion:
    name = getattr(function, "__name__", type(function).__name__)
    try:
        hash(function)
    except TypeError as error:
        raise ValueError(
            f"criterion {name!r} must be hashable, since it is a static argument of "
            f"compiled functions, and is not: {error}. Give a function that is defined "
            "once, or a callable frozen dataclass without arrays"
        ) from error
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    required = [p for p in parameters if p.default is p.empty]
    variadic = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)
    if not required or variadic:
        raise ValueError(
            f"criterion {name!r} must be a function of the weights, such as "
            "lambda weights: ..., or of weights and extra arguments by name, such as "
            "lambda weights, gradient: ..."
        )
    extra_args = tuple(p.name for p in required[1:])
    return Criterion(
        name, _FunctionScore(name, function), extra_args=extra_args, signed=True
    )


@dataclasses.dataclass(frozen=True)
class _FunctionScore:
    """The score of a plain function. Equal functions give equal scores."""

    name: str
    function: Callable[..., Any]

    def __call__(
        self, weights: jax.Array, statistic: None, **inputs: jax.Array
    ) -> jax.Array:
        del statistic
        values = self.function(weights, **inputs)
        is_array = tree_paths.is_array(values)
        if not is_array or values.shape != weights.shape:
            given = f"the shape {values.shape}" if is_array else shown(values)
            raise ValueError(
                f"criterion {self.name!r} must give scores in the shape of the "
                f"weights, {weights.shape}, and gave {given}"
            )
        return values.astype(weights.dtype)
