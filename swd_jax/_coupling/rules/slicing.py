"""Rules for slice, split and unstack."""

from collections.abc import Sequence
from typing import Any

import numpy as np
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
    Rule,
    Step,
    param,
    result_shape,
)
from swd_jax._coupling.rules.shared_operations import slice_kept


def slice_labels(labels: Labels, dim: int, positions: slice, size: int) -> Labels:
    """Return the labels of `size` positions along an axis."""
    blocks = dict(labels.blocks)
    key = labels.block_key(dim)
    if key:
        index = [slice(None)] * len(key)
        index[key.index(dim)] = positions
        blocks[key] = blocks[key][tuple(index)]
        if blocks[key].size == 0:
            del blocks[key]
    shape = (*labels.shape[:dim], size, *labels.shape[dim + 1 :])
    return labels.replace(shape=shape, blocks=blocks)


def _sliced_axes(
    equation: type_aliases.Equation, shape: Sequence[int]
) -> dict[int, slice]:
    """Return the axes that a slice does not take whole."""
    strides = param(equation, "strides") or [1] * len(shape)
    bounds = zip(
        param(equation, "start_indices"),
        param(equation, "limit_indices"),
        strides,
        strict=True,
    )
    return {
        dim: slice(*bound)
        for dim, bound in enumerate(bounds)
        if bound != (0, shape[dim], 1)
    }


def _label_slice(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> Labels:
    [labels] = inputs
    shape = result_shape(equation)
    for dim, positions in _sliced_axes(equation, labels.shape).items():
        labels = unite_along(analysis, labels, dim)
        labels = slice_labels(labels, dim, positions, shape[dim])
    return drop_constant_axes(analysis, labels)


def _run_slice(evaluator: Evaluator, step: Step, values: list[Any]) -> Any:
    value, [labels] = values[0], step.inputs
    for dim, positions in _sliced_axes(step.equation, labels.shape).items():
        value = slice_kept(evaluator, value, labels, dim, positions)
    return value


def _label_split(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> list[Labels]:
    axis = param(equation, "axis")
    labels = unite_along(analysis, inputs[0], axis)
    parts: list[Labels] = []
    for positions in _consecutive_slices(param(equation, "sizes")):
        part = slice_labels(labels, axis, positions, positions.stop - positions.start)
        parts.append(drop_constant_axes(analysis, part))
    return parts


def _run_split(evaluator: Evaluator, step: Step, values: list[Any]) -> list[Any]:
    axis = param(step.equation, "axis")
    return [
        slice_kept(evaluator, values[0], step.inputs[0], axis, positions)
        for positions in _consecutive_slices(param(step.equation, "sizes"))
    ]


def _consecutive_slices(sizes: Sequence[int]) -> list[slice]:
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def _label_unstack(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> list[Labels]:
    axis = param(equation, "axis")
    labels = unite_along(analysis, inputs[0], axis)
    labels = freeze_axes(analysis, labels, "unstacked", [axis])
    rest = [dim for dim in range(labels.rank) if dim != axis]
    part = labels.move_axes(
        {dim: new for new, dim in enumerate(rest)}, [labels.shape[dim] for dim in rest]
    )
    return [part] * labels.shape[axis]


def _run_unstack(evaluator: Evaluator, step: Step, values: list[Any]) -> list[Any]:
    axis = param(step.equation, "axis")
    value = evaluator.broadcast_to_full(values[0], step.inputs[0], [axis])
    return [
        lax.index_in_dim(value, index, axis, keepdims=False)
        for index in range(len(step.outputs))
    ]


RULES = {
    "slice": Rule(_label_slice, _run_slice),
    "split": Rule(_label_split, _run_split),
    "unstack": Rule(_label_unstack, _run_unstack),
}
