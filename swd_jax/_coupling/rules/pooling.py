"""Rules for reduce_window: max and average pooling."""

from typing import Any

from swd_jax._coupling import type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CouplingAnalysis
from swd_jax._coupling.rules.along_axis import label_along, run_along
from swd_jax._coupling.rules.rule_interface import Evaluator, Rule, Step, param


def _pooled_axes(equation: type_aliases.Equation) -> list[int]:
    """Return the axes along which a window covers several positions, or padding."""
    columns = [
        param(equation, name)
        for name in (
            "window_dimensions",
            "window_strides",
            "base_dilation",
            "window_dilation",
            "padding",
        )
    ]
    return [
        dim
        for dim, (*sizes, padding) in enumerate(zip(*columns, strict=True))
        if (*sizes, *padding) != (1, 1, 1, 1, 0, 0)
    ]


def _label_pool(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> list[Labels]:
    return label_along(analysis, equation, inputs, _pooled_axes(equation))


def _run_pool(evaluator: Evaluator, step: Step, values: list[Any]) -> Any:
    return run_along(evaluator, step, values, _pooled_axes(step.equation))


RULES = dict.fromkeys(
    "reduce_window_max reduce_window_min reduce_window_sum reduce_window".split(),
    Rule(_label_pool, _run_pool),
)
