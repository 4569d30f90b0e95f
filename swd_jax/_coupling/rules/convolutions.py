"""Rule for convolutions, also grouped and depthwise ones.

Convolution with one feature group: the input maps and the kernel's input axis are the
same channels, because each output sums over all of them. The output maps are new ones.

Convolution with n feature groups, as `feature_group_count=n`: the inputs and outputs of
one feature group are one channel. A smaller kernel must keep the same number of inputs
and outputs in each feature group, so a feature group can only be removed as a whole,
and its inputs and outputs go together.

A depthwise convolution has as many feature groups as inputs, so output map c reads
input map c alone. Its channels are therefore one channel group with those of the layer
before it: removing input c removes filter c of the depthwise kernel and output c.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from swd_jax._coupling import type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import (
    CONSUMER,
    OTHER,
    PRODUCER,
    CouplingAnalysis,
)
from swd_jax._coupling.label_operations import (
    assign_block_to_axis,
    freeze_axes,
    unite_axes,
)
from swd_jax._coupling.rules.matrix_products import freeze_unless_sum_ignores_zeros
from swd_jax._coupling.rules.removed_values import product_value
from swd_jax._coupling.rules.rule_interface import (
    Evaluator,
    Rule,
    Step,
    UnsupportedPrimitive,
    bind,
    param,
    result_shape,
)
from swd_jax._coupling.rules.shared_operations import expand_axis


def _label_convolution(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> Labels:
    images, kernel = inputs
    num_feature_groups = param(equation, "feature_group_count")
    if param(equation, "batch_group_count") != 1:
        raise UnsupportedPrimitive("convolution with batch_group_count > 1")
    numbers = param(equation, "dimension_numbers")
    batch, maps, *pixels = numbers.lhs_spec
    kernel_out, kernel_in, *window = numbers.rhs_spec
    images = freeze_axes(
        analysis, images, "the pixels of a convolution", [batch, *pixels]
    )
    for dim in window:
        analysis.atoms.freeze(kernel.axis_atoms(dim), "the window of a convolution")
    kernel = freeze_axes(analysis, kernel, "the window of a convolution", window)
    images = assign_block_to_axis(analysis, images, [maps])
    kernel = assign_block_to_axis(analysis, kernel, [kernel_out, kernel_in])
    analysis.note_role(kernel, [kernel_out], PRODUCER)
    analysis.note_role(kernel, [kernel_in], CONSUMER)
    analysis.note_role(images, [maps], OTHER)
    if num_feature_groups == 1:
        images, kernel = unite_axes(analysis, images, [maps], kernel, [kernel_in])
        freeze_unless_sum_ignores_zeros(analysis, images, [maps], kernel, [kernel_in])
    else:
        kernel = freeze_axes(
            analysis, kernel, "inside the feature groups of a convolution", [kernel_in]
        )
        _unite_feature_groups(
            analysis,
            images.axis_atoms(maps).reshape(num_feature_groups, -1),
            kernel.axis_atoms(kernel_out).reshape(num_feature_groups, -1),
        )
    if analysis.counts_products:
        _note_multiply_adds(analysis, equation, images, kernel)
    _, result_maps, *_ = numbers.out_spec
    result = Labels(
        result_shape(equation),
        depends_on_input=images.depends_on_input or kernel.depends_on_input,
        not_finite_at=images.not_finite_at or kernel.not_finite_at,
    )
    if (kernel_out,) not in kernel.blocks:
        return result
    factors = [kernel.removed_value(kernel_out)]
    if num_feature_groups > 1:
        factors.append(images.removed_value(maps))
    value = product_value(*factors)
    return result.replace(
        blocks={(result_maps,): kernel.axis_atoms(kernel_out)},
        removed_values={} if value is None else {result_maps: value},
    )


def _unite_feature_groups(
    analysis: CouplingAnalysis,
    map_atoms: type_aliases.AtomIds,
    filter_atoms: type_aliases.AtomIds,
) -> None:
    """Unite the input maps and the filters of each feature group.

    Args:
      analysis: its atoms are united.
      map_atoms: atoms of the input maps, shape (feature groups, maps of each).
      filter_atoms: atoms of the filters, shape (feature groups, filters of each).
    """
    analysis.atoms.unite(
        np.concatenate([map_atoms, filter_atoms], axis=1),
        filter_atoms[:, :1],
        analysis.reason("the feature groups of a convolution"),
    )


def _note_multiply_adds(
    analysis: CouplingAnalysis,
    equation: type_aliases.Equation,
    images: Labels,
    kernel: Labels,
) -> None:
    numbers = param(equation, "dimension_numbers")
    _, maps, *pixels = numbers.lhs_spec
    kernel_out, kernel_in, *window = numbers.rhs_spec
    result_batch, _, *result_pixels = numbers.out_spec
    shape = result_shape(equation)
    num_windows = math.prod(
        _num_products(
            images.shape[pixels[i]],
            shape[result_pixels[i]],
            kernel.shape[window[i]],
            param(equation, "padding")[i],
            param(equation, "window_strides")[i],
            (param(equation, "lhs_dilation")[i], param(equation, "rhs_dilation")[i]),
        )
        for i in range(len(pixels))
    )
    sums_over_kernel = (kernel_in,) in kernel.blocks
    if sums_over_kernel or param(equation, "feature_group_count") > 1:
        summed_atoms = kernel.axis_atoms(kernel_in)
    else:
        summed_atoms = images.axis_atoms(maps)
    analysis.note_product(
        num_windows * shape[result_batch],
        [kernel.axis_atoms(kernel_out), summed_atoms],
    )


def _num_products(  # noqa: PLR0917
    size: int,
    result_size: int,
    window: int,
    padding: Sequence[int],
    stride: int,
    dilations: tuple[int, int],
) -> int:
    """Return the number of products along one axis, without those with zeros.

    Padding and the holes of a dilated input are zeros.
    """
    input_dilation, window_dilation = dilations
    starts = np.arange(result_size) * stride - padding[0]
    positions = starts[:, None] + np.arange(window) * window_dilation
    inside = (positions >= 0) & (positions <= (size - 1) * input_dilation)
    return int((inside & (positions % input_dilation == 0)).sum())


def _run_convolution(evaluator: Evaluator, step: Step, values: list[Any]) -> Any:
    numbers = param(step.equation, "dimension_numbers")
    image_labels, kernel_labels = step.inputs
    batch, maps, *pixels = numbers.lhs_spec
    kernel_out, kernel_in, *_ = numbers.rhs_spec
    images = evaluator.broadcast_to_full(values[0], image_labels, [batch, *pixels])
    num_feature_groups = param(step.equation, "feature_group_count")
    kernel_dims = set(range(kernel_labels.rank))
    if num_feature_groups == 1 and maps not in image_labels.broadcast_axes:
        kernel_dims.remove(kernel_in)
    kernel = evaluator.broadcast_to_full(values[1], kernel_labels, list(kernel_dims))
    if num_feature_groups == 1:
        kernel = expand_axis(kernel, kernel_in, images.shape[maps])
    else:
        filters_of_each = kernel_labels.shape[kernel_out] // num_feature_groups
        num_feature_groups = kernel.shape[kernel_out] // filters_of_each
    images = expand_axis(images, maps, kernel.shape[kernel_in] * num_feature_groups)
    return bind(step.equation, images, kernel, feature_group_count=num_feature_groups)


RULES = {"conv_general_dilated": Rule(_label_convolution, _run_convolution)}
