"""Rules for gather and scatter: look-ups, indexing with arrays, writes to indices."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from swd_jax._coupling import type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import PRODUCER, CouplingAnalysis
from swd_jax._coupling.label_operations import (
    assign_block_to_axis,
    freeze_atoms,
    freeze_axes,
    unite_axes,
)
from swd_jax._coupling.rules import constant_slices, removed_values
from swd_jax._coupling.rules.rule_interface import (
    Evaluator,
    Rule,
    Step,
    UnsupportedPrimitive,
    bind,
    param,
    result_shape,
)
from swd_jax._coupling.rules.shared_operations import expand_axis


def _label_gather(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> Labels:
    labels, indices = inputs
    slices = constant_slices.sliced_axes(equation, labels, indices)
    if slices is not None:
        return constant_slices.label_slice(analysis, equation, labels, slices)
    numbers = param(equation, "dimension_numbers")
    batch, index_batch = (
        numbers.operand_batching_dims,
        numbers.start_indices_batching_dims,
    )
    whole = _whole_axes(equation, labels)
    indexed = [dim for dim in range(labels.rank) if dim not in (*whole, *batch)]
    labels = freeze_axes(analysis, labels, "looked up by index", indexed)
    labels = assign_block_to_axis(analysis, labels, batch)
    vector_dim = indices.rank - 1
    indices = freeze_axes(analysis, indices, "used as an index", [vector_dim])
    labels, indices = unite_axes(analysis, labels, batch, indices, index_batch)
    analysis.note_role(labels, whole, PRODUCER)
    shape = result_shape(equation)
    to_result, index_to_result = _result_axes(numbers, labels, vector_dim, len(shape))
    blocks = {
        **labels.blocks_within(to_result),
        **indices.blocks_within(index_to_result),
    }
    broadcast_axes = {to_result[dim] for dim in whole if dim in labels.broadcast_axes}
    broadcast_axes |= {
        index_to_result[dim]
        for dim in range(vector_dim)
        if dim in indices.broadcast_axes and dim not in index_batch
    }
    for dim, index_dim in zip(batch, index_batch, strict=True):
        if dim in labels.broadcast_axes and index_dim in indices.broadcast_axes:
            broadcast_axes.add(index_to_result[index_dim])
        elif (dim,) in labels.blocks:
            blocks[index_to_result[index_dim],] = labels.axis_atoms(dim)
    return Labels(
        shape,
        blocks,
        frozenset(broadcast_axes),
        depends_on_input=labels.depends_on_input or indices.depends_on_input,
        removed_values={
            to_result[dim]: value
            for dim, value in labels.removed_values.items()
            if dim in to_result
        }
        | {
            index_to_result[index_dim]: labels.removed_values[dim]
            for dim, index_dim in zip(batch, index_batch, strict=True)
            if dim in labels.removed_values
        },
        not_finite_at=labels.not_finite_at,
    )


def _whole_axes(equation: type_aliases.Equation, labels: Labels) -> list[int]:
    """Return the axes of the operand that a gather takes whole."""
    numbers = param(equation, "dimension_numbers")
    absent = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    sizes = param(equation, "slice_sizes")
    return [
        dim
        for dim in range(labels.rank)
        if sizes[dim] == labels.shape[dim] and dim not in absent
    ]


def _result_axes(
    numbers: Any, labels: Labels, vector_dim: int, rank: int
) -> tuple[dict[int, int], dict[int, int]]:
    """Return the result's axis for each axis of the operand, and of the indices."""
    absent = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    window_dims = [dim for dim in range(labels.rank) if dim not in absent]
    index_dims = [dim for dim in range(rank) if dim not in numbers.offset_dims]
    return (
        dict(zip(window_dims, numbers.offset_dims, strict=True)),
        dict(zip(range(vector_dim), index_dims, strict=True)),
    )


def _run_gather(evaluator: Evaluator, step: Step, values: list[Any]) -> Any:
    numbers = param(step.equation, "dimension_numbers")
    slice_sizes = param(step.equation, "slice_sizes")
    labels, indices = step.inputs
    slices = constant_slices.sliced_axes(step.equation, labels, indices)
    if slices is not None:
        return constant_slices.run_slice(evaluator, step, values[0], slices)
    not_whole = [
        dim
        for dim in range(labels.rank)
        if slice_sizes[dim] != labels.shape[dim]
        or dim in numbers.collapsed_slice_dims
        or dim in numbers.operand_batching_dims
    ]
    value = evaluator.broadcast_to_full(values[0], labels, not_whole)
    index_values = evaluator.broadcast_to_full(
        values[1], indices, [indices.rank - 1, *numbers.start_indices_batching_dims]
    )
    sizes = tuple(
        size if dim in not_whole else value.shape[dim]
        for dim, size in enumerate(slice_sizes)
    )
    return bind(step.equation, value, index_values, slice_sizes=sizes)


