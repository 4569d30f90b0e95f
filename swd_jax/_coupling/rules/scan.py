"""Rule for scan: a channel is the same one in every step."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from swd_jax._coupling import type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CouplingAnalysis
from swd_jax._coupling.label_operations import (
    freeze_axes,
    give_own_atoms,
    unite_axes,
)
from swd_jax._coupling.rules.removed_values import (
    joined_uniform_value,
    joined_values,
)
from swd_jax._coupling.rules.rule_interface import Evaluator, Rule, Step, param
from swd_jax._coupling.rules.shared_operations import broadcast_to_result

_MAX_STEPS = 4
"""Number of steps whose values at removed positions are followed one by one."""


def _label_scan(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> list[Labels]:
    num_consts, num_carry = num_consts_and_carry(equation)
    length = param(equation, "length")
    depends_on_input = any(labels.depends_on_input for labels in inputs)
    consts = inputs[:num_consts]
    carry = [
        give_own_atoms(analysis, labels).replace(depends_on_input=depends_on_input)
        for labels in inputs[num_consts : num_consts + num_carry]
    ]
    slices = [
        _label_slice(analysis, labels) for labels in inputs[num_consts + num_carry :]
    ]
    body = param(equation, "jaxpr")
    with analysis.position.repeated(length):
        outputs = analysis.call(body, [*consts, *carry, *slices])
        steps = [(carry, outputs)]
        while not _has_values_of(carry, outputs):
            # The next step starts with other values at removed positions.
            is_last = len(steps) >= _MAX_STEPS
            carry = [
                _with_values_of(before, [before, after] if is_last else [after])
                for before, after in zip(carry, outputs[:num_carry], strict=True)
            ]
            outputs = analysis.call_again(body, [*consts, *carry, *slices])
            steps.append((carry, outputs))
    results: list[Labels] = []
    for number in range(num_carry):
        before, after = carry[number], outputs[number]
        dims = range(before.rank)
        result, _ = unite_axes(analysis, before, dims, after, dims)
        at_all_steps = [labels[number] for step in steps for labels in step]
        results.append(_with_values_of(result, at_all_steps))
    for number in range(num_carry, len(outputs)):
        labels = _with_values_of(outputs[number], [step[1][number] for step in steps])
        stacked = labels.move_axes(
            {dim: dim + 1 for dim in range(labels.rank)}, (length, *labels.shape)
        )
        results.append(stacked.replace(broadcast_axes=stacked.broadcast_axes - {0}))
    return results


def _has_values_of(carry: list[Labels], outputs: list[Labels]) -> bool:
    """Return whether a step ends with the values at removed positions it began with."""
    return all(
        _is_equal(value, after.removed_value(dim))
        for before, after in zip(carry, outputs, strict=False)
        for dim, value in before.removed_values.items()
    )


def _is_equal(value: float, other: float | None) -> bool:
    return other is not None and np.array_equal(value, other, equal_nan=True)


def _with_values_of(labels: Labels, parts: Sequence[Labels]) -> Labels:
    """Return labels with the values at removed positions that all parts have."""
    return labels.replace(
        removed_values=joined_values(parts, labels.labelled_axes),
        uniform_value=joined_uniform_value(parts),
        not_finite_at=next((x.not_finite_at for x in parts if x.not_finite_at), ""),
    )


def num_consts_and_carry(equation: type_aliases.Equation) -> tuple[int, int]:
    """Return how many of the operands are constants, and how many are carried."""
    if "num_consts" in equation.params:
        return equation.params["num_consts"], param(equation, "num_carry")
    # jax 0.12 replaced both numbers by a tree of the operands.
    consts, carry, _ = param(equation, "ft_in").update(equation.invars).unpack()
    return len(list(consts)), len(list(carry))


def _label_slice(analysis: CouplingAnalysis, labels: Labels) -> Labels:
    """Return the labels of the slice along the first axis that one step reads."""
    labels = freeze_axes(analysis, labels, "stacked for a scan", [0])
    new_dims = {dim: dim - 1 for dim in range(1, labels.rank)}
    return labels.move_axes(new_dims, labels.shape[1:])


def _run_scan(evaluator: Evaluator, step: Step, values: list[Any]) -> list[Any]:
    equation = step.equation
    num_consts, num_carry = num_consts_and_carry(equation)
    [frame] = step.frames
    consts = values[:num_consts]
    first_slice = num_consts + num_carry
    # `lax.scan` needs a carry of one shape, so broadcast the initial one to the shape
    # of the results.
    initial = [
        broadcast_to_result(evaluator, value, labels, result)
        for value, labels, result in zip(
            values[num_consts:first_slice],
            step.inputs[num_consts:first_slice],
            step.outputs[:num_carry],
            strict=True,
        )
    ]
    stacked = [
        evaluator.broadcast_to_full(value, labels, [0])
        for value, labels in zip(
            values[first_slice:], step.inputs[first_slice:], strict=True
        )
    ]

    def body(carry: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
        outputs = evaluator.run(
            param(equation, "jaxpr"), frame, [*consts, *carry, *slices]
        )
        new_carry = [
            jnp.broadcast_to(new, jnp.shape(old))
            for new, old in zip(outputs[:num_carry], carry, strict=True)
        ]
        return new_carry, outputs[num_carry:]

    final, results = lax.scan(
        body,
        initial,
        stacked,
        length=param(equation, "length"),
        reverse=param(equation, "reverse"),
        unroll=param(equation, "unroll"),
    )
    return [*final, *results]


RULES = {"scan": Rule(_label_scan, _run_scan)}
