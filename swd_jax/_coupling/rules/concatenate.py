"""Operations that put arrays side by side."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from swd_jax._coupling import array_types
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.label_operations import Context
from swd_jax._coupling.rules.registry import Run, Step, register

# Reshape: pieces of the shape that are the same on both sides pass, others are merged
# and split.


def _concatenate(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> Labels:
    axis = equation.params["dimension"]
    others = [dim for dim in range(inputs[0].rank) if dim != axis]
    # The positions of a part that is all the same number can go with any others.
    inputs = [
        labels.replaced(
            blocks={
                **labels.blocks,
                (axis,): context.atoms.fresh(labels.shape[axis]),
            },
            uniform=labels.uniform - {axis},
        )
        if axis in labels.uniform
        else context.resolved(labels, [axis])
        for labels in inputs
    ]
    merged = inputs[0].replaced(
        blocks=inputs[0].without((axis,)), uniform=inputs[0].uniform - {axis}
    )
    for labels in inputs[1:]:
        rest = labels.replaced(
            blocks=labels.without((axis,)), uniform=labels.uniform - {axis}
        )
        merged, rest = context.together(merged, others, rest, others)
        added = {
            key: ids
            for key, ids in rest.blocks.items()
            if merged.uniform.issuperset(key)
        }
        merged = merged.replaced(
            blocks={**merged.blocks, **added}, uniform=merged.uniform & rest.uniform
        )
    along = np.concatenate([labels.vector(axis) for labels in inputs])
    blocks = dict(merged.blocks)
    if (along >= 0).any():
        blocks[axis,] = along
    return merged.replaced(
        shape=equation.outvars[0].aval.shape,
        blocks=blocks,
        data=any(labels.data for labels in inputs),
        vanishes=all(labels.vanishes for labels in inputs),
    )


def _stack(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> Labels:
    axis = equation.params["axis"]
    shape = equation.outvars[0].aval.shape
    merged = inputs[0]
    for labels in inputs[1:]:
        merged = context.merged(merged, labels)
    dims = [dim for dim in range(len(shape)) if dim != axis]
    moved = merged.moved(dict(enumerate(dims)), shape)
    return moved.replaced(
        uniform=moved.uniform - {axis},
        vanishes=all(labels.vanishes for labels in inputs),
    )


def _run_stack(run: Run, step: Step, values: list[Any]) -> Any:
    del run
    axis = step.equation.params["axis"]
    shape = np.broadcast_shapes(*[jnp.shape(value) for value in values])
    return jnp.stack([jnp.broadcast_to(value, shape) for value in values], axis)


def _run_concatenate(run: Run, step: Step, values: list[Any]) -> Any:
    axis = step.equation.params["dimension"]
    kept = run.kept(step.outputs[0], axis)
    parts: list[Any] = []
    start = 0
    for value, labels in zip(values, step.inputs, strict=True):
        stop = start + labels.shape[axis]
        if axis in labels.uniform:
            sizes = list(value.shape)
            sizes[axis] = int(kept[start:stop].sum())
            value = jnp.broadcast_to(value, sizes)  # noqa: PLW2901
        parts.append(value)
        start = stop
    shape = np.broadcast_shapes(
        *[tuple(1 if d == axis else n for d, n in enumerate(p.shape)) for p in parts]
    )
    parts = [
        jnp.broadcast_to(
            p, [p.shape[d] if d == axis else n for d, n in enumerate(shape)]
        )
        for p in parts
    ]
    return lax.concatenate(parts, axis)


register("stack", _stack, _run_stack)
register("concatenate", _concatenate, _run_concatenate)
