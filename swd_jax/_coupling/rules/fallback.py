"""Equations that no rule supports: everything that they read is frozen."""

from typing import Any

from swd_jax._coupling import axis_labels, type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CouplingAnalysis
from swd_jax._coupling.label_operations import freeze_atoms
from swd_jax._coupling.rules.rule_interface import Evaluator, Step, bind


def label_unsupported(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> list[Labels]:
    """Freeze all axes of the operands; the results have fixed sizes."""
    for labels in inputs:
        freeze_atoms(analysis, labels, "read by an operation that is not supported")
    depends_on_input = any(labels.depends_on_input for labels in inputs)
    return [
        axis_labels.fixed_size_labels(
            getattr(variable.aval, "shape", ()), depends_on_input=depends_on_input
        )
        for variable in equation.outvars
    ]


def run_unsupported(evaluator: Evaluator, step: Step, values: list[Any]) -> Any:
    """Run the equation at the full size of all its operands."""
    full = [
        evaluator.broadcast_to_full(value, labels, range(labels.rank))
        for value, labels in zip(values, step.inputs, strict=True)
    ]
    return bind(step.equation, *full)
