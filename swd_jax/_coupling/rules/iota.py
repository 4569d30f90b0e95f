"""Rule for iota, whose values change along one axis only."""

from typing import Any

from jax import lax

from swd_jax._coupling import axis_labels, type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CouplingAnalysis
from swd_jax._coupling.rules.rule_interface import Evaluator, Rule, Step, param


def _label_iota(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> Labels:
    del analysis, inputs
    labels = axis_labels.broadcast_labels(param(equation, "shape"))
    return labels.replace(
        broadcast_axes=labels.broadcast_axes - {param(equation, "dimension")}
    )


def _run_iota(evaluator: Evaluator, step: Step, values: list[Any]) -> Any:
    del evaluator, values
    counted = param(step.equation, "dimension")
    sizes = [
        size if dim == counted else 1
        for dim, size in enumerate(param(step.equation, "shape"))
    ]
    return lax.broadcasted_iota(param(step.equation, "dtype"), sizes, counted)


RULES = {"iota": Rule(_label_iota, _run_iota)}
