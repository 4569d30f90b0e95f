"""Operations along axes: reductions, pooling, running sums, sorting."""

from collections.abc import Sequence
from typing import Any

from jax import lax

from swd_jax._coupling import array_types, axis_labels
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.label_operations import Context
from swd_jax._coupling.rules.registry import Run, Step, bind, register


def _reduce(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> list[Labels]:
    axes = {axis % inputs[0].rank for axis in equation.params["axes"]}
    return [_reduced(context, labels, axes) for labels in inputs]


def _reduced(context: Context, labels: Labels, axes: set[int]) -> Labels:
    why = "computed over all of its channels"
    for key in list(labels.blocks):
        if axes.issuperset(key):
            context.freeze(labels, why, key)
        elif axes.intersection(key):
            # A part of a split axis, as in a group norm: what is left keeps the labels.
            labels = _united_inside(context, labels, key, axes)
    left = [dim for dim in range(labels.rank) if dim not in axes]
    blocks = {key: v for key, v in labels.blocks.items() if not axes & set(key)}
    return labels.replaced(blocks=blocks, vanishes=False).moved(
        {dim: new for new, dim in enumerate(left)}, [labels.shape[dim] for dim in left]
    )


def _united_inside(
    context: Context, labels: Labels, key: array_types.Dims, axes: set[int]
) -> Labels:
    ids = labels.blocks[key]
    inside = [i for i, dim in enumerate(key) if dim in axes]
    ids = ids.transpose([*[i for i in range(ids.ndim) if i not in inside], *inside])
    outer = ids.shape[: ids.ndim - len(inside)]
    flat = ids.reshape(*outer, -1)
    context.atoms.unite(
        flat[..., :1], flat, f"computed over a part of its channels ({context.where})"
    )
    left = tuple(dim for dim in key if dim not in axes)
    return labels.replaced(blocks={**labels.without(key), left: flat[..., 0]})


def _run_reduce(run: Run, step: Step, values: list[Any]) -> Any:
    axes = step.equation.params["axes"]
    filled = [
        run.filled(value, labels, axes)
        for value, labels in zip(values, step.inputs, strict=True)
    ]
    return bind(step.equation, *filled)


def _window_dims(equation: array_types.Equation) -> list[int]:
    """The axes along which a window sees more than one position, or padding."""
    params = equation.params
    columns = (
        params["window_dimensions"],
        params["window_strides"],
        params["base_dilation"],
        params["window_dilation"],
        params["padding"],
    )
    return [
        dim
        for dim, (size, stride, base, holes, padding) in enumerate(
            zip(*columns, strict=True)
        )
        if (size, stride, base, holes, *padding) != (1, 1, 1, 1, 0, 0)
    ]


def _pool(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> list[Labels]:
    return _along(context, equation, inputs, _window_dims(equation))


def _run_pool(run: Run, step: Step, values: list[Any]) -> Any:
    return _run_along(run, step, values, _window_dims(step.equation))


def _along(
    context: Context,
    equation: array_types.Equation,
    inputs: list[Labels],
    dims: Sequence[int],
) -> list[Labels]:
    """Freeze what the operation runs along; all operands go together elsewhere."""
    shape = equation.outvars[0].aval.shape
    why = "computed along its channels"
    inputs = [context.frozen(labels, why, dims) for labels in inputs if labels.rank]
    merged = inputs[0]
    for labels in inputs[1:]:
        merged = context.merged(merged, labels)
    blocks = {key: v for key, v in merged.blocks.items() if not set(key) & set(dims)}
    result = merged.replaced(
        shape=tuple(shape),
        blocks=blocks,
        data=any(labels.data for labels in inputs),
        vanishes=False,
    )
    return [result] * len(equation.outvars)


def _run_along(run: Run, step: Step, values: list[Any], dims: Sequence[int]) -> Any:
    filled = [
        run.filled(value, labels, dims) if labels.rank else value
        for value, labels in zip(values, step.inputs, strict=True)
    ]
    return bind(step.equation, *filled)


def _running(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> list[Labels]:
    return _along(context, equation, inputs, [equation.params["axis"]])


def _run_running(run: Run, step: Step, values: list[Any]) -> Any:
    return _run_along(run, step, values, [step.equation.params["axis"]])


def _sort(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> list[Labels]:
    return _along(context, equation, inputs, [equation.params["dimension"]])


def _run_sort(run: Run, step: Step, values: list[Any]) -> Any:
    shape = step.outputs[0]
    filled = [
        run.filled(value, labels, sorted(labels.uniform - shape.uniform))
        for value, labels in zip(values, step.inputs, strict=True)
    ]
    return _run_along(run, step, filled, [step.equation.params["dimension"]])


def _top_k(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> list[Labels]:
    return _along(context, equation, inputs, [inputs[0].rank - 1])


def _run_top_k(run: Run, step: Step, values: list[Any]) -> Any:
    return _run_along(run, step, values, [step.inputs[0].rank - 1])


def _iota(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> Labels:
    del context, inputs
    shape = equation.params["shape"]
    counted = equation.params["dimension"]
    return axis_labels.constant(shape).replaced(
        uniform=frozenset(range(len(shape))) - {counted}
    )


def _run_iota(run: Run, step: Step, values: list[Any]) -> Any:
    del run, values
    params = step.equation.params
    counted = params["dimension"]
    sizes = [size if dim == counted else 1 for dim, size in enumerate(params["shape"])]
    return lax.broadcasted_iota(params["dtype"], sizes, counted)


register(
    "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor "
    "argmax argmin",
    _reduce,
    _run_reduce,
)
register(
    "reduce_window_max reduce_window_min reduce_window_sum reduce_window",
    _pool,
    _run_pool,
)
register("cumsum cumprod cummax cummin cumlogsumexp", _running, _run_running)
register("sort", _sort, _run_sort)
register("top_k", _top_k, _run_top_k)
register("iota", _iota, _run_iota)
