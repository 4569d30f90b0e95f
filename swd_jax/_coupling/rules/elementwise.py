"""Rules for elementwise operations: the operands' positions are united."""

from typing import Any

import numpy as np
from jax.extend.core import Literal

from swd_jax._coupling import axis_labels, type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import BIAS, OTHER, SCALE, CouplingAnalysis
from swd_jax._coupling.label_operations import broadcast_axes_to, merge_elementwise
from swd_jax._coupling.rules.rule_interface import (
    Evaluator,
    Rule,
    Step,
    UnsupportedPrimitive,
    bind,
    param,
    result_shape,
)
from swd_jax._coupling.rules.shared_operations import broadcast_operands

# f(0) = 0.
_ZERO_PRESERVING = frozenset(
    """
    abs asin asinh atan atanh cbrt ceil convert_element_type copy copy_p erf erf_inv
    expm1 floor imag log1p name neg real reduce_precision round sign sin sinh sqrt
    square stop_gradient tan tanh to_edtype from_edtype pcast pvary layout_constraint
    """.split()
)
_OTHER_UNARY = frozenset(
    """
    acos acosh bessel_i0e bessel_i1e bitcast_convert_type cos cosh clz conj digamma
    erfc exp exp2 integer_pow is_finite lgamma log log2 logistic not population_count
    rsqrt one_minus_square random_wrap
    """.split()
)
_SEVERAL_OPERANDS = frozenset(
    """
    add add_any and atan2 clamp complex div eq eq_to ge gt igamma igammac le le_to lt
    lt_to max min mul ne nextafter or polynomial pow rem select_n shift_left
    shift_right_arithmetic shift_right_logical sub xor regularized_incomplete_beta
    """.split()
)

_ROLES = {"mul": SCALE, "div": SCALE, "add": BIAS, "sub": BIAS}


def _label_elementwise(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> Labels:
    shape = result_shape(equation)
    if any(labels.rank not in (0, len(shape)) for labels in inputs):
        raise UnsupportedPrimitive(
            f"{equation.primitive.name} with operands of another rank than its result"
        )
    operands = [
        broadcast_axes_to(analysis, labels, shape)
        for labels in inputs
        if labels.rank == len(shape)
    ]
    if len(inputs) > 1:
        role = _ROLES.get(equation.primitive.name, OTHER)
        for labels in inputs:
            analysis.note_role(labels, labels.labelled_axes, role)
    merged = axis_labels.broadcast_labels(shape)
    for labels in operands:
        merged = merge_elementwise(analysis, merged, labels)
    return merged.replace(
        depends_on_input=any(labels.depends_on_input for labels in inputs),
        zero_preserving=_is_zero_preserving(equation, inputs, merged),
    )


def _is_zero_preserving(
    equation: type_aliases.Equation, inputs: list[Labels], merged: Labels
) -> bool:
    """Return whether the result is 0 wherever the parameters of a channel are 0."""
    name = equation.primitive.name
    operand_is_zero = [
        labels.zero_preserving and labels.labelled_axes >= merged.labelled_axes
        for labels in inputs
    ]
    if name == "mul":
        return any(operand_is_zero)
    if name in ("div", "rem"):
        return operand_is_zero[0]
    if name == "select_n":
        return all(operand_is_zero[1:])
    if name == "integer_pow":
        return operand_is_zero[0] and param(equation, "y") > 0
    if name in ("max", "min"):
        # relu: max(0, c) is 0 for a literal c <= 0.
        keeps_zero = np.less_equal if name == "max" else np.greater_equal
        return any(operand_is_zero) and all(
            is_zero or (isinstance(atom, Literal) and bool(keeps_zero(atom.val, 0)))
            for is_zero, atom in zip(operand_is_zero, equation.invars, strict=True)
        )
    if name in ("add", "add_any", "sub") or name in _ZERO_PRESERVING:
        return all(operand_is_zero)
    return False


def _run_elementwise(evaluator: Evaluator, step: Step, values: list[Any]) -> Any:
    del evaluator
    return bind(step.equation, *broadcast_operands(values))


def _label_identity(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> list[Labels]:
    del analysis, equation
    return [labels.replace() for labels in inputs]


def _run_identity(evaluator: Evaluator, step: Step, values: list[Any]) -> list[Any]:
    """Return the operands: a sharding of the full size may not divide a smaller one."""
    del evaluator, step
    return values


RULES = {
    **dict.fromkeys(
        _ZERO_PRESERVING | _OTHER_UNARY | _SEVERAL_OPERANDS,
        Rule(_label_elementwise, _run_elementwise),
    ),
    **dict.fromkeys(
        "optimization_barrier sharding_constraint device_put".split(),
        Rule(_label_identity, _run_identity),
    ),
}
