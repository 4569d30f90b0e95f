"""Operations that combine positions along an axis and keep the axis.

Pooling, running sums and sorting share these two functions.
"""

from collections.abc import Sequence
from typing import Any

from swd_jax._coupling import type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CouplingAnalysis
from swd_jax._coupling.label_operations import freeze_axes, merge_elementwise
from swd_jax._coupling.rules.removed_values import combined_value, joined_values
from swd_jax._coupling.rules.rule_interface import Evaluator, Step, bind, result_shape


def label_along(
    analysis: CouplingAnalysis,
    equation: type_aliases.Equation,
    inputs: list[Labels],
    dims: Sequence[int],
) -> list[Labels]:
    """Freeze the axes that are combined; unite all operands along the others."""
    operands = [
        freeze_axes(analysis, labels, "combined along its channels", dims)
        for labels in inputs
        if labels.rank
    ]
    merged = operands[0]
    for labels in operands[1:]:
        merged = merge_elementwise(analysis, merged, labels)
    values = joined_values(operands, merged.labelled_axes)
    result = merged.replace(
        shape=result_shape(equation),
        blocks={
            key: ids for key, ids in merged.blocks.items() if not set(key) & set(dims)
        },
        depends_on_input=any(labels.depends_on_input for labels in operands),
        removed_values={
            dim: new
            for dim, value in values.items()
            if (new := combined_value(equation.primitive.name, value)) is not None
        },
        uniform_value=None,
    )
    return [result] * len(equation.outvars)


def run_along(
    evaluator: Evaluator, step: Step, values: list[Any], dims: Sequence[int]
) -> Any:
    """Run the equation with the combined axes at full size."""
    full = [
        evaluator.broadcast_to_full(value, labels, dims) if labels.rank else value
        for value, labels in zip(values, step.inputs, strict=True)
    ]
    return bind(step.equation, *full)
