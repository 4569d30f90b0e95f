"""The prefix of an optimizer's paths among the paths of the whole model."""

from collections.abc import Mapping
from typing import TypeAlias

from swd_jax._arrays import tree_paths
from swd_jax._coupling.channel_groups import ChannelGroups

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]


def find_prefix(
    groups: ChannelGroups,
    flat: tree_paths.FlatTree,
    name: str = "params",
    prefix: str | None = None,
    *,
    remedy: str = "give CoupledChannels(prefix=...)",
) -> str:
    """Find the prefix that turns a tree's paths into those of the channel groups.

    `channel_groups` analyses all variables of a model, and an optimizer often has only
    a part of them, such as the collection "params": the prefix is then "params/".

    Args:
      groups: the channel groups of the whole model.
      flat: the tree: the whole model's, or a part of it.
      name: the tree's name in errors.
      prefix: the path of the node that the tree is, such as "params", or "" for the
        whole model's tree; by default it is found by paths and shapes.
      remedy: advice for an ambiguous prefix, for the error.

    Returns:
      The prefix with the "/" at its end; "" where the paths are the same.

    Raises:
      ValueError: if no prefix fits, several do, or the given one does not.
    """
    shapes = {
        path: tuple(leaf.shape)
        for path, leaf in tree_paths.arrays_by_path(name, flat).items()
    }
    if prefix is not None:
        prefix = prefix.removesuffix("/")
        # The path of a tree that is one array is empty and takes no separator.
        prefix = f"{prefix}/" if prefix and "" not in shapes else prefix
        if _misfits(groups, shapes, prefix):
            raise ValueError(_describe_misfit(groups, shapes, [prefix], name))
        return prefix
    fitting = check_unambiguous(groups, shapes, name, remedy)
    if not fitting:
        candidates = _candidates(groups, shapes)
        raise ValueError(_describe_misfit(groups, shapes, candidates, name))
    return fitting[0]


def check_unambiguous(
    groups: ChannelGroups, shapes: Shapes, name: str, remedy: str
) -> list[str]:
    """The prefix under which the model has arrays of these paths and shapes, if any.

    Raises:
      ValueError: if there are several, as in a model of two equal networks.
    """
    candidates = _candidates(groups, shapes)
    fitting = [c for c in candidates if not _misfits(groups, shapes, c)]
    if len(fitting) > 1:
        parts = ", ".join(repr(c.removesuffix("/")) for c in fitting)
        raise ValueError(
            f"groups fit {name} in {len(fitting)} places: its arrays have the paths "
            f"and shapes of these parts of the model: {parts}. To say which part it "
            f"is, {remedy}."
        )
    return fitting


def _candidates(groups: ChannelGroups, shapes: Shapes) -> list[str]:
    if not shapes:
        return [""]
    first = next(iter(shapes))
    return [""] + [
        path.removesuffix(first)
        for path in groups.shapes
        if path.endswith("/" + first) or (not first and path)
    ]


def _misfits(groups: ChannelGroups, shapes: Shapes, prefix: str) -> list[str]:
    """Paths at which the model has no array of the same shape under a prefix."""
    return [
        path
        for path, shape in shapes.items()
        if groups.shapes.get(prefix + path) != shape
    ]


def _describe_misfit(
    groups: ChannelGroups, shapes: Shapes, candidates: list[str], name: str
) -> str:
    nearest = min(candidates, key=lambda c: len(_misfits(groups, shapes, c)))
    path = _misfits(groups, shapes, nearest)[0]
    expected = groups.shapes.get(nearest + path, "nothing")
    place = f" under {nearest.removesuffix('/')!r}" if nearest else ""
    return (
        f"groups do not fit {name}: at {path!r} there is {shapes[path]}, and the "
        f"groups were found where there was {expected}{place}. Find the groups of this "
        "model with channel_groups"
    )
