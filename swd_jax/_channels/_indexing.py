"""Operations that take parts of arrays out, put them in, or add to their ends."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from swd_jax._channels import _labels, _types
from swd_jax._channels._context import Context
from swd_jax._channels._labels import Labels
from swd_jax._channels._registry import Run, Step, bind, register


def _taken(labels: Labels, dim: int, places: slice, size: int) -> Labels:
    """Labels of some positions along an axis."""
    blocks = dict(labels.blocks)
    key = labels.block_of(dim)
    if key:
        index = [slice(None)] * len(key)
        index[key.index(dim)] = places
        blocks[key] = blocks[key][tuple(index)]
    shape = (*labels.shape[:dim], size, *labels.shape[dim + 1 :])
    return labels.replaced(shape=shape, blocks=blocks)


def _slices(equation: _types.Equation, shape: Sequence[int]) -> dict[int, slice]:
    """The axes of which a slice takes less than all."""
    params = equation.params
    strides = params["strides"] or [1] * len(shape)
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return {
        dim: slice(*bound)
        for dim, bound in enumerate(bounds)
        if bound != (0, shape[dim], 1)
    }


def _slice(context: Context, equation: _types.Equation, inputs: list[Labels]) -> Labels:
    [labels] = inputs
    shape = equation.outvars[0].aval.shape
    for dim, places in _slices(equation, labels.shape).items():
        labels = context.parallel(labels, dim)
        labels = _taken(labels, dim, places, shape[dim])
    return context.simplified(labels)


def _run_slice(run: Run, step: Step, values: list[Any]) -> Any:
    value, [labels] = values[0], step.inputs
    for dim, places in _slices(step.equation, labels.shape).items():
        value = _part(run, value, labels, dim, places)
    return value


def _part(run: Run, value: Any, labels: Labels, dim: int, places: slice) -> Any:
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
    return _selected(value, chosen[kept], dim)


def _selected(value: Any, chosen: _types.Bools, dim: int) -> Any:
    places = np.flatnonzero(chosen)
    if len(places) and len(places) == places[-1] + 1 - places[0]:
        return lax.slice_in_dim(value, int(places[0]), int(places[-1]) + 1, axis=dim)
    return jnp.take(value, places, axis=dim)


def _split(
    context: Context, equation: _types.Equation, inputs: list[Labels]
) -> list[Labels]:
    [labels] = inputs
    axis = equation.params["axis"]
    labels = context.parallel(labels, axis)
    parts: list[Labels] = []
    for places in _consecutive(equation.params["sizes"]):
        part = _taken(labels, axis, places, places.stop - places.start)
        parts.append(context.simplified(part))
    return parts


def _run_split(run: Run, step: Step, values: list[Any]) -> list[Any]:
    axis = step.equation.params["axis"]
    return [
        _part(run, values[0], step.inputs[0], axis, places)
        for places in _consecutive(step.equation.params["sizes"])
    ]


def _unstack(
    context: Context, equation: _types.Equation, inputs: list[Labels]
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


def _pad(context: Context, equation: _types.Equation, inputs: list[Labels]) -> Labels:
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


def _dynamic_slice(
    context: Context, equation: _types.Equation, inputs: list[Labels]
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
            labels = _taken(labels, dim, places, sizes[dim])
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
            value = _part(run, value, labels, dim, places)
        else:
            value = run.filled(value, labels, [dim])
            value = lax.dynamic_slice_in_dim(value, starts[dim], sizes[dim], dim)
    return value


def _dynamic_update_slice(
    context: Context, equation: _types.Equation, inputs: list[Labels]
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
    context: Context, equation: _types.Equation, inputs: list[Labels]
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
    blocks: dict[_types.Dims, _types.Ids] = {}
    for source, to in ((labels, to_out), (indices, index_to_out)):
        for key, ids in source.blocks.items():
            if set(key) <= to.keys():
                new, turned = _labels.ordered([to[dim] for dim in key], ids)
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
    context: Context, equation: _types.Equation, inputs: list[Labels]
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
            new, turned = _labels.ordered([back[dim] for dim in key], ids)
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


def _random_bits(
    context: Context, equation: _types.Equation, inputs: list[Labels]
) -> Labels:
    del inputs
    # Random numbers go with what they are used for: they are made for the full size,
    # and cut.
    shape = equation.outvars[0].aval.shape
    blocks = {
        (dim,): context.atoms.fresh(size) for dim, size in enumerate(shape) if size > 1
    }
    return Labels(shape, blocks)


def _run_random_bits(run: Run, step: Step, values: list[Any]) -> Any:
    [result] = step.outputs
    bits = bind(step.equation, *values)
    for dim in range(result.rank):
        kept = run.kept(result, dim)
        if not kept.all():
            bits = _selected(bits, kept, dim)
    return bits


def unknown(
    context: Context, equation: _types.Equation, inputs: list[Labels]
) -> list[Labels]:
    """Freeze everything that an operation without a rule takes."""
    why = "goes into an operation that is not understood"
    for labels in inputs:
        context.freeze(labels, why)
    data = any(labels.data for labels in inputs)
    return [
        _labels.fixed(getattr(variable.aval, "shape", ()), data=data)
        for variable in equation.outvars
    ]


def run_unknown(run: Run, step: Step, values: list[Any]) -> Any:
    """Run it as it was: nothing that it takes has changed its size."""
    filled = [
        run.filled(value, labels, range(labels.rank))
        for value, labels in zip(values, step.inputs, strict=True)
    ]
    return bind(step.equation, *filled)


register("slice", _slice, _run_slice)
register("split", _split, _run_split)
register("unstack", _unstack, _run_unstack)
register("pad", _pad, _run_pad)
register("dynamic_slice", _dynamic_slice, _run_dynamic_slice)
register("dynamic_update_slice", _dynamic_update_slice, _run_dynamic_update_slice)
register("gather", _gather, _run_gather)
register(
    "scatter scatter-add scatter_add scatter-mul scatter_mul scatter-min scatter_min "
    "scatter-max scatter_max",
    _scatter,
    _run_scatter,
)
register("random_bits", _random_bits, _run_random_bits)
