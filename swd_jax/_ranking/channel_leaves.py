"""The prunable channel groups of a model, and the leaves that they prune."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from swd_jax._allocation.prunable_leaves import (
    Prunable,
    PrunableLeaf,
    find_prunable,
)
from swd_jax._allocation.weight_or_bias import is_weight
from swd_jax._arrays import tree_paths
from swd_jax._coupling.channel_groups import ChannelGroup, ChannelGroups


def choose_groups(
    groups: ChannelGroups,
    eligible: tuple[int, ...],
    prunable: Prunable,
    tree: tree_paths.FlatTree,
    params: Any,
    *,
    prefix: str,
) -> tuple[int, ...]:
    """Return the numbers of the eligible groups whose producers are all prunable.

    Args:
      groups: all channel groups of the model.
      eligible: the numbers of those that can be scored.
      prunable: the target's rule for leaves.
      tree: the parameters, flattened.
      params: the same parameters as a tree.
      prefix: what the groups' paths have before those of the parameters.

    Raises:
      ValueError: if there is no such channel group.
    """
    if prunable is is_weight:
        return eligible
    prunable_paths = {
        prefix + leaf.path for leaf in find_prunable(prunable, tree, params)
    }
    chosen = tuple(
        number
        for number in eligible
        if all(path in prunable_paths for path in _producer_paths(groups[number]))
    )
    if not chosen:
        names = [groups[number].name for number in eligible]
        raise ValueError(
            f"prunable={prunable!r} matches all producers of none of the channel "
            f"groups, which are:{tree_paths.listing(names)}"
        )
    return chosen


def find_leaves(
    groups: ChannelGroups,
    chosen: Sequence[int],
    decayed_roles: Sequence[str],
    tree: tree_paths.FlatTree,
    prefix: str,
) -> list[PrunableLeaf]:
    """Return the leaves that lose channels, in the tree's order.

    Raises:
      ValueError: if a member of one of the chosen groups is missing in the tree.
    """
    group_names = _decayed_paths(groups, chosen, decayed_roles)
    leaves = [
        PrunableLeaf(position, path, leaf)
        for position, path, leaf in tree_paths.arrays(tree)
        if prefix + path in group_names and jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    tree_has = {prefix + path for path in tree.paths}
    for path, group_name in group_names.items():
        is_masked = tree_paths.is_masked(path.removeprefix(prefix), tree)
        if path not in tree_has and not is_masked:
            raise ValueError(
                f"params have no {path!r}, a part of the channels of {group_name!r}. "
                "Give all parameters that the channel groups have, or leave the "
                "channel group out with prunable=..."
            )
    return leaves


def _producer_paths(group: ChannelGroup) -> list[str]:
    """Return the paths of the leaves that compute a group's channels."""
    paths = [member.path for member in group.members if member.role == "producer"]
    return paths or [member.path for member in group.members]


def _decayed_paths(
    groups: ChannelGroups, chosen: Sequence[int], decayed_roles: Sequence[str]
) -> Mapping[str, str]:
    """Return the paths of the leaves that lose channels, with a group's name each."""
    return {
        member.path: groups[number].name
        for number in reversed(chosen)
        for member in groups[number].members
        if member.role in decayed_roles
    }
