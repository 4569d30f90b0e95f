"""Rule for cond and switch: the results of all branches are united."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from swd_jax._coupling import type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CouplingAnalysis, Frame
from swd_jax._coupling.label_operations import merge_elementwise
from swd_jax._coupling.rules import removed_values
from swd_jax._coupling.rules.rule_interface import (
    Evaluator,
    Rule,
    Step,
    param,
    unwrap_closed_jaxpr,
)
from swd_jax._coupling.rules.shared_operations import broadcast_to_result


def _label_cond(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> list[Labels]:
    outputs = [
        analysis.call(branch, inputs[1:]) for branch in param(equation, "branches")
    ]
    return [_merge_branches(analysis, cases) for cases in zip(*outputs, strict=True)]


def _merge_branches(analysis: CouplingAnalysis, cases: Sequence[Labels]) -> Labels:
    """Return the labels of one result, from those that each branch gives it."""
    merged = cases[0]
    for labels in cases[1:]:
        merged = merge_elementwise(analysis, merged, labels)
    return merged.replace(
        depends_on_input=True,
        removed_values=removed_values.joined_values(cases, merged.labelled_axes),
        uniform_value=removed_values.joined_uniform_value(cases),
    )


def _run_cond(evaluator: Evaluator, step: Step, values: list[Any]) -> list[Any]:
    branches = [
        _branch_function(evaluator, step, branch, frame)
        for branch, frame in zip(
            param(step.equation, "branches"), step.frames, strict=True
        )
    ]
    index, *operands = values
    return lax.switch(index, branches, *operands)


def _branch_function(
    evaluator: Evaluator, step: Step, branch: Any, frame: Frame
) -> Callable[..., list[Any]]:
    """Return a branch as a function whose results have the shapes of the equation's."""
    variables = unwrap_closed_jaxpr(branch)[0].outvars
    # A literal has no labels in the frame, and needs no broadcast of its own.
    labels = [
        frame.labels.get(variable, result)
        for variable, result in zip(variables, step.outputs, strict=True)
    ]
    dtypes = [variable.aval.dtype for variable in step.equation.outvars]

    def function(*operands: Any) -> list[Any]:
        outputs = evaluator.run(branch, frame, operands)
        return [
            broadcast_to_result(
                evaluator, jnp.asarray(value, dtype), own_labels, result
            )
            for value, dtype, own_labels, result in zip(
                outputs, dtypes, labels, step.outputs, strict=True
            )
        ]

    return function


RULES = {"cond": Rule(_label_cond, _run_cond)}
