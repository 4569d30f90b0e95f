"""`channel_groups`: from a function and its parameters to channel groups."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from swd_jax._arrays import tree_paths
from swd_jax._coupling import (
    axis_labels,
    groups_from_atoms,
    label_operations,
    propagate_labels,
    tied_leaves,
    trace_model,
)
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.channel_groups import ChannelGroups, get_analysis
from swd_jax._coupling.coupling_analysis import CouplingAnalysis, Frame
from swd_jax._coupling.trace_model import ModelInputs


@dataclasses.dataclass(frozen=True, eq=False)
class Parameter:
    """An array that is updated by itself. Tied leaves share one `Parameter`."""

    shape: tuple[int, ...]
    dtype: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Analysis:
    """A traced model and the labels of every array in it. Holds no parameters."""

    inputs: ModelInputs
    coupling: CouplingAnalysis
    jaxpr: Any
    frame: Frame
    results: list[Labels]
    """Labels of the model's outputs."""
    result_tree: Any
    parameters: list[Parameter]
    """One for each array among the parameters, in their order."""


def channel_groups(
    apply: Callable[..., Any],
    params: Any,
    *example_args: Any,
    tied: Iterable[Sequence[str]] = (),
) -> ChannelGroups:
    """Find the channels of a model that can only be removed together.

    The model is traced, not run: its jaxpr determines which positions along which axes
    of which arrays belong to one channel. To remove a channel, cut all of these
    positions; the smaller model computes what the whole one does when they are zero.
    Heads of an attention and groups of a normalisation or a convolution are channels
    as a whole. Axes that meet an unsupported operation are frozen, with the reason, and
    never removed.

    Args:
      apply: the model, `apply(params, *example_args)`: the `apply` of linen or haiku, a
        function that calls an NNX or Equinox module, any pure function that JAX can
        trace. Give the form for evaluation, in which batch norm uses its running
        statistics, so that their axes are cut too.
      params: the parameters, any tree: arrays or their shapes (`jax.eval_shape`), with
        the running statistics if the model has some. A module is such a tree. Leaves
        that are no arrays are passed to `apply` as they are.
      example_args: the model's other arguments, or their shapes. All sizes but the
        batch must be those that the model will be used with.
      tied: pairs of paths of leaves that always have equal values, such as
        `[("embed/kernel", "logits/kernel")]`: they are cut alike and count once. NNX
        Variables that occur twice are tied in any case, and `eqx.nn.Shared` has a
        single leaf. Two leaves that are one array object are not tied, because
        optimizers update them separately.

    Returns:
      The channel groups, in the order in which the model computes them, with their
      cost.

    Raises:
      ValueError: if the model cannot be traced or does not use its parameters, two
        arrays have the same path, or `tied` does not fit the parameters.

    Where it stands: once, before training, for `CoupledChannels(groups)`, or before
    `shrink`.

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
      Dependency graphs: Fang et al. 2023, arXiv 2301.12900. Here the jaxpr is the
      graph.
    """
    inputs = trace_model.model_inputs(apply, params, example_args)
    shapes = {path: tuple(leaf.shape) for _, path, leaf in inputs.entries}
    pairs = tied_leaves.check_pairs(tied, shapes)
    return _find_groups(inputs, params, pairs)


def groups_of_model(
    groups: ChannelGroups,
    apply: Callable[..., Any],
    params: Any,
    example_args: Sequence[Any],
) -> ChannelGroups:
    """The channel groups of a model: `groups` if they were found with the same inputs.

    The model is traced only if the function differs, or the structure, shapes or types
    of its arguments, or if leaves are tied that `groups` does not tie.
    """
    inputs = trace_model.model_inputs(apply, params, example_args)
    analysis: Analysis | None = get_analysis(groups)
    if (
        analysis is not None
        and analysis.inputs.same_trace(inputs)
        and set(tied_leaves.shared_in_container(params)) <= set(groups.tied)
    ):
        return groups
    return _find_groups(inputs, params, groups.tied)


