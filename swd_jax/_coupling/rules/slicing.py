"""Operations that cut an array into parts along an axis, or add to its ends."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from swd_jax._coupling import array_types
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.label_operations import Context
from swd_jax._coupling.rules.registry import Run, Step, register


def taken(labels: Labels, dim: int, places: slice, size: int) -> Labels:
    """Labels of some positions along an axis."""
    blocks = dict(labels.blocks)
    key = labels.block_of(dim)
    if key:
        index = [slice(None)] * len(key)
        index[key.index(dim)] = places
        blocks[key] = blocks[key][tuple(index)]
    shape = (*labels.shape[:dim], size, *labels.shape[dim + 1 :])
    return labels.replaced(shape=shape, blocks=blocks)


def _slices(equation: array_types.Equation, shape: Sequence[int]) -> dict[int, slice]:
    """The axes of which a slice takes less than all."""
    params = equation.params
    strides = params["strides"] or [1] * len(shape)
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return {
        dim: slice(*bound)
        for dim, bound in enumerate(bounds)
        if bound != (0, shape[dim], 1)
    }


def _slice(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> Labels:
    [labels] = inputs
    shape = equation.outvars[0].aval.shape
    for dim, places in _slices(equation, labels.shape).items():
        labels = context.parallel(labels, dim)
        labels = taken(labels, dim, places, shape[dim])
    return context.simplified(labels)


def _run_slice(run: Run, step: Step, values: list[Any]) -> Any:
    value, [labels] = values[0], step.inputs
    for dim, places in _slices(step.equation, labels.shape).items():
        value = part(run, value, labels, dim, places)
    return value


def part(run: Run, value: Any, labels: Labels, dim: int, places: slice) -> Any:
    """Positions of the full axis, as far as they are kept, from the axis as it is."""
    if dim in labels.uniform:
        return value
    kept = run.kept(labels, dim)
    if kept.all():
        return lax.slice_in_dim(
            value, places.start, places.stop, places.step or 1, axis=dim
        )
    chosen = np.zeros_like(kept)
    chosen[places] = True
    return selected(value, chosen[kept], dim)


def selected(value: Any, chosen: array_types.Bools, dim: int) -> Any:
    places = np.flatnonzero(chosen)
    if len(places) and len(places) == places[-1] + 1 - places[0]:
        return lax.slice_in_dim(value, int(places[0]), int(places[-1]) + 1, axis=dim)
    return jnp.take(value, places, axis=dim)


def _split(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> list[Labels]:
    [labels] = inputs
    axis = equation.params["axis"]
    labels = context.parallel(labels, axis)
    parts: list[Labels] = []
    for places in _consecutive(equation.params["sizes"]):
        part = taken(labels, axis, places, places.stop - places.start)
        parts.append(context.simplified(part))
    return parts


def _run_split(run: Run, step: Step, values: list[Any]) -> list[Any]:
    axis = step.equation.params["axis"]
    return [
        part(run, values[0], step.inputs[0], axis, places)
        for places in _consecutive(step.equation.params["sizes"])
    ]


def _unstack(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> list[Labels]:
    [labels] = inputs
    axis = equation.params["axis"]
    left = [dim for dim in range(labels.rank) if dim != axis]
    shape = [labels.shape[dim] for dim in left]
    labels = context.frozen(context.parallel(labels, axis), "taken apart", [axis])
    part = labels.moved({dim: new for new, dim in enumerate(left)}, shape)
    return [part] * labels.shape[axis]


def _run_unstack(run: Run, step: Step, values: list[Any]) -> list[Any]:
    axis = step.equation.params["axis"]
    value = run.filled(values[0], step.inputs[0], [axis])
    return [
        lax.index_in_dim(value, index, axis, keepdims=False)
        for index in range(len(step.outputs))
    ]


def _consecutive(sizes: Sequence[int]) -> list[slice]:
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def _pad(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> Labels:
    labels, filler = inputs
    shape = equation.outvars[0].aval.shape
    for dim, (low, high, inner) in enumerate(equation.params["padding_config"]):
        if (low, high, inner) == (0, 0, 0):
            continue
        if dim not in labels.labelled:
            blocks = dict(labels.blocks)
        elif inner:
            labels = context.frozen(labels, "padding between its channels", [dim])
            blocks = dict(labels.blocks)
        else:
            # What is padded is the same number: it can go with what it is added to.
            labels = context.resolved(labels, [dim])
            along = labels.vector(dim)[max(-low, 0) : labels.shape[dim] + min(high, 0)]
            added = [context.atoms.fresh(max(end, 0)) for end in (low, high)]
            blocks = {
                **labels.blocks,
                (dim,): np.concatenate([added[0], along, added[1]]),
            }
        labels = labels.replaced(
            shape=(*labels.shape[:dim], shape[dim], *labels.shape[dim + 1 :]),
            blocks=blocks,
            uniform=labels.uniform - {dim},
        )
    return labels.replaced(data=labels.data or filler.data, vanishes=False)


def _run_pad(run: Run, step: Step, values: list[Any]) -> Any:
    labels, [result] = step.inputs[0], step.outputs
    config = list(step.equation.params["padding_config"])
    changed = [dim for dim, ends in enumerate(config) if any(ends)]
    value = run.filled(values[0], labels, changed)
    for dim in changed:
        kept = run.kept(result, dim)
        low, high, inner = config[dim]
        if inner or (run.kept(labels, dim).all() and kept.all()):
            continue
        # Only the ends that are kept; a negative one takes off what is kept there.
        before = run.kept(labels, dim)
        ends = (
            int(kept[:low].sum()) if low >= 0 else -int(before[:-low].sum()),
            int(kept[len(kept) - high :].sum())
            if high >= 0
            else -int(before[len(before) + high :].sum()),
        )
        config[dim] = (*ends, 0)
    return lax.pad(value, values[1], config)


register("slice", _slice, _run_slice)
register("split", _split, _run_split)
register("unstack", _unstack, _run_unstack)
register("pad", _pad, _run_pad)
