"""Rules for concatenate and stack."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from swd_jax._coupling import type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CouplingAnalysis
from swd_jax._coupling.label_operations import (
    add_blocks,
    assign_block_to_axis,
    merge_elementwise,
    unite_axes,
)
from swd_jax._coupling.rules.rule_interface import (
    Evaluator,
    Rule,
    Step,
    param,
    result_shape,
)


def _label_concatenate(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> Labels:
    axis = param(equation, "dimension")
    parts = [_label_joined_axis(analysis, labels, axis) for labels in inputs]
    other_dims = [dim for dim in range(parts[0].rank) if dim != axis]
    merged = _drop_axis(parts[0], axis)
    for part in parts[1:]:
        merged, part_labels = unite_axes(
            analysis, merged, other_dims, _drop_axis(part, axis), other_dims
        )
        merged = merged.replace(
            blocks=add_blocks(merged, part_labels),
            broadcast_axes=merged.broadcast_axes & part_labels.broadcast_axes,
        )
    ids = np.concatenate([part.axis_atoms(axis) for part in parts])
    blocks = dict(merged.blocks)
    if (ids >= 0).any():
        blocks[axis,] = ids
    return merged.replace(
        shape=result_shape(equation),
        blocks=blocks,
        depends_on_input=any(labels.depends_on_input for labels in inputs),
        zero_preserving=all(labels.zero_preserving for labels in inputs),
    )


def _label_joined_axis(analysis: CouplingAnalysis, labels: Labels, axis: int) -> Labels:
    """Prepare an operand's labels along the axis of concatenation.

    An operand that is broadcast there gets new atoms, because any of its positions can
    be removed together with those of the array to which the result is added.
    """
    if axis not in labels.broadcast_axes:
        return assign_block_to_axis(analysis, labels, [axis])
    new_atoms = analysis.atoms.create(labels.shape[axis])
    return labels.replace(
        blocks={**labels.blocks, (axis,): new_atoms},
        broadcast_axes=labels.broadcast_axes - {axis},
    )


def _drop_axis(labels: Labels, axis: int) -> Labels:
    return labels.replace(
        blocks=labels.blocks_except((axis,)),
        broadcast_axes=labels.broadcast_axes - {axis},
    )


def _run_concatenate(evaluator: Evaluator, step: Step, values: list[Any]) -> Any:
    axis = param(step.equation, "dimension")
    kept_mask = evaluator.kept_positions(step.outputs[0], axis)
    parts: list[Any] = []
    start = 0
    for value, labels in zip(values, step.inputs, strict=True):
        stop = start + labels.shape[axis]
        sizes = list(value.shape)
        if axis in labels.broadcast_axes:
            sizes[axis] = int(kept_mask[start:stop].sum())
        parts.append(jnp.broadcast_to(value, sizes))
        start = stop
    shape = np.broadcast_shapes(
        *[(*part.shape[:axis], 1, *part.shape[axis + 1 :]) for part in parts]
    )
    parts = [
        jnp.broadcast_to(part, (*shape[:axis], part.shape[axis], *shape[axis + 1 :]))
        for part in parts
    ]
    return lax.concatenate(parts, axis)


def _label_stack(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> Labels:
    axis = param(equation, "axis")
    shape = result_shape(equation)
    merged = inputs[0]
    for labels in inputs[1:]:
        merged = merge_elementwise(analysis, merged, labels)
    dims = [dim for dim in range(len(shape)) if dim != axis]
    stacked = merged.move_axes(dict(enumerate(dims)), shape)
    return stacked.replace(
        broadcast_axes=stacked.broadcast_axes - {axis},
        zero_preserving=all(labels.zero_preserving for labels in inputs),
    )


def _run_stack(evaluator: Evaluator, step: Step, values: list[Any]) -> Any:
    del evaluator
    shape = np.broadcast_shapes(*[jnp.shape(value) for value in values])
    return jnp.stack(
        [jnp.broadcast_to(value, shape) for value in values],
        param(step.equation, "axis"),
    )


RULES = {
    "concatenate": Rule(_label_concatenate, _run_concatenate),
    "stack": Rule(_label_stack, _run_stack),
}
