"""Checks of `shrink`: the groups are the model's, and pruned channels are zero."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import jaxpr_as_fun

from swd_jax._arrays import tree_paths
from swd_jax._coupling import find_channel_groups
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
    if has_shapes_only(flat):
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


def has_shapes_only(flat: tree_paths.FlatTree) -> bool:
    return any(
        isinstance(leaf, jax.ShapeDtypeStruct) for *_, leaf in tree_paths.arrays(flat)
    )
