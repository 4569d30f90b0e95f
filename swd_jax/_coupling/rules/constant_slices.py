"""A gather at one constant index: a slice.

jnp indexing makes such a gather of `x[:, 1:]` where the batch is symbolic.
"""

from typing import Any

from jax import lax

from swd_jax._coupling import type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CouplingAnalysis
from swd_jax._coupling.label_operations import (
    drop_constant_axes,
    freeze_axes,
    unite_along,
)
from swd_jax._coupling.rules.rule_interface import (
    Evaluator,
    Step,
    param,
    result_shape,
)
from swd_jax._coupling.rules.shared_operations import slice_kept
from swd_jax._coupling.rules.slicing import slice_labels


def sliced_axes(
    equation: type_aliases.Equation, labels: Labels, indices: Labels
) -> dict[int, slice] | None:
    """Return the axes that a gather does not take whole, with the slice of each.

    Returns:
      None if the gather is not one slice at a constant position inside the array.
    """
    numbers = param(equation, "dimension_numbers")
    if indices.rank != 1 or indices.const_value is None:
        return None
    starts = dict(
        zip(numbers.start_index_map, indices.const_value.tolist(), strict=True)
    )
    slices: dict[int, slice] = {}
    for dim, size in enumerate(param(equation, "slice_sizes")):
        start, full_size = starts.get(dim, 0), labels.shape[dim]
        if start == 0 and size == full_size:
            continue
        if start < 0 or not isinstance(full_size, int) or start + size > full_size:
            return None
        slices[dim] = slice(start, start + size)
    return slices


def label_slice(
    analysis: CouplingAnalysis,
    equation: type_aliases.Equation,
    labels: Labels,
    slices: dict[int, slice],
) -> Labels:
    """Return the labels of a gather that is one slice."""
    collapsed = param(equation, "dimension_numbers").collapsed_slice_dims
    labels = freeze_axes(analysis, labels, "looked up by index", collapsed)
    for dim, positions in slices.items():
        labels = unite_along(analysis, labels, dim)
        size = positions.stop - positions.start
        labels = slice_labels(labels, dim, positions, size)
    rest = [dim for dim in range(labels.rank) if dim not in collapsed]
    new_dims = {dim: new for new, dim in enumerate(rest)}
    labels = labels.move_axes(new_dims, result_shape(equation))
    return drop_constant_axes(analysis, labels)


def run_slice(
    evaluator: Evaluator, step: Step, value: Any, slices: dict[int, slice]
) -> Any:
    """Return the result of a gather that is one slice."""
    labels = step.inputs[0]
    collapsed = param(step.equation, "dimension_numbers").collapsed_slice_dims
    value = evaluator.broadcast_to_full(value, labels, collapsed)
    for dim, positions in slices.items():
        if dim in collapsed:
            value = lax.slice_in_dim(value, positions.start, positions.stop, axis=dim)
        else:
            value = slice_kept(evaluator, value, labels, dim, positions)
    return lax.squeeze(value, collapsed)
