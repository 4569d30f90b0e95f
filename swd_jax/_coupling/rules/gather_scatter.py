"""Operations that take out parts of arrays, or put them in, at places in arrays."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from swd_jax._coupling import array_types, axis_labels
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.label_operations import Context
from swd_jax._coupling.rules.registry import Run, Step, bind, register
from swd_jax._coupling.rules.slicing import part, taken


def _dynamic_slice(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> Labels:
    labels, *starts = inputs
    sizes = equation.params["slice_sizes"]
    for dim, places in _places(labels, sizes, starts).items():
        if places is None:
            why = "taken out by a position that only the run knows"
            labels = context.frozen(labels, why, [dim])
            shape = (*labels.shape[:dim], sizes[dim], *labels.shape[dim + 1 :])
            labels = labels.replaced(shape=shape)
        else:
            labels = context.parallel(labels, dim)
            labels = taken(labels, dim, places, sizes[dim])
    return context.simplified(labels.replaced(data=any(x.data for x in inputs)))


def _places(
    labels: Labels, sizes: Sequence[int], starts: Sequence[Labels]
) -> dict[int, slice | None]:
    """The axes of which a dynamic slice takes less than all, and where if known."""
    places: dict[int, slice | None] = {}
    for dim, (full, size) in enumerate(zip(labels.shape, sizes, strict=True)):
        if size != full:
            known = starts[dim].known
            start = None if known is None else int(np.clip(known, 0, full - size))
            places[dim] = None if start is None else slice(start, start + size)
    return places


def _run_dynamic_slice(run: Run, step: Step, values: list[Any]) -> Any:
    value, *starts = values
    labels = step.inputs[0]
    sizes = step.equation.params["slice_sizes"]
    for dim, places in _places(labels, sizes, step.inputs[1:]).items():
        if places is not None:
            value = part(run, value, labels, dim, places)
        else:
            value = run.filled(value, labels, [dim])
            value = lax.dynamic_slice_in_dim(value, starts[dim], sizes[dim], dim)
    return value


def _dynamic_update_slice(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> Labels:
    del equation
    labels, part, *_ = inputs
    partial = _partial(labels, part)
    why = "written to by position"
    labels = context.frozen(labels, why, partial)
    part = context.frozen(part, why, partial)
    whole = [dim for dim in range(labels.rank) if dim not in partial]
    labels, part = context.together(labels, whole, part, whole)
    added = {
        key: ids for key, ids in part.blocks.items() if labels.uniform.issuperset(key)
    }
    return labels.replaced(
        blocks={**labels.blocks, **added},
        uniform=(labels.uniform & part.uniform) - set(partial),
        data=any(x.data for x in inputs),
        vanishes=False,
    )


def _partial(labels: Labels, part: Labels) -> list[int]:
    sizes = zip(labels.shape, part.shape, strict=True)
    return [dim for dim, (full, size) in enumerate(sizes) if full != size]


def _run_dynamic_update_slice(run: Run, step: Step, values: list[Any]) -> Any:
    value, part, *starts = values
    labels, part_labels = step.inputs[:2]
    partial = _partial(labels, part_labels)
    value = run.filled(value, labels, partial)
    part = run.filled(part, part_labels, partial)
    for dim in range(labels.rank):
        if dim not in partial:
            size = max(value.shape[dim], part.shape[dim])
            value = _repeated(value, dim, size)
            part = _repeated(part, dim, size)
    return bind(step.equation, value, part, *starts)


def _repeated(value: Any, dim: int, size: int) -> Any:
    if value.shape[dim] == size:
        return value
    return jnp.broadcast_to(value, (*value.shape[:dim], size, *value.shape[dim + 1 :]))


def _gather(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> Labels:
    labels, indices = inputs
    numbers = equation.params["dimension_numbers"]
    sizes = equation.params["slice_sizes"]
    shape = equation.outvars[0].aval.shape
    batching = numbers.operand_batching_dims
    index_batching = numbers.start_indices_batching_dims
    whole = [
        dim
        for dim in range(labels.rank)
        if sizes[dim] == labels.shape[dim]
        and dim not in (*numbers.collapsed_slice_dims, *batching)
    ]
    looked_up = [d for d in range(labels.rank) if d not in (*whole, *batching)]
    labels = context.frozen(labels, "looked up by index", looked_up)
    labels = context.resolved(labels, batching)
    last = indices.rank - 1
    indices = context.frozen(indices, "used as an index", [last])
    labels, indices = context.together(labels, batching, indices, index_batching)
    context.use(labels, whole, "producer")
    remaining = [
        dim
        for dim in range(labels.rank)
        if dim not in (*numbers.collapsed_slice_dims, *batching)
    ]
    to_out = dict(zip(remaining, numbers.offset_dims, strict=True))
    places = [dim for dim in range(len(shape)) if dim not in numbers.offset_dims]
    index_to_out = dict(zip(range(last), places, strict=True))
    blocks: dict[array_types.Dims, array_types.Ids] = {}
    for source, to in ((labels, to_out), (indices, index_to_out)):
        for key, ids in source.blocks.items():
            if set(key) <= to.keys():
                new, turned = axis_labels.ordered([to[dim] for dim in key], ids)
                blocks[new] = turned
    uniform = {to_out[dim] for dim in whole if dim in labels.uniform}
    uniform |= {
        index_to_out[dim]
        for dim in range(last)
        if dim in indices.uniform and dim not in index_batching
    }
    for dim, other in zip(batching, index_batching, strict=True):
        if dim in labels.uniform and other in indices.uniform:
            uniform.add(index_to_out[other])
        elif (dim,) in labels.blocks:
            blocks[index_to_out[other],] = labels.vector(dim)
    return Labels(
        shape,
        blocks,
        frozenset(uniform),
        data=labels.data or indices.data,
        vanishes=labels.vanishes and not indices.labelled,
    )


def _run_gather(run: Run, step: Step, values: list[Any]) -> Any:
    params = step.equation.params
    numbers = params["dimension_numbers"]
    labels, indices = step.inputs
    looked_up = [
        dim
        for dim in range(labels.rank)
        if params["slice_sizes"][dim] != labels.shape[dim]
        or dim in numbers.collapsed_slice_dims
    ]
    value = run.filled(values[0], labels, [*looked_up, *numbers.operand_batching_dims])
    where = run.filled(
        values[1], indices, [indices.rank - 1, *numbers.start_indices_batching_dims]
    )
    sizes = [
        size
        if dim in looked_up or dim in numbers.operand_batching_dims
        else value.shape[dim]
        for dim, size in enumerate(params["slice_sizes"])
    ]
    return bind(step.equation, value, where, slice_sizes=tuple(sizes))


def _scatter(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> Labels:
    labels, indices, updates = inputs
    numbers = equation.params["dimension_numbers"]
    if numbers.operand_batching_dims:
        raise NotImplementedError
    window, whole = _scatter_dims(numbers, labels, updates)
    others = [dim for dim in range(labels.rank) if dim not in whole]
    rest = [d for d in range(updates.rank) if d not in [window[w] for w in whole]]
    why = "written to by index"
    labels = context.frozen(labels, why, others)
    updates = context.frozen(updates, why, rest)
    context.freeze(indices, "used as an index")
    pairs = [window[dim] for dim in whole]
    labels, updates = context.together(labels, whole, updates, pairs)
    back = dict(zip(pairs, whole, strict=True))
    blocks = dict(labels.blocks)
    for key, ids in updates.blocks.items():
        if set(key) <= back.keys():
            new, turned = axis_labels.ordered([back[dim] for dim in key], ids)
            blocks.setdefault(new, turned)
    stay = {dim for dim in whole if dim in labels.uniform}
    stay = {dim for dim in stay if window[dim] in updates.uniform}
    return labels.replaced(
        blocks=blocks,
        uniform=frozenset(stay),
        data=any(x.data for x in inputs),
        vanishes=False,
    )


def _scatter_dims(
    numbers: Any, labels: Labels, updates: Labels
) -> tuple[dict[int, int], list[int]]:
    """Axes of updates by those of the operand, and those written as a whole."""
    remaining = [
        dim
        for dim in range(labels.rank)
        if dim not in numbers.inserted_window_dims
        and dim not in numbers.operand_batching_dims
    ]
    window = dict(zip(remaining, numbers.update_window_dims, strict=True))
    indexed = set(numbers.scatter_dims_to_operand_dims)
    whole = [
        dim
        for dim, place in window.items()
        if dim not in indexed and labels.shape[dim] == updates.shape[place]
    ]
    return window, whole


def _run_scatter(run: Run, step: Step, values: list[Any]) -> Any:
    labels, indices, updates = step.inputs
    numbers = step.equation.params["dimension_numbers"]
    window, whole = _scatter_dims(numbers, labels, updates)
    value = run.filled(
        values[0], labels, [d for d in range(labels.rank) if d not in whole]
    )
    where = run.filled(values[1], indices, range(indices.rank))
    paired = [window[dim] for dim in whole]
    new = run.filled(
        values[2], updates, [d for d in range(updates.rank) if d not in paired]
    )
    for dim in whole:
        size = max(value.shape[dim], new.shape[window[dim]])
        value = _repeated(value, dim, size)
        new = _repeated(new, window[dim], size)
    return bind(step.equation, value, where, new)


register("dynamic_slice", _dynamic_slice, _run_dynamic_slice)
register("dynamic_update_slice", _dynamic_update_slice, _run_dynamic_update_slice)
register("gather", _gather, _run_gather)
register(
    "scatter scatter-add scatter_add scatter-mul scatter_mul scatter-min scatter_min "
    "scatter-max scatter_max",
    _scatter,
    _run_scatter,
)
