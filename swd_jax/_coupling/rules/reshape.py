"""Rules for reshape, squeeze and expand_dims."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from swd_jax._coupling import axis_labels, type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CouplingAnalysis
from swd_jax._coupling.label_operations import drop_constant_axes, freeze_atoms
from swd_jax._coupling.rules.rule_interface import (
    Evaluator,
    Rule,
    Step,
    UnsupportedPrimitive,
    param,
    result_shape,
    run_as_traced,
)


def match_axes(
    old_shape: Sequence[int], new_shape: Sequence[int]
) -> list[tuple[list[int], list[int]]]:
    """Match the axes of two shapes in the smallest runs of equal size.

    Returns:
      Pairs of the old and the new axes. Axes of one size pass through a reshape; any
      other pair is merged and split.

    Examples:
      >>> match_axes((2, 12), (2, 3, 4))
      [([0], [0]), ([1], [1, 2])]
      >>> match_axes((2, 1, 12), (2, 12, 1))
      [([0], [0]), ([1], []), ([2], [1]), ([], [2])]
    """
    pairs: list[tuple[list[int], list[int]]] = []
    i, j = 0, 0
    while i < len(old_shape) or j < len(new_shape):
        if i < len(old_shape) and j < len(new_shape) and old_shape[i] == new_shape[j]:
            pair = [i], [j]
        elif i < len(old_shape) and old_shape[i] == 1:
            pair = [i], list[int]()
        elif j < len(new_shape) and new_shape[j] == 1:
            pair = list[int](), [j]
        else:
            pair = [i], [j]
            old_size, new_size = old_shape[i], new_shape[j]
            while old_size != new_size:
                if _is_at_most(old_size, new_size):
                    pair[0].append(pair[0][-1] + 1)
                    old_size *= old_shape[pair[0][-1]]
                else:
                    pair[1].append(pair[1][-1] + 1)
                    new_size *= new_shape[pair[1][-1]]
        i, j = i + len(pair[0]), j + len(pair[1])
        pairs.append(pair)
    return pairs


def _is_at_most(size: Any, other: Any) -> bool:
    """Compare two sizes, of which symbolic ones are known to be at least 1.

    Raises:
      UnsupportedPrimitive: if the order depends on a symbolic size.
    """
    try:
        return bool(size <= other)
    except jax.errors.InconclusiveDimensionOperation:
        pass
    try:
        # 3 * batch <= 3 is not known, 3 <= 3 * batch is.
        return not other <= size
    except jax.errors.InconclusiveDimensionOperation as error:
        raise UnsupportedPrimitive("reshape of a symbolic size") from error


def _label_reshape(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> Labels:
    [labels] = inputs
    shape = result_shape(equation)
    if equation.params.get("dimensions") is not None:
        raise UnsupportedPrimitive("reshape with a permutation")
    if 0 in shape:
        return _empty_labels(shape, labels)
    pairs = match_axes(labels.shape, shape)
    labels = _squeeze_labels(
        analysis, labels, [old[0] for old, new in pairs if not new]
    )
    # New axis d has the number offset + d while the blocks still have old axes too.
    offset = labels.rank
    blocks = dict(labels.blocks)
    values = {dim: labels.removed_values.get(dim) for dim in labels.labelled_axes}
    broadcast_axes: set[int] = set()
    for old, new in pairs:
        if not old or (new and labels.broadcast_axes.issuperset(old)):
            broadcast_axes.update(new)
        elif len(old) == len(new) == 1:
            blocks = {
                tuple(offset + new[0] if dim == old[0] else dim for dim in key): ids
                for key, ids in blocks.items()
            }
            values[offset + new[0]] = values.get(old[0])
        elif new:
            old_sizes = {dim: labels.shape[dim] for dim in old}
            new_sizes = {offset + dim: shape[dim] for dim in new}
            carrier = _regroup_blocks(analysis, blocks, old_sizes, new_sizes)
            values |= dict.fromkeys(new_sizes, values.get(carrier))
    new_blocks = dict(
        axis_labels.sort_axes([dim - offset for dim in key], ids)
        for key, ids in blocks.items()
    )
    labels = labels.replace(
        shape=shape,
        blocks=new_blocks,
        broadcast_axes=frozenset(broadcast_axes),
        removed_values={
            dim - offset: value
            for dim, value in values.items()
            if dim >= offset and value is not None
        },
    )
    return drop_constant_axes(analysis, labels)


def _regroup_blocks(
    analysis: CouplingAnalysis,
    blocks: dict[type_aliases.Dims, type_aliases.AtomIds],
    old_sizes: dict[int, int],
    new_sizes: dict[int, int],
) -> int:
    """Replace old axes by new ones in `blocks`; freeze all but the first old block.

    Returns:
      An axis of the first old block; -1 if there is none.
    """
    touching = [key for key in blocks if old_sizes.keys() & set(key)]
    touching.sort(key=lambda key: min(old_sizes.keys() & set(key)))
    for key in touching[1:]:
        reason = analysis.reason("merged with another axis that has channels")
        analysis.atoms.freeze(blocks.pop(key).ravel(), reason)
    for key in touching[:1]:
        new_key, ids = _regroup(key, blocks.pop(key), old_sizes, new_sizes)
        blocks[new_key] = ids
    return touching[0][0] if touching else -1


def _regroup(
    key: type_aliases.Dims,
    ids: type_aliases.AtomIds,
    old_sizes: dict[int, int],
    new_sizes: dict[int, int],
) -> tuple[type_aliases.Dims, type_aliases.AtomIds]:
    """Reshape some adjacent axes of a block, given by their sizes, to others."""
    outside = [dim for dim in key if dim not in old_sizes]
    inside = [dim for dim in key if dim in old_sizes]
    ids = ids.transpose([key.index(dim) for dim in (*outside, *inside)])
    outer_shape = ids.shape[: len(outside)]
    # Old axes without labels get the labels of the block by broadcasting.
    inner_shape = tuple(size if dim in inside else 1 for dim, size in old_sizes.items())
    full = np.broadcast_to(
        ids.reshape(outer_shape + inner_shape), (*outer_shape, *old_sizes.values())
    )
    return (*outside, *new_sizes), full.reshape(*outer_shape, *new_sizes.values())


def _empty_labels(shape: type_aliases.Dims, labels: Labels) -> Labels:
    """Return the labels of an array without elements, which fits any channels."""
    axes = frozenset(dim for dim, size in enumerate(shape) if size != 0)
    return Labels(shape, broadcast_axes=axes, depends_on_input=labels.depends_on_input)


def _run_reshape(evaluator: Evaluator, step: Step, values: list[Any]) -> Any:
    [labels], [result] = step.inputs, step.outputs
    if 0 in result.shape:
        sizes = [0 if size == 0 else 1 for size in result.shape]
        return jnp.zeros(sizes, values[0].dtype)
    pairs = match_axes(labels.shape, result.shape)
    merged = [
        dim
        for old, _ in pairs
        if len(old) > 1 and not labels.broadcast_axes.issuperset(old)
        for dim in old
    ]
    value = evaluator.broadcast_to_full(values[0], labels, merged)
    sizes: list[Any] = [0] * result.rank
    for old, new in pairs:
        remaining = math.prod(value.shape[dim] for dim in old)
        for dim in reversed(new[1:]):
            sizes[dim] = (
                1 if dim in result.broadcast_axes else evaluator.kept_size(result, dim)
            )
            remaining = remaining // sizes[dim] if sizes[dim] != 0 else 0
        if new:
            sizes[new[0]] = remaining
    return lax.reshape(value, sizes)


def _squeeze_labels(
    analysis: CouplingAnalysis, labels: Labels, dims: Sequence[int]
) -> Labels:
    """Remove axes of size 1 from the blocks; freeze the atoms of an axis by itself."""
    blocks: dict[type_aliases.Dims, type_aliases.AtomIds] = {}
    for key, ids in labels.blocks.items():
        rest = tuple(dim for dim in key if dim not in dims)
        if rest:
            blocks[rest] = ids.reshape([labels.shape[dim] for dim in rest])
        else:
            freeze_atoms(analysis, labels, "squeezed out of its axis", key)
    return labels.replace(blocks=blocks)


def _label_squeeze(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> Labels:
    [labels] = inputs
    squeezed = {dim % labels.rank for dim in param(equation, "dimensions")}
    labels = _squeeze_labels(analysis, labels, sorted(squeezed))
    rest = [dim for dim in range(labels.rank) if dim not in squeezed]
    new_dims = {dim: new for new, dim in enumerate(rest)}
    return labels.move_axes(new_dims, result_shape(equation))


def _label_expand_dims(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> Labels:
    del analysis
    shape = result_shape(equation)
    inserted = {dim % len(shape) for dim in param(equation, "dimensions")}
    new_dims = [dim for dim in range(len(shape)) if dim not in inserted]
    return inputs[0].move_axes(dict(enumerate(new_dims)), shape)


RULES = {
    "reshape": Rule(_label_reshape, _run_reshape),
    "squeeze": Rule(_label_squeeze, run_as_traced),
    "expand_dims": Rule(_label_expand_dims, run_as_traced),
}
