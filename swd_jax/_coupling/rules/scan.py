"""Rule for scan: a channel is the same one in every step."""

from typing import Any

import jax.numpy as jnp
from jax import lax

from swd_jax._coupling import type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CouplingAnalysis
from swd_jax._coupling.label_operations import (
    freeze_axes,
    give_own_atoms,
    unite_axes,
)
from swd_jax._coupling.rules.rule_interface import Evaluator, Rule, Step, param
from swd_jax._coupling.rules.shared_operations import broadcast_to_result


def _label_scan(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> list[Labels]:
    num_consts, num_carry = _num_consts_and_carry(equation)
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
    with analysis.position.repeated(length):
        outputs = analysis.call(param(equation, "jaxpr"), [*consts, *carry, *slices])
    results: list[Labels] = []
    for before, after in zip(carry, outputs[:num_carry], strict=True):
        dims = range(before.rank)
        result, _ = unite_axes(analysis, before, dims, after, dims)
        results.append(result)
    for labels in outputs[num_carry:]:
        stacked = labels.move_axes(
            {dim: dim + 1 for dim in range(labels.rank)}, (length, *labels.shape)
        )
        results.append(stacked.replace(broadcast_axes=stacked.broadcast_axes - {0}))
    return results


def _num_consts_and_carry(equation: type_aliases.Equation) -> tuple[int, int]:
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
    num_consts, num_carry = _num_consts_and_carry(equation)
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
