"""Rules for sort and top_k."""

from typing import Any

from swd_jax._coupling import type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CouplingAnalysis
from swd_jax._coupling.rules.along_axis import label_along, run_along
from swd_jax._coupling.rules.rule_interface import Evaluator, Rule, Step, param


def _label_sort(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> list[Labels]:
    return label_along(analysis, equation, inputs, [param(equation, "dimension")])


def _run_sort(evaluator: Evaluator, step: Step, values: list[Any]) -> Any:
    """Sort all operands by the first ones; the primitive needs them in one shape."""
    result = step.outputs[0]
    operands = [
        evaluator.broadcast_to_full(
            value, labels, sorted(labels.broadcast_axes - result.broadcast_axes)
        )
        for value, labels in zip(values, step.inputs, strict=True)
    ]
    return run_along(evaluator, step, operands, [param(step.equation, "dimension")])


def _label_top_k(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> list[Labels]:
    values, indices = label_along(analysis, equation, inputs, [inputs[0].rank - 1])
    return [values, indices.replace(removed_values={})]


def _run_top_k(evaluator: Evaluator, step: Step, values: list[Any]) -> Any:
    return run_along(evaluator, step, values, [step.inputs[0].rank - 1])


RULES = {
    "sort": Rule(_label_sort, _run_sort),
    "top_k": Rule(_label_top_k, _run_top_k),
}
