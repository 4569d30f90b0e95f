"""Rules for running sums, products, maxima and minima along an axis."""

from typing import Any

from swd_jax._coupling import type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CouplingAnalysis
from swd_jax._coupling.rules.along_axis import label_along, run_along
from swd_jax._coupling.rules.rule_interface import Evaluator, Rule, Step, param


def _label_running(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> list[Labels]:
    return label_along(analysis, equation, inputs, [param(equation, "axis")])


def _run_running(evaluator: Evaluator, step: Step, values: list[Any]) -> Any:
    return run_along(evaluator, step, values, [param(step.equation, "axis")])


RULES = dict.fromkeys(
    "cumsum cumprod cummax cummin cumlogsumexp".split(),
    Rule(_label_running, _run_running),
)
