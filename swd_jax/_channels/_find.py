"""From a function and its parameters to groups of channels."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from swd_jax import _paths
from swd_jax._channels import _groups, _interpret, _labels, _types
from swd_jax._channels._context import OTHER, PRODUCER, Context, Frame
from swd_jax._channels._groups import (
    ChannelGroup,
    ChannelGroups,
    ChannelMember,
    Extent,
    FrozenAxis,
)
from swd_jax._channels._labels import Labels

_STATISTICS = set(
    "mean var variance running_mean running_var moving_mean moving_variance".split()
)
_STATISTIC_COLLECTIONS = {"batch_stats", "mean_ema", "var_ema"}


@dataclasses.dataclass
class Analysis:
    """A program and the labels of everything in it."""

    context: Context
    jaxpr: Any
    frame: Frame
    results: list[Labels]
    params: _paths.Flat
    arguments: list[Any]
    """The leaves of the example arguments."""
    argument_tree: Any
    result_tree: Any
    groups: ChannelGroups
    channel_roots: list[_types.Ids]
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
      >>> groups = swd_jax.channel_groups(model, params, jnp.ones((1, 4)))
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
    program = trace(apply, params, example_args)
    jaxpr, entries, flat = program.jaxpr_with_constants, program.entries, program.params
    context = Context(_interpret.follow)
    inputs = [
        context.parameter(number, leaf.shape)
        for number, (_, _, leaf) in enumerate(entries)
    ]
    context.parameters_end()
    _unite_shared(context, inputs, [leaf for *_, leaf in entries])
    fixed = [_labels.fixed(leaf.shape) for leaf in program.inputs]
    results, frame = _interpret.follow(context, jaxpr, [*inputs, *fixed])
    context.where = ""
    for labels in results:
        for ids in labels.blocks.values():
            context.atoms.freeze(ids.ravel(), "an output of the model")
    _check_used(jaxpr, len(inputs), entries, flat)
    context.settle()
    statistics = _statistics(params, [path for _, path, _ in entries])
    groups, roots = _collected(context, entries, statistics)
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


@dataclasses.dataclass
class Program:
    """A model as it was traced."""

    jaxpr_with_constants: Any
    params: _paths.Flat
    entries: list[tuple[int, str, Any]]
    """Position, path and leaf of the arrays among the parameters."""
    arguments: list[Any]
    """The leaves of the other arguments."""
    inputs: list[Any]
    """The arrays among them."""
    argument_tree: Any
    result_tree: Any

    @property
    def jaxpr(self) -> Any:
        """The program."""
        return self.jaxpr_with_constants.jaxpr


def trace(
    apply: Callable[..., Any], params: Any, example_args: Sequence[Any]
) -> Program:
    """Trace a model: its arrays are the inputs of the program, in order."""
    flat = _paths.flatten(params)
    entries = _paths.arrays(flat)
    if not entries:
        raise ValueError("params has no arrays, so there are no channels to find.")
    arguments, argument_tree = jax.tree.flatten(tuple(example_args))
    traced = [leaf for leaf in arguments if _paths.is_array(leaf)]
    result_tree: list[Any] = []
    positions = [position for position, _, _ in entries]

    def program(arrays: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
        given = iter(inputs)
        leaves = [next(given) if _paths.is_array(a) else a for a in arguments]
        tree = flat.rebuilt(dict(zip(positions, arrays, strict=True)))
        outputs = apply(tree, *jax.tree.unflatten(argument_tree, leaves))
        results, structure = jax.tree.flatten(outputs)
        result_tree[:] = [structure]
        return results

    jaxpr = _traced(
        program,
        [_abstract(leaf) for *_, leaf in entries],
        [_abstract(a) for a in traced],
    )
    return Program(
        jaxpr, flat, entries, arguments, traced, argument_tree, result_tree[0]
    )


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _traced(program: Any, arrays: list[Any], inputs: list[Any]) -> Any:
    try:
        return jax.make_jaxpr(program)(arrays, inputs)
    except (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerArrayConversionError,
        jax.errors.TracerIntegerConversionError,
    ) as error:
        raise ValueError(
            "apply cannot be traced, because its Python code depends on the values of "
            "arrays (in an `if`, a loop, an index or a shape). Write that with jax.lax "
            "or jnp.where, or give the argument that decides it as a Python number "
            f"rather than an array. From jax: {error}"
        ) from error
    except (TypeError, ValueError, AssertionError) as error:
        shapes = ", ".join(str(leaf.shape) for leaf in inputs) or "none"
        raise ValueError(
            f"apply(params, *example_args) cannot be traced with example_args of the "
            f"shapes {shapes}. Give them the shapes that the model takes, with the "
            f"batch. The model's own message: {error}"
        ) from error


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
    jaxpr: Any, count: int, entries: Sequence[Any], flat: _paths.Flat
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
            + _paths.listing(flat.paths)
        )
    if captured and held >= size:
        largest = max(captured, key=np.size)
        raise ValueError(
            f"apply has {held} numbers of its own, as many as params or more; the "
            f"largest array has the shape {largest.shape}. A model that closes over "
            "its parameters cannot be cut: make them a part of params."
        )


def _collected(
    context: Context, entries: Sequence[tuple[int, str, Any]], statistics: set[str]
) -> tuple[ChannelGroups, list[_types.Ids]]:
    """The classes of atoms as groups of channels, in the order of the program."""
    atoms = context.atoms
    used = {leaf for leaf, _ in context.roles}
    frozen: list[FrozenAxis] = []
    places: dict[int, dict[tuple[int, int], list[int]]] = defaultdict(
        lambda: defaultdict(list)
    )
    # What no operation has used has no role.
    for leaf, axis, ids in context.own_atoms():
        if (leaf, axis) not in context.roles:
            context.roles[leaf, axis] = OTHER
        if leaf not in used:
            atoms.freeze(ids, "the model does not use it")
    order = {place: number for number, place in enumerate(context.roles)}
    for leaf, axis, ids in context.own_atoms():
        held: dict[str, list[int]] = defaultdict(list)
        for index, root in enumerate(atoms.roots(ids).tolist()):
            reason = atoms.reason(root)
            if reason is None:
                places[root][leaf, axis].append(index)
            else:
                held[reason].append(index)
        for reason, indices in held.items():
            frozen.append(FrozenAxis(entries[leaf][1], axis, np.array(indices), reason))
    channels: dict[Any, list[int]] = defaultdict(list)
    for root, at in places.items():
        key = tuple(sorted((order[place], place, len(at[place])) for place in at))
        channels[key].append(root)
    names: dict[str, int] = defaultdict(int)
    groups: list[ChannelGroup] = []
    group_roots: list[_types.Ids] = []
    for key in sorted(channels):
        found = [place for _, place, _ in key]
        roots = sorted(channels[key], key=lambda root: places[root][found[0]])
        members = tuple(
            ChannelMember(
                entries[leaf][1],
                axis,
                np.array([places[root][leaf, axis] for root in roots]),
                "statistic"
                if entries[leaf][1] in statistics
                else context.roles[leaf, axis],
            )
            for leaf, axis in found
        )
        base = _layer(members)
        names[base] += 1
        name = base if names[base] == 1 else f"{base}#{names[base]}"
        nothing = np.zeros(len(roots), np.int64)
        groups.append(ChannelGroup(name, len(roots), members, nothing, nothing))
        group_roots.append(np.array(roots, np.int64))
    counted = _counted(entries, statistics)
    return (
        _with_costs(context, entries, counted, groups, group_roots, frozen),
        group_roots,
    )


def _layer(members: Sequence[ChannelMember]) -> str:
    producers = [member for member in members if member.role == PRODUCER]
    path = (producers or list(members))[0].path
    return path.rpartition("/")[0] or path


def _statistics(params: Any, paths: Sequence[str]) -> set[str]:
    """The leaves that are running statistics, by their container or their name."""

    def is_container(node: Any) -> bool:
        return any(
            (base.__name__, base.__module__.partition(".")[0])
            in (("BatchStat", "flax"), ("State", "equinox"))
            for base in type(node).__mro__
        )

    nodes, _ = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_container)
    containers = [
        _paths.path_name(key_path) for key_path, node in nodes if is_container(node)
    ]
    return {
        path
        for path in paths
        if any(_paths.is_inside(path, container) for container in containers)
        or _STATISTIC_COLLECTIONS.intersection(path.split("/"))
        or path.rpartition("/")[2] in _STATISTICS
    }


def _counted(
    entries: Sequence[tuple[int, str, Any]], statistics: set[str]
) -> list[int]:
    """The leaves that count as parameters, an array that occurs twice only once."""
    counted: list[int] = []
    seen: set[int] = set()
    for number, (_, path, array) in enumerate(entries):
        floating = jax.numpy.issubdtype(array.dtype, np.floating)
        if floating and path not in statistics and id(array) not in seen:
            counted.append(number)
        if not isinstance(array, jax.ShapeDtypeStruct):
            seen.add(id(array))
    return counted


def _with_costs(  # noqa: PLR0917
    context: Context,
    entries: Sequence[tuple[int, str, Any]],
    counted: Sequence[int],
    groups: list[ChannelGroup],
    group_roots: list[_types.Ids],
    frozen: list[FrozenAxis],
) -> ChannelGroups:
    group_of = {
        root: (number, channel)
        for number, roots in enumerate(group_roots)
        for channel, root in enumerate(roots.tolist())
    }

    def extent(ids: _types.Ids) -> Extent:
        counts: dict[int, _types.Ints] = {}
        roots, numbers = np.unique(context.atoms.roots(ids), return_counts=True)
        fixed = 0
        for root, number in zip(roots.tolist(), numbers.tolist(), strict=True):
            if root not in group_of:
                fixed += number
                continue
            group, channel = group_of[root]
            counts.setdefault(group, np.zeros(groups[group].size, np.int64))
            counts[group][channel] += number
        return Extent(fixed, tuple(sorted(counts.items(), key=lambda item: item[0])))

    extents: dict[tuple[int, int], Extent] = {
        (leaf, axis): extent(ids) for leaf, axis, ids in context.own_atoms()
    }
    parameter_costs = [
        _groups.cost(
            1,
            [
                extents.get((leaf, axis), Extent(size, ()))
                for axis, size in enumerate(entries[leaf][2].shape)
            ],
        )
        for leaf in counted
    ]
    flop_costs = [
        _groups.cost(2 * product.times, [extent(ids) for ids in product.factors])
        for product in context.products
    ]
    costed = [
        dataclasses.replace(
            group,
            parameters=_per_channel(parameter_costs, number, group.size),
            flops=_per_channel(flop_costs, number, group.size),
        )
        for number, group in enumerate(groups)
    ]
    return ChannelGroups(
        tuple(costed),
        tuple(frozen),
        {path: tuple(array.shape) for _, path, array in entries},
        tuple(parameter_costs),
        tuple(flop_costs),
    )


def _per_channel(costs: Sequence[_groups.Cost], group: int, size: int) -> _types.Ints:
    """What goes with each channel of a group when all others stay."""
    total = np.zeros(size, np.int64)
    for one in costs:
        if not any(group == g for extent in one.extents for g, _ in extent.of_groups):
            continue
        full = left = one.times
        for extent in one.extents:
            full *= extent.full
            own = [n for g, n in extent.of_groups if g == group]
            left = left * (extent.full - (own[0] if own else 0))
        total += full - left
    return total
