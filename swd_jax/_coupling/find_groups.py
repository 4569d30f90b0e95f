"""From a function and its parameters to groups of channels."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from swd_jax._arrays import tree_paths
from swd_jax._coupling import (
    array_types,
    axis_labels,
    build_groups,
    propagate_labels,
    trace_model,
)
from swd_jax._coupling.analysis_record import Frame
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.channel_groups import ChannelGroups
from swd_jax._coupling.label_operations import Context


@dataclasses.dataclass
class Analysis:
    """A program and the labels of everything in it."""

    context: Context
    jaxpr: Any
    frame: Frame
    results: list[Labels]
    params: tree_paths.Flat
    arguments: list[Any]
    """The leaves of the example arguments."""
    argument_tree: Any
    result_tree: Any
    groups: ChannelGroups
    channel_roots: list[array_types.Ids]
    """The atom that stands for each channel, by group."""


def channel_groups(
    apply: Callable[..., Any], params: Any, *example_args: Any
) -> ChannelGroups:
    """Find the channels of a model that can only be removed together.

    The model is traced, not run: from its program follows which positions along which
    axes of which arrays belong to one channel. Removing a channel means to cut all of
    them; what is left computes what the whole model does when they are zero. Heads of
    an attention and groups of a normalisation or a convolution are channels as a whole.
    What is not understood is frozen, with the reason, and never removed.

    Args:
      apply: the model, `apply(params, *example_args)`: the `apply` of linen or haiku, a
        function that calls an NNX or Equinox module, any function that JAX can trace.
        Give the form for evaluation, in which batch norm uses its running statistics,
        so that these are found too.
      params: its parameters, any tree: arrays or their shapes (`jax.eval_shape`).
        Leaves that are no arrays are left as they are. Running statistics belong in it
        if the model has them. A module as a whole is such a tree.
      example_args: the model's other arguments, or their shapes; sizes that the model
        is to be used with, but for the batch.

    Returns:
      The groups, in the order in which the model computes them, with their cost.

    Raises:
      ValueError: if the model cannot be traced, or does not use its parameters.

    Examples:
      >>> import jax, jax.numpy as jnp, swd_jax
      >>> def model(params, x):
      ...     bias = params["hidden"]["bias"][None]
      ...     x = jax.nn.relu(x @ params["hidden"]["kernel"] + bias)
      ...     return x @ params["output"]["kernel"]
      >>> params = {
      ...     "hidden": {"kernel": jnp.ones((4, 16)), "bias": jnp.ones(16)},
      ...     "output": {"kernel": jnp.ones((16, 3))},
      ... }
      >>> groups = swd_jax.channels.channel_groups(model, params, jnp.ones((1, 4)))
      >>> [(group.name, group.size) for group in groups]
      [('hidden', 16)]
      >>> int(groups.parameters()), int(groups.flops())
      (128, 224)

    Source:
      The idea of a graph of dependencies: Fang et al. 2023, arXiv 2301.12900. Here it
      is the traced program.
    """
    return analyse(apply, params, example_args).groups


def analyse(
    apply: Callable[..., Any], params: Any, example_args: Sequence[Any]
) -> Analysis:
    """Trace a model and find what is coupled, with all that is needed to run it."""
    program = trace_model.trace(apply, params, example_args)
    jaxpr, entries, flat = program.jaxpr_with_constants, program.entries, program.params
    context = Context(propagate_labels.follow)
    inputs = [
        context.parameter(number, leaf.shape)
        for number, (_, _, leaf) in enumerate(entries)
    ]
    context.parameters_end()
    _unite_shared(context, inputs, [leaf for *_, leaf in entries])
    fixed = [axis_labels.fixed(leaf.shape) for leaf in program.inputs]
    results, frame = propagate_labels.follow(context, jaxpr, [*inputs, *fixed])
    context.where = ""
    for labels in results:
        for ids in labels.blocks.values():
            context.atoms.freeze(ids.ravel(), "an output of the model")
    _check_used(jaxpr, len(inputs), entries, flat)
    context.settle()
    statistics = build_groups.statistics(params, [path for _, path, _ in entries])
    groups, roots = build_groups.collected(context, entries, statistics)
    return Analysis(
        context,
        jaxpr,
        frame,
        results,
        flat,
        program.arguments,
        program.argument_tree,
        program.result_tree,
        groups,
        roots,
    )


def _unite_shared(
    context: Context, inputs: Sequence[Labels], leaves: Sequence[Any]
) -> None:
    """Arrays that occur in the tree twice, as tied weights do, are one."""
    first: dict[int, Labels] = {}
    for labels, leaf in zip(inputs, leaves, strict=True):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            continue
        same = first.setdefault(id(leaf), labels)
        if same is not labels:
            dims = range(labels.rank)
            context.together(same, dims, labels, dims)


def _check_used(
    jaxpr: Any, count: int, entries: Sequence[Any], flat: tree_paths.Flat
) -> None:
    captured = [
        value
        for value in jaxpr.consts
        if np.size(value) > 1 and jax.numpy.issubdtype(value.dtype, np.floating)
    ]
    size = sum(int(np.prod(leaf.shape)) for *_, leaf in entries)
    held = sum(int(np.size(value)) for value in captured)
    used = {id(atom) for equation in jaxpr.jaxpr.eqns for atom in equation.invars}
    used |= {id(atom) for atom in jaxpr.jaxpr.outvars}
    if not any(id(variable) in used for variable in jaxpr.jaxpr.invars[:count]):
        raise ValueError(
            "apply does not use any of its params, whose paths are:"
            + tree_paths.listing(flat.paths)
        )
    if captured and held >= size:
        largest = max(captured, key=np.size)
        raise ValueError(
            f"apply has {held} numbers of its own, as many as params or more; the "
            f"largest array has the shape {largest.shape}. A model that closes over "
            "its parameters cannot be cut: make them a part of params."
        )