def _label_scatter(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> Labels:
    labels, indices, updates = inputs
    numbers = param(equation, "dimension_numbers")
    if numbers.operand_batching_dims:
        raise UnsupportedPrimitive("scatter with batching dimensions")
    whole = _updated_whole(numbers, labels, updates)
    why = "updated by index"
    rest = [dim for dim in range(labels.rank) if dim not in whole]
    labels = freeze_axes(analysis, labels, why, rest)
    update_dims = list(whole.values())
    rest = [dim for dim in range(updates.rank) if dim not in update_dims]
    updates = freeze_axes(analysis, updates, why, rest)
    freeze_atoms(analysis, indices, "used as an index")
    labels, updates = unite_axes(analysis, labels, list(whole), updates, update_dims)
    to_operand = {update_dim: dim for dim, update_dim in whole.items()}
    broadcast_axes = frozenset(
        dim
        for dim, update_dim in whole.items()
        if dim in labels.broadcast_axes and update_dim in updates.broadcast_axes
    )
    return labels.replace(
        blocks={**updates.blocks_within(to_operand), **labels.blocks},
        broadcast_axes=broadcast_axes,
        depends_on_input=any(x.depends_on_input for x in inputs),
        removed_values=_scattered_values(equation, labels, updates, whole),
        uniform_value=None,
        not_finite_at=labels.not_finite_at or updates.not_finite_at,
    )


def _scattered_values(
    equation: type_aliases.Equation,
    labels: Labels,
    updates: Labels,
    whole: Mapping[int, int],
) -> dict[int, float]:
    """Return the values at removed positions after a scatter.

    Sums and products of known numbers are known only where the numbers are 0.
    """
    aligned = updates.replace(blocks={}, removed_values={}, broadcast_axes=frozenset())
    to_operand = {update_dim: dim for dim, update_dim in whole.items()}
    aligned = dataclasses.replace(
        aligned,
        blocks=updates.blocks_within(to_operand),
        removed_values={
            to_operand[update_dim]: value
            for update_dim, value in updates.removed_values.items()
            if update_dim in to_operand
        },
    )
    values = removed_values.joined_values([labels, aligned], whole)
    if equation.primitive.name in ("scatter", "scatter-min", "scatter-max"):
        return values
    return {
        dim: value
        for dim, value in values.items()
        if value == 0 or not math.isfinite(value)
    }


def _updated_whole(numbers: Any, labels: Labels, updates: Labels) -> dict[int, int]:
    """Return the operand's axes that are written as a whole, with the updates' axes."""
    window_dims = [
        dim
        for dim in range(labels.rank)
        if dim not in numbers.inserted_window_dims
        and dim not in numbers.operand_batching_dims
    ]
    indexed = set(numbers.scatter_dims_to_operand_dims)
    return {
        dim: update_dim
        for dim, update_dim in zip(window_dims, numbers.update_window_dims, strict=True)
        if dim not in indexed and labels.shape[dim] == updates.shape[update_dim]
    }


def _run_scatter(evaluator: Evaluator, step: Step, values: list[Any]) -> Any:
    labels, indices, updates = step.inputs
    whole = _updated_whole(param(step.equation, "dimension_numbers"), labels, updates)
    rest = [dim for dim in range(labels.rank) if dim not in whole]
    value = evaluator.broadcast_to_full(values[0], labels, rest)
    index_values = evaluator.broadcast_to_full(values[1], indices, range(indices.rank))
    rest = [dim for dim in range(updates.rank) if dim not in whole.values()]
    update = evaluator.broadcast_to_full(values[2], updates, rest)
    for dim, update_dim in whole.items():
        value = expand_axis(value, dim, update.shape[update_dim])
        update = expand_axis(update, update_dim, value.shape[dim])
    return bind(step.equation, value, index_values, update)


RULES = {
    "gather": Rule(_label_gather, _run_gather),
    **dict.fromkeys(
        """
        scatter scatter-add scatter_add scatter-mul scatter_mul scatter-min scatter_min
        scatter-max scatter_max
        """.split(),
        Rule(_label_scatter, _run_scatter),
    ),
}
