"""Checks of `shrink`: the groups are the model's, and the smaller model is right."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal, jaxpr_as_fun, jaxprs_in_params

from swd_jax._arrays import tree_paths
from swd_jax._coupling import find_channel_groups, trace_model
from swd_jax._coupling.channel_groups import ChannelGroup, ChannelGroups
from swd_jax._shrinking.example_inputs import example_like
from swd_jax._shrinking.shrunk_apply import SmallerProgram


def check_groups(groups: ChannelGroups, model_groups: ChannelGroups) -> None:
    """Raise if the groups are not those that the analysis of the model gives."""
    if len(groups) != len(model_groups) or not all(
        map(_is_same_group, groups, model_groups)
    ):
        raise ValueError(
            "groups are not those of this model: its parameters have the same shapes, "
            "but it couples other channels. Find its groups with channel_groups, with "
            "the same apply and example_args."
        )


def _is_same_group(left: ChannelGroup, right: ChannelGroup) -> bool:
    return (
        (left.name, left.size) == (right.name, right.size)
        and len(left.members) == len(right.members)
        and all(
            (a.path, a.axis) == (b.path, b.axis)
            and np.array_equal(a.indices, b.indices)
            for a, b in zip(left.members, right.members, strict=True)
        )
    )


def check_module(
    apply: Callable[..., Any],
    analysis: find_channel_groups.Analysis,
    program: SmallerProgram,
    module: Any,
    example_args: Sequence[Any],
) -> None:
    """Raise if a smaller module does not compute what the program at its sizes does.

    The module's own layers may keep sizes that `frameworks.layer_sizes` has no rule
    for.
    """
    advice = (
        "It may keep a size beside its arrays, or compute a constant from a size: give "
        "such attributes new values in shrink(..., attributes={path: value}). Or split "
        "the module and give shrink its arrays as params (nnx.split, eqx.partition): "
        "the function that it returns needs no module."
    )
    try:
        inputs = trace_model.model_inputs(apply, module, example_args)
        jaxpr, _ = trace_model.trace(inputs)
    except ValueError as error:
        raise ValueError(
            f"The smaller module cannot be used. {advice} {error}"
        ) from error
    if _jaxpr_signature(jaxpr.jaxpr) == _jaxpr_signature(analysis.jaxpr.jaxpr):
        return
    if _has_shapes_only(tree_paths.flatten(module)):
        return
    arguments = jax.tree.map(example_like, tuple(example_args))
    expected = jax.tree.leaves(program(module, *arguments))
    outputs = jax.tree.leaves(apply(module, *arguments))
    if not all(map(is_close, expected, outputs)):
        raise ValueError(
            f"The smaller module does not compute what the cut model does. {advice}"
        )


def check_pruned_channels_are_zero(
    analysis: find_channel_groups.Analysis,
    groups: ChannelGroups,
    *,
    flat: tree_paths.FlatTree,
    pruned: Sequence[np.ndarray],
    program: SmallerProgram,
    small: Any,
    example_args: Sequence[Any],
) -> None:
    """Raise if channels are not zero although their scales and biases are.

    Args:
      analysis: the analysis of the whole model.
      groups: its channel groups.
      flat: its parameters.
      pruned: a vector per channel group, True = only scales and biases are pruned.
      program: the smaller program.
      small: the smaller parameters.
      example_args: the model's other arguments, or their shapes.
    """
    if _has_shapes_only(flat):
        return
    arrays = {path: leaf for _, path, leaf in tree_paths.arrays(flat)}
    for group, vector in zip(groups, pruned, strict=True):
        for member in group.members:
            if member.role in ("scale", "bias"):
                array = np.array(arrays[member.path])
                np.moveaxis(array, member.axis, 0)[member.indices[vector].ravel()] = 0
                arrays[member.path] = array
    arguments = jax.tree.map(example_like, tuple(example_args))
    inputs = [a for a in jax.tree.leaves(arguments) if tree_paths.is_array(a)]
    in_order = [arrays[path] for _, path, _ in analysis.inputs.entries]
    expected = jaxpr_as_fun(analysis.jaxpr)(*in_order, *inputs)
    outputs = jax.tree.leaves(program(small, *arguments))
    if not all(map(is_close, expected, outputs)):
        names = [g.name for g, v in zip(groups, pruned, strict=True) if v.any()]
        raise ValueError(
            f"kept has zeros for the scales and biases of channels in {names}, and "
            "these channels are not zero: not every layer that computes them has a "
            "batch norm after it. Prune their filters too, with decays='all', or leave "
            "the channel group out with prunable=..."
        )


def is_close(expected: Any, output: Any) -> bool:
    """Whether outputs differ by at most 1e-3 of the largest finite magnitude.

    Infinities must be equal, and NaN must be where NaN is expected: a logarithm or a
    square root in the model gives NaN for half of the standard normal inputs.
    """
    expected, output = np.asarray(expected, np.float64), np.asarray(output, np.float64)
    if expected.shape != output.shape:
        return False
    finite = np.isfinite(expected)
    largest = float(np.abs(expected[finite]).max(initial=0.0))
    differences = np.abs(expected[finite] - output[finite])
    return bool(
        np.array_equal(expected[~finite], output[~finite], equal_nan=True)
        and (differences <= 1e-3 * max(largest, 1e-6)).all()
    )


def _has_shapes_only(flat: tree_paths.FlatTree) -> bool:
    return any(
        isinstance(leaf, jax.ShapeDtypeStruct) for *_, leaf in tree_paths.arrays(flat)
    )


def _jaxpr_signature(jaxpr: Any) -> list[Any]:
    """Names of the primitives and values of the literals, without sizes."""
    signature: list[Any] = []
    for equation in jaxpr.eqns:
        signature.append(equation.primitive.name)
        signature.extend(
            np.asarray(atom.val).tolist()
            for atom in equation.invars
            if isinstance(atom, Literal)
        )
        signature.extend(
            _jaxpr_signature(inner) for inner in jaxprs_in_params(equation.params)
        )
    return signature
