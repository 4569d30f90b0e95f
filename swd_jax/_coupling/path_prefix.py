"""Parameters as an optimizer sees them, found among the arrays that groups know."""

from collections.abc import Mapping

from swd_jax._arrays import tree_paths
from swd_jax._coupling.channel_groups import ChannelGroups


def prefix(groups: ChannelGroups, flat: tree_paths.Flat, name: str = "params") -> str:
    """What the groups' paths have before those of a tree: "params/", or nothing.

    Groups are found with all that a model has, its statistics too; an optimizer is
    given a part of that, such as the collection "params" alone.

    Raises:
      ValueError: if the tree is no part of what the groups were found in.
    """
    shapes = {path: tuple(leaf.shape) for _, path, leaf in tree_paths.arrays(flat)}
    if not shapes:
        return ""
    first = next(iter(shapes))
    candidates = [""] + [
        path.removesuffix(first)
        for path in groups.shapes
        if path.endswith("/" + first) or (not first and path)
    ]
    for candidate in candidates:
        if all(
            groups.shapes.get(candidate + path) == shape
            for path, shape in shapes.items()
        ):
            return candidate
    raise ValueError(_difference(groups, shapes, candidates, name))


def _difference(
    groups: ChannelGroups,
    shapes: Mapping[str, tuple[int, ...]],
    candidates: list[str],
    name: str,
) -> str:
    def strangers(candidate: str) -> list[str]:
        return [
            path
            for path, shape in shapes.items()
            if groups.shapes.get(candidate + path) != shape
        ]

    nearest = min(candidates, key=lambda candidate: len(strangers(candidate)))
    path = strangers(nearest)[0]
    known = groups.shapes.get(nearest + path, "nothing")
    return (
        f"groups do not fit {name}: at {path!r} there is {shapes[path]}, and the "
        f"groups were found where there was {known}. Find the groups of this model "
        "with channel_groups"
    )