def analyse(
    inputs: ModelInputs, tied: tied_leaves.Pairs, *, counts_products: bool = True
) -> Analysis:
    """Trace a model and find which positions along all axes are coupled.

    Args:
      inputs: the model. Sizes of its arguments, but not of its parameters, may be
        symbolic dimensions of `jax.export`.
      tied: pairs of paths of tied leaves.
      counts_products: whether multiply-adds are counted; sizes must be numbers then.

    Raises:
      ValueError: if the model cannot be traced.
    """
    jaxpr, result_tree = trace_model.trace(inputs)
    parameters = _parameters(inputs.entries, tied)
    coupling = CouplingAnalysis(
        propagate_labels.propagate, counts_products=counts_products
    )
    labels = [
        coupling.add_leaf(number, parameter.shape)
        for number, parameter in enumerate(parameters)
    ]
    coupling.end_leaves()
    _unite_tied(coupling, labels, parameters)
    fixed = [axis_labels.fixed_size_labels(leaf.shape) for leaf in inputs.input_arrays]
    results, frame = propagate_labels.propagate(coupling, jaxpr, [*labels, *fixed])
    for result in results:
        for ids in result.blocks.values():
            coupling.atoms.freeze(ids.ravel(), "an output of the model")
    label_operations.assign_remaining_blocks(coupling)
    return Analysis(inputs, coupling, jaxpr, frame, results, result_tree, parameters)


def _find_groups(
    inputs: ModelInputs, params: Any, tied: tied_leaves.Pairs
) -> ChannelGroups:
    tied = tuple(dict.fromkeys((*tied_leaves.shared_in_container(params), *tied)))
    analysis = analyse(inputs, tied)
    entries = [
        (position, path, parameter)
        for (position, path, _), parameter in zip(
            inputs.entries, analysis.parameters, strict=True
        )
    ]
    _check_used(analysis.jaxpr, entries, inputs.params)
    groups = groups_from_atoms.build_groups(analysis.coupling, entries, params)
    return dataclasses.replace(groups, tied=tied, _analysis=analysis)


def _parameters(
    entries: Sequence[tuple[int, str, Any]], tied: tied_leaves.Pairs
) -> list[Parameter]:
    """The `Parameter` of each array among the parameters."""
    leaves = {path: leaf for _, path, leaf in entries}
    first = tied_leaves.first_of_tied(leaves, tied)
    parameters = {
        path: Parameter(tuple(leaves[path].shape), leaves[path].dtype)
        for path in set(first.values())
    }
    return [parameters[first[path]] for _, path, _ in entries]


def _unite_tied(
    coupling: CouplingAnalysis,
    inputs: Sequence[Labels],
    parameters: Sequence[Parameter],
) -> None:
    """Unite all axes of tied leaves, position by position."""
    first_labels: dict[Parameter, Labels] = {}
    for labels, parameter in zip(inputs, parameters, strict=True):
        first = first_labels.setdefault(parameter, labels)
        if first is not labels:
            dims = range(labels.rank)
            label_operations.unite_axes(coupling, first, dims, labels, dims)


def _check_used(
    jaxpr: Any, entries: Sequence[tuple[int, str, Parameter]], flat: tree_paths.FlatTree
) -> None:
    """Raise if the model uses arrays that it closes over instead of its parameters."""
    captured = [
        value
        for value in jaxpr.consts
        if np.size(value) > 1 and jax.numpy.issubdtype(value.dtype, np.floating)
    ]
    num_weights = sum(int(np.prod(parameter.shape)) for *_, parameter in entries)
    num_captured = sum(int(np.size(value)) for value in captured)
    used = {id(atom) for equation in jaxpr.jaxpr.eqns for atom in equation.invars}
    used |= {id(atom) for atom in jaxpr.jaxpr.outvars}
    if not any(id(variable) in used for variable in jaxpr.jaxpr.invars[: len(entries)]):
        raise ValueError(
            "apply does not use any of its params, whose paths are:"
            + tree_paths.listing(flat.paths)
        )
    if captured and num_captured >= num_weights:
        largest = max(captured, key=np.size)
        raise ValueError(
            f"apply has {num_captured} numbers of its own, as many as params or more; "
            f"the largest array has the shape {largest.shape}. A model that closes "
            "over its parameters cannot be cut: make them a part of params."
        )
