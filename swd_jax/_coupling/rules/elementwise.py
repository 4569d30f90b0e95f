"""Rules for elementwise operations: the operands' positions are united."""

from typing import Any

from swd_jax._coupling import axis_labels, type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import BIAS, OTHER, SCALE, CouplingAnalysis
from swd_jax._coupling.label_operations import broadcast_axes_to, merge_elementwise
from swd_jax._coupling.rules import removed_values
from swd_jax._coupling.rules.rule_interface import (
    Evaluator,
    Rule,
    Step,
    UnsupportedPrimitive,
    bind,
    result_shape,
)
from swd_jax._coupling.rules.shared_operations import broadcast_operands

_ONE_OPERAND = frozenset(
    """
    abs acos acosh asin asinh atan atanh bessel_i0e bessel_i1e bitcast_convert_type cbrt
    ceil clz conj convert_element_type copy copy_p cos cosh digamma erf erf_inv erfc exp
    exp2 expm1 floor from_edtype imag integer_pow is_finite layout_constraint lgamma log
    log1p log2 logistic name neg not one_minus_square pcast population_count pvary
    random_wrap real reduce_precision round rsqrt sign sin sinh sqrt square
    stop_gradient tan tanh to_edtype
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
        broadcast_axes_to(analysis, labels, shape) if labels.rank else labels
        for labels in inputs
    ]
    if len(inputs) > 1:
        role = _ROLES.get(equation.primitive.name, OTHER)
        for labels in inputs:
            analysis.note_role(labels, labels.labelled_axes, role)
    merged = axis_labels.broadcast_labels(shape)
    for labels in operands:
        if not labels.rank:
            continue
        merged = merge_elementwise(analysis, merged, labels)
    merged = merged.replace(
        depends_on_input=any(labels.depends_on_input for labels in inputs)
    )
    return removed_values.elementwise_labels(
        equation, operands, merged, analysis.position.description
    )


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
        _ONE_OPERAND | _SEVERAL_OPERANDS,
        Rule(_label_elementwise, _run_elementwise),
    ),
    **dict.fromkeys(
        "optimization_barrier sharding_constraint reshard device_put".split(),
        Rule(_label_identity, _run_identity),
    ),
}
