"""Values that an operation gives at the positions of removed channels.

The whole model with a removed channel's parameters at zero must compute what the
smaller model does. A sum over channels ignores the removed one if one factor is 0 there
and the other factor is finite: 0 / 0 in a layer that divides its weights by their norm
makes the sum NaN. So the labels carry the value at removed positions as far as it is a
constant, and the functions here compute the value after an operation.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from swd_jax._coupling import type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CouplingAnalysis
from swd_jax._coupling.rules.rule_interface import bind, param


def _identity(x: Any) -> Any:
    return x


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(
        """
        convert_element_type copy copy_p name reduce_precision pcast pvary
        layout_constraint stop_gradient conj real
        """.split(),
        _identity,
    ),
    **{
        name: getattr(np, name)
        for name in """
        abs ceil cos cosh exp exp2 expm1 floor log log1p log2 sign sin sinh sqrt square
        tan tanh
        """.split()
    },
    "acos": np.arccos,
    "acosh": np.arccosh,
    "add": np.add,
    "add_any": np.add,
    "asin": np.arcsin,
    "asinh": np.arcsinh,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "atanh": np.arctanh,
    "cbrt": np.cbrt,
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
    "div": np.true_divide,
    "eq": np.equal,
    "erf": math.erf,
    "erfc": math.erfc,
    "ge": np.greater_equal,
    "gt": np.greater,
    "imag": np.zeros_like,
    "is_finite": np.isfinite,
    "le": np.less_equal,
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "neg": np.negative,
    "pow": np.power,
    "rem": np.fmod,
    "round": np.round,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "select_n": lambda which, *cases: cases[int(which)],
    "sub": np.subtract,
}
"""Functions of real numbers; other primitives compute the value themselves."""


def elementwise_labels(
    equation: type_aliases.Equation,
    operands: Sequence[Labels],
    merged: Labels,
    position: str,
) -> Labels:
    """Return `merged` with the values that an elementwise operation gives.

    Args:
      equation: the operation.
      operands: the labels of its operands: scalars, or of the shape of the result.
      merged: the labels of the result.
      position: description of the operation, for `not_finite_at`.
    """
    values: dict[int, float] = {}
    not_finite_at = next((x.not_finite_at for x in operands if x.not_finite_at), "")
    for dim in merged.labelled_axes:
        of_operands = [labels.removed_value(dim) for labels in operands]
        is_removed = [labels.block_key(dim) is not None for labels in operands]
        value = _elementwise_value(equation, of_operands, is_removed)
        if value is not None:
            values[dim] = value
            if not math.isfinite(value):
                not_finite_at = not_finite_at or position
    uniform = [labels.uniform_value for labels in operands]
    return merged.replace(
        removed_values=values,
        uniform_value=None
        if any(value is None for value in uniform)
        else _evaluate(equation, uniform),
        not_finite_at=not_finite_at,
    )


def _elementwise_value(
    equation: type_aliases.Equation,
    values: Sequence[float | None],
    is_removed: Sequence[bool],
) -> float | None:
    """Return the result's value from the operands', where they are known.

    An operand that is not known is taken to be finite and not 0.
    """
    name = equation.primitive.name
    if not any(value is None for value in values):
        return _evaluate(equation, values)
    not_finite = any(map(_spoils, values, is_removed))
    first, *rest = values
    if name in ("div", "rem") and rest == [0]:
        return math.nan
    if name == "select_n":
        if first is not None:
            return rest[int(first)]
        return _join_values(zip(rest, is_removed[1:], strict=True))
    if not_finite:
        return math.nan
    if name in ("mul", "and") and 0 in values:
        return 0.0
    if name in ("div", "rem") and first == 0:
        return 0.0
    if name == "pow" and rest == [0]:
        return 1.0
    return None


def _spoils(value: float | None, is_removed: bool) -> bool:
    """Whether a value is not finite because the channel's parameters are 0.

    A literal that is infinite, as in the mask of an attention, is so at the kept
    positions too.
    """
    return is_removed and value is not None and not math.isfinite(value)


def _evaluate(equation: type_aliases.Equation, values: Sequence[Any]) -> float | None:
    """Compute an elementwise operation on one number of each operand."""
    name, dtype = equation.primitive.name, equation.outvars[0].aval.dtype
    if not isinstance(dtype, np.dtype):
        return None  # of random keys
    function = _FUNCTIONS.get(name)
    with np.errstate(all="ignore"):
        try:
            if name == "integer_pow":
                result = np.float64(values[0]) ** param(equation, "y")
            elif function is not None:
                result = function(*map(np.float64, values))
            else:
                result = _run(equation, values)
            result = np.asarray(result)
            if not np.isfinite(result):
                return math.nan if np.isnan(result) else math.copysign(math.inf, result)
            if np.iscomplexobj(result) or dtype.kind == "c":
                return 0.0 if result == 0 else None
            return float(result.astype(dtype))
        except (ArithmeticError, ValueError):
            return math.nan


def _run(equation: type_aliases.Equation, values: Sequence[Any]) -> np.ndarray:
    dtypes = [atom.aval.dtype for atom in equation.invars]
    numbers = map(np.asarray, values, dtypes)
    with jax.ensure_compile_time_eval(), jax.debug_nans(False), jax.debug_infs(False):
        return np.asarray(bind(equation, *numbers))


def joined_value(parts: Iterable[Labels], dim: int) -> float | None:
    """Return the value at removed positions of an array that has those of all parts."""
    return _join_values(
        (labels.removed_value(dim), labels.block_key(dim) is not None)
        for labels in parts
    )


def joined_values(parts: Sequence[Labels], dims: Iterable[int]) -> dict[int, float]:
    """Return `joined_value` along several axes, where it is known."""
    values = {dim: joined_value(parts, dim) for dim in dims}
    return {dim: value for dim, value in values.items() if value is not None}


def _join_values(values: Iterable[tuple[float | None, bool]]) -> float | None:
    pairs = list(values)
    if any(_spoils(*pair) for pair in pairs):
        return math.nan
    first = pairs[0][0]
    return first if all(value == first for value, _ in pairs) else None


def joined_uniform_value(parts: Sequence[Labels]) -> float | None:
    """Return the value that all elements of all parts have."""
    first = parts[0].uniform_value
    return first if all(labels.uniform_value == first for labels in parts) else None


def reduced_value(name: str, value: float | None, count: Any) -> float | None:
    """Return what a reduction makes of `count` elements that are equal.

    Args:
      name: the primitive.
      value: the value of all elements.
      count: their number, which may be symbolic.
    """
    if value is None or name in ("argmax", "argmin"):
        return None
    if name in ("reduce_max", "reduce_min", "reduce_and", "reduce_or"):
        return value
    if name == "reduce_sum" and isinstance(count, int):
        return 0.0 if value == 0 or count == 0 else value * count
    if not math.isfinite(value):
        return math.nan
    return 0.0 if value == 0 and name in ("reduce_sum", "reduce_prod") else None


def combined_value(name: str, value: float | None) -> float | None:
    """Return what pooling, a running sum or a sort makes of equal elements."""
    if value is None or not math.isfinite(value):
        return value
    if name in (
        *("sort", "top_k", "cummax", "cummin"),
        *("reduce_window_max", "reduce_window_min"),
    ):
        return value
    is_sum = name in ("cumsum", "cumprod", "reduce_window_sum")
    return 0.0 if value == 0 and is_sum else None


def product_value(*factors: float | None) -> float | None:
    """Return the value of products, and of sums of them, with some known factors."""
    if any(value is not None and not math.isfinite(value) for value in factors):
        return math.nan
    return 0.0 if 0 in factors else None


def freeze_not_finite(
    analysis: CouplingAnalysis, labels: Labels, dims: Iterable[int]
) -> None:
    """Freeze axes along which removed channels are not finite."""
    for dim in dims:
        value, key = labels.removed_values.get(dim), labels.block_key(dim)
        if key is not None and value is not None and not math.isfinite(value):
            analysis.atoms.freeze(
                labels.blocks[key].ravel(),
                "NaN or infinite where its parameters are 0, as pruning makes them "
                f"({labels.not_finite_at})",
            )
