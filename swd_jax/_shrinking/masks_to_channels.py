"""From the argument `kept` (vectors, or a tree of masks) to a vector per channel group.

`as_vectors` is the entry. All vectors are bools of shape (channels,), True = kept.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from swd_jax._arguments import validation
from swd_jax._arguments.short_text import shown
from swd_jax._arrays import tree_paths
from swd_jax._coupling import path_prefix, type_aliases
from swd_jax._coupling.channel_groups import ChannelGroups
from swd_jax._shrinking import channels_to_positions


def as_vectors(
    groups: ChannelGroups, kept: Any, multiple_of: int = 1, scores: Any = None
) -> list[type_aliases.Bools]:
    """One vector per channel group, rounded up to whole bundles.

    Raises:
      ValueError: if `kept` is neither vectors nor masks, or empties an array.
    """
    channels_to_positions.check_groups(groups)
    if _is_vectors(groups, kept):
        vectors = [np.asarray(vector) for vector in groups.vectors(kept)]
    else:
        vectors = _from_masks(groups, kept)
    vectors = _round_up(groups, vectors, multiple_of, scores)
    channels_to_positions.check_not_emptied(groups, vectors)
    return vectors


def pruned_by_scale_only(
    groups: ChannelGroups, kept: Any
) -> list[type_aliases.Bools] | None:
    """Channels whose scales and biases are zero in a tree of masks, but not the rest.

    Returns:
      A vector per channel group, True = pruned so; None if there is no such channel.
    """
    if _is_vectors(groups, kept):
        return None
    leaves = _mask_leaves(groups, kept)
    filters = _any_nonzero(groups, leaves, ("producer", "consumer"))
    scales = _any_scale_nonzero(groups, leaves)
    vectors = [f & ~s for f, s in zip(filters, scales, strict=True)]
    return vectors if any(vector.any() for vector in vectors) else None


def _is_vectors(groups: ChannelGroups, kept: Any) -> bool:
    if isinstance(kept, Mapping):
        named = any(group.name in kept for group in groups)
        return named and all(np.ndim(vector) == 1 for vector in kept.values())
    if not isinstance(kept, Sequence):
        return False
    is_tree = sorted(tree_paths.flatten(kept).paths) == sorted(groups.shapes)
    is_flat = all(np.ndim(vector) == 1 for vector in kept)
    return not is_tree or (is_flat and len(kept) == len(groups))


def _from_masks(groups: ChannelGroups, masks: Any) -> list[type_aliases.Bools]:
    """Prune the channels whose producers and consumers are all False or zero.

    A channel that has scales is also pruned if all its scales and biases are zero.
    """
    leaves = _mask_leaves(groups, masks)
    filters = _any_nonzero(groups, leaves, ("producer", "consumer"))
    scales = _any_scale_nonzero(groups, leaves)
    return [f & s for f, s in zip(filters, scales, strict=True)]


def _any_scale_nonzero(
    groups: ChannelGroups, leaves: Mapping[str, Any]
) -> list[type_aliases.Bools]:
    vectors = _any_nonzero(groups, leaves, ("scale", "bias"))
    for group, vector in zip(groups, vectors, strict=True):
        if not any(m.role == "scale" and m.path in leaves for m in group.members):
            vector[:] = True
    return vectors


def _any_nonzero(
    groups: ChannelGroups, leaves: Mapping[str, Any], roles: Sequence[str]
) -> list[type_aliases.Bools]:
    """Channels with a nonzero weight in a member of these roles, or without members."""
    vectors: list[type_aliases.Bools] = []
    for group in groups:
        members = [m for m in group.members if m.role in roles and m.path in leaves]
        vector = np.full(group.size, not members)
        for member in members:
            nonzero = np.asarray(leaves[member.path]) != 0
            axes = tuple(a for a in range(nonzero.ndim) if a != member.axis)
            vector |= nonzero.any(axis=axes)[member.indices].any(axis=1)
        vectors.append(vector)
    return vectors


def _mask_leaves(groups: ChannelGroups, kept: Any) -> dict[str, Any]:
    """The arrays of a tree of masks by their paths in the whole model."""
    flat = tree_paths.flatten(kept)
    leaves = tree_paths.arrays_by_path("kept", flat)
    in_model = {p: leaf for p, leaf in leaves.items() if p in groups.shapes}
    remedy = (
        "give kept the keys that lead to this part, such as {'encoder': masks}, or "
        "give a vector for each channel group by name"
    )
    if leaves and not in_model:
        endings = tuple(f"/{path}" for path in leaves)
        if any(path.endswith(endings) for path in groups.shapes):
            prefix = path_prefix.find_prefix(groups, flat, "kept", remedy=remedy)
            return {prefix + path: leaf for path, leaf in leaves.items()}
    if not in_model:
        raise ValueError(
            "kept must have one vector of bools per channel group, as kept_channels "
            "returns, or be a tree of masks with the structure of the parameters, got "
            f"{shown(kept)}. The channel groups are "
            f"{[group.name for group in groups]}, the parameters' paths:"
            f"{tree_paths.listing(groups.shapes)}"
        )
    for path, leaf in in_model.items():
        if groups.shapes[path] != leaf.shape:
            raise ValueError(
                f"kept has a mask of shape {leaf.shape} at {path!r}, where the "
                f"parameters have {groups.shapes[path]}."
            )
    shapes = {path: tuple(leaf.shape) for path, leaf in in_model.items()}
    path_prefix.check_unambiguous(groups, shapes, "kept", remedy)
    return leaves


def _round_up(
    groups: ChannelGroups,
    vectors: list[type_aliases.Bools],
    multiple_of: int,
    scores: Any,
) -> list[type_aliases.Bools]:
    """Keep the pruned channels with the best scores too, to fill the last bundle."""
    validation.as_step_count("multiple_of", multiple_of, minimum=1)
    if scores is not None and len(scores) != len(groups):
        raise ValueError(
            f"scores must have one vector for each of the {len(groups)} channel "
            f"groups, got {len(scores)}."
        )
    for group, vector in zip(groups, [] if scores is None else scores, strict=False):
        if np.shape(vector) != (group.size,):
            raise ValueError(
                f"scores must have {group.size} numbers for the channel group "
                f"{group.name!r}, got shape {np.shape(vector)}."
            )
    if multiple_of == 1:
        return vectors
    rounded: list[type_aliases.Bools] = []
    for number, (group, vector) in enumerate(zip(groups, vectors, strict=True)):
        num_kept = int(vector.sum())
        num_more = group.round_up(num_kept, multiple_of) - num_kept
        if scores is None:
            order = np.arange(group.size)
        else:
            score = scores[group.name if isinstance(scores, Mapping) else number]
            order = np.argsort(-np.asarray(score, np.float64), kind="stable")
        best = order[~vector[order]][:num_more]
        rounded.append(vector | np.isin(np.arange(group.size), best))
    return rounded
