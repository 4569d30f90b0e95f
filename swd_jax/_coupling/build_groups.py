"""From classes of united atoms to groups of channels with their costs."""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from swd_jax._arrays import tree_paths
from swd_jax._coupling import array_types, channel_groups
from swd_jax._coupling.analysis_record import OTHER, PRODUCER
from swd_jax._coupling.channel_groups import (
    ChannelGroup,
    ChannelGroups,
    ChannelMember,
    Extent,
    FrozenAxis,
)
from swd_jax._coupling.label_operations import Context

_STATISTICS = set(
    "mean var variance running_mean running_var moving_mean moving_variance".split()
)
_STATISTIC_COLLECTIONS = {"batch_stats", "mean_ema", "var_ema"}


def collected(
    context: Context, entries: Sequence[tuple[int, str, Any]], statistics: set[str]
) -> tuple[ChannelGroups, list[array_types.Ids]]:
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
    group_roots: list[array_types.Ids] = []
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


def statistics(params: Any, paths: Sequence[str]) -> set[str]:
    """The leaves that are running statistics, by their container or their name."""

    def is_container(node: Any) -> bool:
        return any(
            (base.__name__, base.__module__.partition(".")[0])
            in (("BatchStat", "flax"), ("State", "equinox"))
            for base in type(node).__mro__
        )

    nodes, _ = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_container)
    containers = [
        tree_paths.path_name(key_path) for key_path, node in nodes if is_container(node)
    ]
    return {
        path
        for path in paths
        if any(tree_paths.is_inside(path, container) for container in containers)
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
    group_roots: list[array_types.Ids],
    frozen: list[FrozenAxis],
) -> ChannelGroups:
    group_of = {
        root: (number, channel)
        for number, roots in enumerate(group_roots)
        for channel, root in enumerate(roots.tolist())
    }

    def extent(ids: array_types.Ids) -> Extent:
        counts: dict[int, array_types.Ints] = {}
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
        channel_groups.cost(
            1,
            [
                extents.get((leaf, axis), Extent(size, ()))
                for axis, size in enumerate(entries[leaf][2].shape)
            ],
        )
        for leaf in counted
    ]
    flop_costs = [
        channel_groups.cost(2 * product.times, [extent(ids) for ids in product.factors])
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


def _per_channel(
    costs: Sequence[channel_groups.Cost], group: int, size: int
) -> array_types.Ints:
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
