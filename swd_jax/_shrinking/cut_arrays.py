"""Which channels are kept: from vectors or masks to what is cut out of each array."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import tree_paths
from swd_jax._coupling import array_types, path_prefix
from swd_jax._coupling.channel_groups import ChannelGroups

Cut: TypeAlias = Mapping[int, array_types.Bools]
"""By axis: which positions are kept."""

Cuts: TypeAlias = Mapping[str, Cut]
"""By path: the cut of each array that has channels."""


def vectors(
    groups: ChannelGroups, kept: Any, round_to: int = 1, scores: Any = None
) -> list[array_types.Bools]:
    """One vector of bools per group, from vectors or from a tree of masks.

    Raises:
      ValueError: if it fits neither, or leaves nothing of an array.
    """
    if _are_vectors(groups, kept):
        found = [np.asarray(vector) for vector in groups.vectors(kept)]
    else:
        found = from_mask(groups, kept)
    found = _rounded(groups, found, round_to, scores)
    check_not_emptied(groups, found)
    return found


def _are_vectors(groups: ChannelGroups, kept: Any) -> bool:
    if isinstance(kept, Mapping):
        named = any(group.name in kept for group in groups)
        return named and all(np.ndim(vector) == 1 for vector in kept.values())
    if not isinstance(kept, Sequence):
        return False
    is_tree = sorted(tree_paths.flatten(kept).paths) == sorted(groups.shapes)
    flat = all(np.ndim(vector) == 1 for vector in kept)
    return not is_tree or (flat and len(kept) == len(groups))


def from_mask(groups: ChannelGroups, mask: Any) -> list[array_types.Bools]:
    """The channels of which a mask leaves something.

    A channel goes when all that computes it, and all that computes others from it, is
    False or zero; or all its scales and biases are, if it has scales.
    """
    leaves = _mask_leaves(groups, mask)
    filters = _alive(groups, leaves, ("producer", "consumer"))
    scales = _alive_scales(groups, leaves)
    return [alive & scaled for alive, scaled in zip(filters, scales, strict=True)]


def gone_by_scales(groups: ChannelGroups, kept: Any) -> list[array_types.Bools] | None:
    """The channels that go by their scales alone, whatever their filters are."""
    if _are_vectors(groups, kept):
        return None
    leaves = _mask_leaves(groups, kept)
    filters = _alive(groups, leaves, ("producer", "consumer"))
    scales = _alive_scales(groups, leaves)
    found = [alive & ~scaled for alive, scaled in zip(filters, scales, strict=True)]
    return found if any(gone.any() for gone in found) else None


def _alive_scales(
    groups: ChannelGroups, leaves: Mapping[str, Any]
) -> list[array_types.Bools]:
    found = _alive(groups, leaves, ("scale", "bias"))
    for group, alive in zip(groups, found, strict=True):
        if not any(m.role == "scale" and m.path in leaves for m in group.members):
            alive[:] = True
    return found


def _alive(
    groups: ChannelGroups, leaves: Mapping[str, Any], roles: Sequence[str]
) -> list[array_types.Bools]:
    """The channels of which something is left among the members of some roles."""
    found: list[array_types.Bools] = []
    for group in groups:
        alive = np.zeros(group.size, np.bool_)
        judged = False
        for member in group.members:
            if member.role in roles and member.path in leaves:
                judged = True
                nonzero = np.asarray(leaves[member.path]) != 0
                axes = tuple(a for a in range(nonzero.ndim) if a != member.axis)
                along = nonzero.any(axis=axes)
                alive |= along[member.indices].any(axis=1)
        found.append(alive if judged else np.ones_like(alive))
    return found


def _mask_leaves(groups: ChannelGroups, mask: Any) -> dict[str, Any]:
    """The arrays of a mask by the paths that the groups know."""
    flat = tree_paths.flatten(mask)
    leaves = {path: leaf for _, path, leaf in tree_paths.arrays(flat)}
    known = [path for path in leaves if path in groups.shapes]
    if leaves and not known:
        ends = tuple(f"/{path}" for path in leaves)
        if any(path.endswith(ends) for path in groups.shapes):
            prefix = path_prefix.prefix(groups, flat, "kept")
            return {prefix + path: leaf for path, leaf in leaves.items()}
    if not known:
        raise ValueError(
            "kept must have one vector of bools per group, or be a tree of masks with "
            "the structure of the parameters, and is neither. The parameters' paths "
            f"are:{tree_paths.listing(groups.shapes)}"
        )
    for path, leaf in leaves.items():
        if groups.shapes.get(path, leaf.shape) != leaf.shape:
            raise ValueError(
                f"kept has a mask of shape {leaf.shape} at {path!r}, where the "
                f"parameters have {groups.shapes[path]}."
            )
    return leaves


def _rounded(
    groups: ChannelGroups,
    kept: list[array_types.Bools],
    round_to: int,
    scores: Any,
) -> list[array_types.Bools]:
    """Keep the best of the others as well, for sizes that are multiples."""
    if round_to < 1 or round_to != int(round_to):
        raise ValueError(f"round_to must be a positive integer, got {round_to!r}")
    if scores is not None and len(scores) != len(groups):
        raise ValueError(
            f"scores must have one vector for each of the {len(groups)} groups, got "
            f"{len(scores)}."
        )
    if round_to == 1:
        return kept
    rounded: list[array_types.Bools] = []
    for number, (group, old) in enumerate(zip(groups, kept, strict=True)):
        count = group.rounded_up(int(old.sum()), round_to)
        if scores is None:
            order = np.arange(group.size)
        else:
            score = scores[group.name if isinstance(scores, Mapping) else number]
            order = np.argsort(-np.asarray(score, np.float64), kind="stable")
        others = [channel for channel in order.tolist() if not old[channel]]
        new = old.copy()
        new[others[: count - int(old.sum())]] = True
        rounded.append(new)
    return rounded


def cuts(groups: ChannelGroups, kept: Sequence[array_types.Bools]) -> Cuts:
    """Which positions along which axes of which arrays are kept."""
    found: dict[str, dict[int, array_types.Bools]] = {}
    for group, vector in zip(groups, kept, strict=True):
        for member in group.members:
            size = groups.shapes[member.path][member.axis]
            along = found.setdefault(member.path, {})
            left = along.setdefault(member.axis, np.ones(size, np.bool_))
            left[member.indices[~vector].ravel()] = False
    return found


def check_not_emptied(groups: ChannelGroups, kept: Sequence[array_types.Bools]) -> None:
    """Raise where nothing is left along an axis."""
    for path, axes in cuts(groups, kept).items():
        for axis, left in axes.items():
            if not left.any():
                names = [
                    group.name
                    for group in groups
                    if any((m.path, m.axis) == (path, axis) for m in group.members)
                ]
                raise ValueError(
                    f"kept leaves nothing of {path!r} along axis {axis}: it removes "
                    f"all channels of {' and '.join(map(repr, names))}. Keep at least "
                    "one, or take the layer out of the model."
                )


def cut(leaves: Mapping[Any, Any], cuts: Mapping[Any, Cut]) -> dict[Any, Any]:
    """The positions of arrays that are kept, by the same keys.

    Arrays on a device stay there, and are cut by one program.
    """
    found: dict[Any, Any] = {}
    on_device: dict[Any, jax.Array] = {}
    for key, leaf in leaves.items():
        if isinstance(leaf, jax.Array):
            on_device[key] = leaf
        elif isinstance(leaf, np.ndarray):
            found[key] = leaf
            for axis, kept in cuts[key].items():
                found[key] = found[key].compress(kept, axis)
        else:  # a shape
            sizes = [
                int(cuts[key][axis].sum()) if axis in cuts[key] else size
                for axis, size in enumerate(leaf.shape)
            ]
            found[key] = jax.ShapeDtypeStruct(tuple(sizes), leaf.dtype)
    keys = list(on_device)

    @jax.jit
    def smaller(arrays: list[jax.Array]) -> list[jax.Array]:
        return [
            _taken(array, cuts[key]) for key, array in zip(keys, arrays, strict=True)
        ]

    if keys:
        found.update(zip(keys, smaller(list(on_device.values())), strict=True))
    return found


def _taken(array: jax.Array, axes: Cut) -> jax.Array:
    for axis, kept in axes.items():
        if not kept.all():
            array = jnp.take(array, np.flatnonzero(kept), axis=axis)
    return array


def check_shapes(groups: ChannelGroups, flat: tree_paths.Flat, name: str) -> None:
    """Raise where groups were found in another tree."""
    shapes = {path: tuple(leaf.shape) for _, path, leaf in tree_paths.arrays(flat)}
    if shapes == dict(groups.shapes):
        return
    differ = [p for p in shapes if shapes[p] != groups.shapes.get(p)]
    differ += [p for p in groups.shapes if p not in shapes]
    path = differ[0]
    raise ValueError(
        f"groups do not fit {name}: at {path!r} it has {shapes.get(path, 'nothing')}, "
        f"and the groups were found where there was "
        f"{groups.shapes.get(path, 'nothing')}. Find the groups of this model with "
        "channel_groups."
    )
