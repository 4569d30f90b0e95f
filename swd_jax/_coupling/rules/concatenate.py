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
    create_blocks,
    merge_elementwise,
    unite_axes,
)
from swd_jax._coupling.rules import removed_values
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
    blocks = dict(merged.blocks)
    labelled_parts = [part for part in parts if (axis,) in part.blocks]
    if labelled_parts:
        blocks[axis,] = np.concatenate([part.axis_atoms(axis) for part in parts])
    values = removed_values.joined_values(parts, merged.labelled_axes)
    if labelled_parts:
        values |= removed_values.joined_values(labelled_parts, [axis])
    return merged.replace(
        shape=result_shape(equation),
        blocks=blocks,
        depends_on_input=any(labels.depends_on_input for labels in inputs),
        removed_values=values,
        uniform_value=removed_values.joined_uniform_value(inputs),
        not_finite_at=next((x.not_finite_at for x in inputs if x.not_finite_at), ""),
    )


def _label_joined_axis(analysis: CouplingAnalysis, labels: Labels, axis: int) -> Labels:
    """Prepare an operand's labels along the axis of concatenation.

    An operand that is broadcast there gets new atoms, because any of its positions can
    be removed together with those of the array to which the result is added.
    """
    if axis not in labels.broadcast_axes:
        return assign_block_to_axis(analysis, labels, [axis])
    new_blocks = create_blocks(analysis, labels.shape, [axis])
    values = dict(labels.removed_values)
    if labels.uniform_value is not None:
        values[axis] = labels.uniform_value
    return labels.replace(
        blocks={**labels.blocks, **new_blocks},
        broadcast_axes=labels.broadcast_axes - {axis},
        removed_values=values,
    )


def _drop_axis(labels: Labels, axis: int) -> Labels:
    return labels.replace(
        blocks=labels.blocks_except((axis,)),
        broadcast_axes=labels.broadcast_axes - {axis},
    )


def _run_concatenate(evaluator: Evaluator, step: Step, values: list[Any]) -> Any:
    axis = param(step.equation, "dimension")
    [result] = step.outputs
    has_channels = result.block_key(axis) is not None
    kept_mask = evaluator.kept_positions(result, axis)
    parts: list[Any] = []
    start = 0
    for value, labels in zip(values, step.inputs, strict=True):
        stop = start + labels.shape[axis]
        sizes = list(value.shape)
        if axis in labels.broadcast_axes:
            sizes[axis] = (
                int(kept_mask[start:stop].sum()) if has_channels else labels.shape[axis]
            )
        parts.append(jnp.broadcast_to(value, sizes))
        start = stop
    shape = jnp.broadcast_shapes(
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
    merged = merged.replace(
        removed_values=removed_values.joined_values(inputs, merged.labelled_axes)
    )
    dims = [dim for dim in range(len(shape)) if dim != axis]
    stacked = merged.move_axes(dict(enumerate(dims)), shape)
    return stacked.replace(
        broadcast_axes=stacked.broadcast_axes - {axis},
        uniform_value=removed_values.joined_uniform_value(inputs),
    )


def _run_stack(evaluator: Evaluator, step: Step, values: list[Any]) -> Any:
    del evaluator
    shape = jnp.broadcast_shapes(*[jnp.shape(value) for value in values])
    return jnp.stack(
        [jnp.broadcast_to(value, shape) for value in values],
        param(step.equation, "axis"),
    )


RULES = {
    "concatenate": Rule(_label_concatenate, _run_concatenate),
    "stack": Rule(_label_stack, _run_stack),
}
