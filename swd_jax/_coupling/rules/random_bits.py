"""Rule for random bits: drawn at full size, then cut to the kept positions.

A kept channel therefore gets the same random numbers, e.g. for dropout, in the smaller
program and in the whole one.
"""

from typing import Any

from swd_jax._coupling import type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CouplingAnalysis
from swd_jax._coupling.label_operations import create_blocks
from swd_jax._coupling.rules.rule_interface import (
    Evaluator,
    Rule,
    Step,
    bind,
    result_shape,
)
from swd_jax._coupling.rules.shared_operations import select_positions


def _label_random_bits(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> Labels:
    del inputs
    shape = result_shape(equation)
    dims = [dim for dim, size in enumerate(shape) if size != 1]
    return Labels(shape, create_blocks(analysis, shape, dims))


def _run_random_bits(evaluator: Evaluator, step: Step, values: list[Any]) -> Any:
    [result] = step.outputs
    bits = bind(step.equation, *values)
    for dim in range(result.rank):
        kept_mask = evaluator.kept_positions(result, dim)
        if not kept_mask.all():
            bits = select_positions(bits, kept_mask, dim)
    return bits


RULES = {"random_bits": Rule(_label_random_bits, _run_random_bits)}
