"""Convolutions and matrix products: what they sum over goes together."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from swd_jax._coupling import analysis_record, array_types, axis_labels, union_find
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.label_operations import Context
from swd_jax._coupling.rules.registry import Run, Step, bind, register


def _factors(labels: Labels, dims: Sequence[int]) -> list[array_types.Ids]:
    """The atoms of some axes, a block at a time, for the count of multiply-adds."""
    found: list[array_types.Ids] = []
    keys = {labels.block_of(dim) or (dim,) for dim in dims}
    for key in sorted(keys):
        found.append(
            labels.blocks[key].ravel()
            if key in labels.blocks
            else np.full(labels.shape[key[0]], union_find.FIXED)
        )
    return found


def _sum_over(
    context: Context,
    left: Labels,
    right: Labels,
    left_dims: Sequence[int],
    right_dims: Sequence[int],
) -> None:
    """Check that channels which are summed over leave nothing when they are gone."""
    why = ""
    if left.data and right.data:
        why = "a product of two activations sums over it"
    elif not (left.vanishes or right.vanishes):
        why = "summed over with factors that are no parameters of its own"
    if why:
        context.freeze(left, why, left_dims)
        context.freeze(right, why, right_dims)
    else:
        # A uniform factor has no part in any channel: the other must vanish.
        for one, dims, other, other_dims in (
            (left, left_dims, right, right_dims),
            (right, right_dims, left, left_dims),
        ):
            for dim, partner in zip(dims, other_dims, strict=True):
                if partner in other.uniform and not one.vanishes:
                    context.freeze(one, "summed over", [dim])


def _dot_general(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> Labels:
    left, right = inputs
    (left_sum, right_sum), (left_batch, right_batch) = equation.params[
        "dimension_numbers"
    ]
    left = _partly(context, left, left_sum, left_batch)
    right = _partly(context, right, right_sum, right_batch)
    left_dims, right_dims = (*left_sum, *left_batch), (*right_sum, *right_batch)
    left, right = context.together(left, left_dims, right, right_dims)
    left_free = [dim for dim in range(left.rank) if dim not in left_dims]
    right_free = [dim for dim in range(right.rank) if dim not in right_dims]
    # Of two parameters the left one is applied first.
    both = not (left.data or right.data)
    context.use(
        left, left_sum, analysis_record.PRODUCER if both else analysis_record.CONSUMER
    )
    context.use(right, right_sum, analysis_record.CONSUMER)
    context.use(left, [*left_free, *left_batch], analysis_record.PRODUCER)
    context.use(right, [*right_free, *right_batch], analysis_record.PRODUCER)
    _sum_over(context, left, right, left_sum, right_sum)
    if (
        left.data
        and right.data
        and (context.movable(left, left_batch) or context.movable(right, right_batch))
    ):
        # Attention: a head has one size for all, and is removed as a whole.
        why = "inside the heads of an attention"
        left = context.frozen(left, why, left_free)
        right = context.frozen(right, why, right_free)
    context.product(
        1,
        [
            *_factors(left, left_free),
            *_factors(right, right_free),
            *[
                ids
                for pair in zip(left_dims, right_dims, strict=True)
                for ids in _shared(left, pair[0], right, pair[1])
            ],
        ],
    )
    return _product_labels(
        equation, left, right, left_batch, right_batch, left_free, right_free
    )


def _partly(
    context: Context, labels: Labels, sums: Sequence[int], batch: Sequence[int]
) -> Labels:
    """Resolve the blocks that the product takes apart.

    Heads keep the labels, not what is summed over inside them.
    """
    inside = {*sums}
    for key in list(labels.blocks):
        if len(key) > 1 and (set(key) & inside) and (set(key) - inside):
            labels = context.resolved(labels, set(key) & inside)
        elif len(key) > 1 and set(key) & set(batch):
            labels = context.resolved(labels, set(key) - set(batch) or {key[-1]})
    return labels


def _shared(
    left: Labels, left_dim: int, right: Labels, right_dim: int
) -> list[array_types.Ids]:
    """The factor of an axis that both arrays have: a joint block counts once."""
    for labels, dim in ((left, left_dim), (right, right_dim)):
        key = labels.block_of(dim)
        if key:
            return [labels.blocks[key].ravel()] if key[0] == dim else []
    return [np.full(left.shape[left_dim], union_find.FIXED)]


def _product_labels(  # noqa: PLR0917
    equation: array_types.Equation,
    left: Labels,
    right: Labels,
    left_batch: Sequence[int],
    right_batch: Sequence[int],
    left_free: Sequence[int],
    right_free: Sequence[int],
) -> Labels:
    shape = equation.outvars[0].aval.shape
    batch = len(left_batch)
    blocks: dict[array_types.Dims, array_types.Ids] = {}
    uniform: set[int] = set()
    for labels, dims, start in (
        (left, [*left_batch, *left_free], 0),
        (right, right_batch, 0),
        (right, right_free, batch + len(left_free)),
    ):
        to = {dim: start + place for place, dim in enumerate(dims)}
        for key, ids in labels.blocks.items():
            if set(key) <= to.keys():
                new, turned = axis_labels.ordered([to[dim] for dim in key], ids)
                blocks.setdefault(new, turned)
        uniform |= {to[dim] for dim in to if dim in labels.uniform}
    for one, other in zip(left_batch, right_batch, strict=True):
        place = list(left_batch).index(one)
        if not (one in left.uniform and other in right.uniform):
            uniform.discard(place)
    vanishes = all(
        labels.vanishes or not labels.labelled.intersection(dims)
        for labels, dims in ((left, left_free), (right, right_free))
    ) and (
        left.vanishes or right.vanishes or not (left.labelled.intersection(left_batch))
    )
    return Labels(
        shape,
        blocks,
        frozenset(uniform),
        data=left.data or right.data,
        vanishes=vanishes,
    )


def _run_dot_general(run: Run, step: Step, values: list[Any]) -> Any:
    (left_sum, right_sum), (left_batch, right_batch) = step.equation.params[
        "dimension_numbers"
    ]
    left, right = values
    for dim, other in zip(
        (*left_sum, *left_batch), (*right_sum, *right_batch), strict=True
    ):
        both = dim in step.inputs[0].uniform and other in step.inputs[1].uniform
        if both and dim in left_sum:
            left = run.filled(left, step.inputs[0], [dim])
        left = _sized(left, dim, right.shape[other])
        right = _sized(right, other, left.shape[dim])
    return bind(step.equation, left, right)


def _sized(value: Any, dim: int, size: int) -> Any:
    """An array of size 1 along an axis, as often as another one needs it."""
    if value.shape[dim] != 1 or size == 1:
        return value
    return jnp.broadcast_to(value, (*value.shape[:dim], size, *value.shape[dim + 1 :]))


def _conv(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> Labels:
    images, kernel = inputs
    params = equation.params
    groups = params["feature_group_count"]
    if params["batch_group_count"] != 1:
        raise NotImplementedError
    numbers = params["dimension_numbers"]
    batch, channels, *pixels = numbers.lhs_spec
    out, into, *window = numbers.rhs_spec
    images = context.frozen(images, "the pixels of a convolution", [batch, *pixels])
    for dim in window:
        context.atoms.freeze(kernel.vector(dim), "the window of a convolution")
    kernel = context.frozen(kernel, "the window of a convolution", window)
    images, kernel = (
        context.resolved(images, [channels]),
        context.resolved(kernel, [out, into]),
    )
    context.use(kernel, [out], analysis_record.PRODUCER)
    context.use(kernel, [into], analysis_record.CONSUMER)
    context.use(images, [channels], analysis_record.OTHER)
    if groups == 1:
        images, kernel = context.together(images, [channels], kernel, [into])
        _sum_over(context, images, kernel, [channels], [into])
    else:
        kernel = context.frozen(kernel, "inside the groups of a convolution", [into])
        into_and_out = [
            images.vector(channels).reshape(groups, -1),
            kernel.vector(out).reshape(groups, -1),
        ]
        context.atoms.unite(
            np.concatenate(into_and_out, axis=1),
            into_and_out[1][:, :1],
            f"the groups of a convolution ({context.where})",
        )
    shape = equation.outvars[0].aval.shape
    out_batch, out_channels, *out_pixels = numbers.out_spec
    blocks = {(out_channels,): kernel.vector(out)} if (out,) in kernel.blocks else {}
    spatial = math.prod(
        _window_positions(
            images.shape[pixels[i]],
            shape[out_pixels[i]],
            kernel.shape[window[i]],
            params["padding"][i][0],
            params["window_strides"][i],
            params["lhs_dilation"][i],
            params["rhs_dilation"][i],
        )
        for i in range(len(pixels))
    )
    context.product(
        spatial * shape[out_batch],
        [
            kernel.vector(out),
            kernel.vector(into)
            if (into,) in kernel.blocks or groups > 1
            else images.vector(channels),
        ],
    )
    return Labels(
        shape,
        blocks,
        data=images.data or kernel.data,
        vanishes=kernel.vanishes,
    )


def _window_positions(  # noqa: PLR0917
    size: int, out: int, window: int, low: int, stride: int, dilation: int, holes: int
) -> int:
    """Products along one axis, of all windows, but for those with padding or holes."""
    starts = np.arange(out) * stride - low
    places = starts[:, None] + np.arange(window) * holes
    inside = (places >= 0) & (places <= (size - 1) * dilation)
    return int((inside & (places % dilation == 0)).sum())


def _run_conv(run: Run, step: Step, values: list[Any]) -> Any:
    params = step.equation.params
    numbers = params["dimension_numbers"]
    images, kernel = step.inputs
    batch, channels, *pixels = numbers.lhs_spec
    left = run.filled(values[0], images, [batch, *pixels])
    right = run.filled(values[1], kernel, range(kernel.rank))
    groups = params["feature_group_count"]
    if groups > 1:
        per_group = kernel.shape[numbers.rhs_spec[0]] // groups
        groups = right.shape[numbers.rhs_spec[0]] // per_group
    wanted = right.shape[numbers.rhs_spec[1]] * groups
    left = _sized(left, channels, wanted)
    return lax.conv_general_dilated(
        left,
        right,
        window_strides=params["window_strides"],
        padding=params["padding"],
        lhs_dilation=params["lhs_dilation"],
        rhs_dilation=params["rhs_dilation"],
        dimension_numbers=numbers,
        feature_group_count=groups,
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )


register("dot_general", _dot_general, _run_dot_general)
register("conv_general_dilated", _conv, _run_conv)
