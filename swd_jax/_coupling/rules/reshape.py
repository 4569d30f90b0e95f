"""Operations that arrange the same numbers in another way."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from swd_jax._coupling import array_types, axis_labels
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.label_operations import Context
from swd_jax._coupling.rules.registry import Run, Step, bind, register

# Reshape: pieces of the shape that are the same on both sides pass, others are merged
# and split.


def pieces(
    before: Sequence[int], after: Sequence[int]
) -> list[tuple[list[int], list[int]]]:
    """The axes of two shapes, matched in the smallest parts of equal size.

    Examples:
      >>> pieces((2, 12), (2, 3, 4))
      [([0], [0]), ([1], [1, 2])]
      >>> pieces((2, 1, 12), (2, 12, 1))
      [([0], [0]), ([1], []), ([2], [1]), ([], [2])]
    """
    found: list[tuple[list[int], list[int]]] = []
    i, j = 0, 0
    while i < len(before) or j < len(after):
        if i < len(before) and j < len(after) and before[i] == after[j]:
            piece = [i], [j]
        elif i < len(before) and before[i] == 1:
            piece = [i], list[int]()
        elif j < len(after) and after[j] == 1:
            piece = list[int](), [j]
        else:
            piece = [i], [j]
            size, wanted = before[i], after[j]
            while size != wanted:
                if size < wanted:
                    piece[0].append(piece[0][-1] + 1)
                    size *= before[piece[0][-1]]
                else:
                    piece[1].append(piece[1][-1] + 1)
                    wanted *= after[piece[1][-1]]
        i, j = i + len(piece[0]), j + len(piece[1])
        found.append(piece)
    return found


def _reshape(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> Labels:
    [labels] = inputs
    shape = equation.outvars[0].aval.shape
    if equation.params.get("dimensions") is not None or 0 in labels.shape:
        raise NotImplementedError
    found = pieces(labels.shape, shape)
    gone = [piece[0][0] for piece in found if not piece[1]]
    labels = _squeezed(context, labels, gone)
    # While axes are being replaced, new ones have numbers from `first` on.
    first = labels.rank
    blocks = dict(labels.blocks)
    uniform: set[int] = set()
    for before, after in found:
        new = [first + dim for dim in after]
        if not before or (after and labels.uniform.issuperset(before)):
            uniform.update(after)
        elif len(before) == len(after) == 1:
            blocks = {
                tuple(new[0] if dim == before[0] else dim for dim in key): ids
                for key, ids in blocks.items()
            }
        elif after:
            touching = [key for key in blocks if set(key) & set(before)]
            touching.sort(key=lambda key: min(set(key) & set(before)))
            for key in touching[1:]:
                context.atoms.freeze(
                    blocks.pop(key).ravel(),
                    f"merged with another axis that has channels ({context.where})",
                )
            for key in touching[:1]:
                block = _regrouped(
                    key,
                    blocks.pop(key),
                    {dim: labels.shape[dim] for dim in before},
                    {first + dim: shape[dim] for dim in after},
                )
                blocks[block[0]] = block[1]
    moved = dict(
        axis_labels.ordered([dim - first for dim in key], ids)
        for key, ids in blocks.items()
    )
    return context.simplified(
        labels.replaced(shape=shape, blocks=moved, uniform=frozenset(uniform))
    )


def _regrouped(
    key: array_types.Dims,
    ids: array_types.Ids,
    before: dict[int, int],
    after: dict[int, int],
) -> tuple[array_types.Dims, array_types.Ids]:
    """A block in which some axes, which lie side by side, are reshaped to others."""
    outside = [dim for dim in key if dim not in before]
    inside = [dim for dim in key if dim in before]
    ids = ids.transpose([key.index(dim) for dim in (*outside, *inside)])
    kept = ids.shape[: len(outside)]
    missing = tuple(size if dim in inside else 1 for dim, size in before.items())
    full = np.broadcast_to(ids.reshape(kept + missing), (*kept, *before.values()))
    return (*outside, *after), full.reshape(*kept, *after.values())


def _run_reshape(run: Run, step: Step, values: list[Any]) -> Any:
    [labels], [result] = step.inputs, step.outputs
    found = pieces(labels.shape, result.shape)
    mixed = [
        dim
        for before, _ in found
        if len(before) > 1 and not labels.uniform.issuperset(before)
        for dim in before
    ]
    value = run.filled(values[0], labels, mixed)
    sizes = [0] * result.rank
    for before, after in found:
        total = math.prod(value.shape[dim] for dim in before)
        for dim in reversed(after[1:]):
            size = 1 if dim in result.uniform else int(run.kept(result, dim).sum())
            sizes[dim], total = size, total // max(size, 1)
        if after:
            sizes[after[0]] = total
    return lax.reshape(value, sizes)


def _squeezed(context: Context, labels: Labels, dims: Sequence[int]) -> Labels:
    """Labels in which axes of size 1, about to go, have no part any more."""
    blocks: dict[array_types.Dims, array_types.Ids] = {}
    for key, ids in labels.blocks.items():
        left = tuple(dim for dim in key if dim not in dims)
        if left:
            blocks[left] = ids.reshape([labels.shape[dim] for dim in left])
        else:
            context.freeze(labels, "taken out of its axis", key)
    return labels.replaced(blocks=blocks)


def _squeeze(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> Labels:
    [labels] = inputs
    gone = {dim % labels.rank for dim in equation.params["dimensions"]}
    labels = _squeezed(context, labels, sorted(gone))
    left = [dim for dim in range(labels.rank) if dim not in gone]
    shape = equation.outvars[0].aval.shape
    return labels.moved({dim: new for new, dim in enumerate(left)}, shape)


def _run_bind(run: Run, step: Step, values: list[Any]) -> Any:
    del run
    return bind(step.equation, *values)


def _expand_dims(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> Labels:
    del context
    shape = equation.outvars[0].aval.shape
    added = {dim % len(shape) for dim in equation.params["dimensions"]}
    old = [dim for dim in range(len(shape)) if dim not in added]
    return inputs[0].moved(dict(enumerate(old)), shape)


def _transpose(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> Labels:
    del context
    order = equation.params["permutation"]
    shape = equation.outvars[0].aval.shape
    return inputs[0].moved({old: new for new, old in enumerate(order)}, shape)


def _rev(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> Labels:
    del context
    turned = set(equation.params["dimensions"])
    blocks = {
        key: np.flip(ids, tuple(i for i, dim in enumerate(key) if dim in turned))
        for key, ids in inputs[0].blocks.items()
    }
    return inputs[0].replaced(blocks=blocks)


def _broadcast_in_dim(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> Labels:
    if len(inputs) > 1:  # sizes that only the run knows
        raise NotImplementedError
    [labels] = inputs
    shape = equation.params["shape"]
    places = equation.params["broadcast_dimensions"]
    labels = context.stretched(labels, [shape[place] for place in places])
    return labels.moved(dict(enumerate(places)), shape)


def _run_broadcast_in_dim(run: Run, step: Step, values: list[Any]) -> Any:
    # Axes that are new or stretched are uniform: they stay at size 1.
    del run
    places = step.equation.params["broadcast_dimensions"]
    sizes = [1] * step.outputs[0].rank
    for place, size in zip(places, jnp.shape(values[0]), strict=True):
        sizes[place] = size
    return lax.broadcast_in_dim(values[0], sizes, places)


register("reshape", _reshape, _run_reshape)
register("squeeze", _squeeze, _run_bind)
register("expand_dims", _expand_dims, _run_bind)
register("transpose", _transpose, _run_bind)
register("rev", _rev, _run_bind)
register("broadcast_in_dim", _broadcast_in_dim, _run_broadcast_in_dim)
