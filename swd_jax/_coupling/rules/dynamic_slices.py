"""Rules for dynamic_slice and dynamic_update_slice."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import lax

from swd_jax._coupling import type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CouplingAnalysis
from swd_jax._coupling.label_operations import (
    add_blocks,
    drop_constant_axes,
    freeze_axes,
    unite_along,
    unite_axes,
)
from swd_jax._coupling.rules.removed_values import (
    joined_uniform_value,
    joined_values,
)
from swd_jax._coupling.rules.rule_interface import Evaluator, Rule, Step, bind, param
from swd_jax._coupling.rules.shared_operations import expand_axis, slice_kept
from swd_jax._coupling.rules.slicing import slice_labels


def _label_dynamic_slice(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> Labels:
    labels, *starts = inputs
    sizes = param(equation, "slice_sizes")
    for dim, positions in _sliced_axes(labels, sizes, starts).items():
        if positions is None:
            why = "sliced at a position that is not constant"
            labels = freeze_axes(analysis, labels, why, [dim])
            shape = (*labels.shape[:dim], sizes[dim], *labels.shape[dim + 1 :])
            labels = labels.replace(shape=shape)
        else:
            labels = unite_along(analysis, labels, dim)
            labels = slice_labels(labels, dim, positions, sizes[dim])
    labels = labels.replace(depends_on_input=any(x.depends_on_input for x in inputs))
    return drop_constant_axes(analysis, labels)


def _sliced_axes(
    labels: Labels, sizes: Sequence[int], starts: Sequence[Labels]
) -> dict[int, slice | None]:
    """Return the axes that are not taken whole, with the slice if it is constant."""
    slices: dict[int, slice | None] = {}
    for dim, (full_size, size) in enumerate(zip(labels.shape, sizes, strict=True)):
        if size != full_size:
            const_start = starts[dim].const_value
            if const_start is None:
                slices[dim] = None
            else:
                start = int(np.clip(const_start, 0, full_size - size))
                slices[dim] = slice(start, start + size)
    return slices


def _run_dynamic_slice(evaluator: Evaluator, step: Step, values: list[Any]) -> Any:
    value, *starts = values
    labels = step.inputs[0]
    sizes = param(step.equation, "slice_sizes")
    for dim, positions in _sliced_axes(labels, sizes, step.inputs[1:]).items():
        if positions is not None:
            value = slice_kept(evaluator, value, labels, dim, positions)
        else:
            value = evaluator.broadcast_to_full(value, labels, [dim])
            value = lax.dynamic_slice_in_dim(value, starts[dim], sizes[dim], dim)
    return value


def _label_dynamic_update_slice(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> Labels:
    del equation
    labels, update, *_ = inputs
    partial = _partial_axes(labels, update)
    why = "updated at a position"
    labels = freeze_axes(analysis, labels, why, partial)
    update = freeze_axes(analysis, update, why, partial)
    whole = [dim for dim in range(labels.rank) if dim not in partial]
    labels, update = unite_axes(analysis, labels, whole, update, whole)
    both_broadcast = labels.broadcast_axes & update.broadcast_axes
    return labels.replace(
        blocks=add_blocks(labels, update),
        broadcast_axes=both_broadcast - set(partial),
        depends_on_input=any(x.depends_on_input for x in inputs),
        removed_values=joined_values([labels, update], whole),
        uniform_value=joined_uniform_value([labels, update]),
        not_finite_at=labels.not_finite_at or update.not_finite_at,
    )


def _partial_axes(labels: Labels, update: Labels) -> list[int]:
    """Return the axes of which the update covers a part."""
    sizes = zip(labels.shape, update.shape, strict=True)
    return [dim for dim, (full_size, size) in enumerate(sizes) if full_size != size]


def _run_dynamic_update_slice(
    evaluator: Evaluator, step: Step, values: list[Any]
) -> Any:
    value, update, *starts = values
    labels, update_labels = step.inputs[:2]
    partial = _partial_axes(labels, update_labels)
    value = evaluator.broadcast_to_full(value, labels, partial)
    update = evaluator.broadcast_to_full(update, update_labels, partial)
    for dim in range(labels.rank):
        if dim not in partial:
            value = expand_axis(value, dim, update.shape[dim])
            update = expand_axis(update, dim, value.shape[dim])
    return bind(step.equation, value, update, *starts)


RULES = {
    "dynamic_slice": Rule(_label_dynamic_slice, _run_dynamic_slice),
    "dynamic_update_slice": Rule(
        _label_dynamic_update_slice, _run_dynamic_update_slice
    ),
}
