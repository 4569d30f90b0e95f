"""Leaves that hold one parameter: shared NNX Variables, or pairs named by the user."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import jax

from swd_jax._arrays import tree_paths

Pairs: TypeAlias = tuple[tuple[str, str], ...]
"""Paths of tied leaves: the first in the tree, and another one."""


def shared_in_container(params: Any) -> Pairs:
    """Paths under which one NNX Variable occurs several times.

    The identity of an array does not say that it is shared: optimizers update two
    leaves of a dict separately, also where both are the same `jax.Array` at first.
    `eqx.nn.Shared` keeps a single leaf, so its tree has nothing to tie.
    """
    nodes, _ = jax.tree_util.tree_flatten_with_path(params, is_leaf=_is_nnx_variable)
    first_paths: dict[int, list[str]] = {}
    pairs: list[tuple[str, str]] = []
    for key_path, node in nodes:
        if not _is_nnx_variable(node):
            continue
        inner = [path for path, _ in jax.tree_util.tree_flatten_with_path(node)[0]]
        # The first inner key is the Variable's attribute for the value.
        paths = [tree_paths.path_name((*key_path, *path[1:])) for path in inner]
        first = first_paths.setdefault(id(node), paths)
        if first is not paths:
            pairs.extend(zip(first, paths, strict=True))
    return tuple(pairs)


def check_pairs(
    tied: Iterable[Sequence[str]], shapes: Mapping[str, tuple[int, ...]]
) -> Pairs:
    """Pairs of paths from the argument `tied`.

    Raises:
      ValueError: if an entry is no pair of different paths of arrays of one shape.
    """
    pairs: list[tuple[str, str]] = []
    for pair in tied:
        if isinstance(pair, str) or len(pair) != 2 or pair[0] == pair[1]:
            raise ValueError(
                "tied must have pairs of different paths, such as "
                f"[('embed/kernel', 'logits/kernel')], got {pair!r}"
            )
        for path in pair:
            if path not in shapes:
                raise ValueError(
                    f"tied names {path!r}, and params has no array at this path. The "
                    f"paths are:{tree_paths.listing(shapes)}"
                )
        first, second = pair
        if shapes[first] != shapes[second]:
            raise ValueError(
                f"tied leaves must have one shape, and {first!r} has {shapes[first]}, "
                f"{second!r} {shapes[second]}. Leave the pair out, or make one of them "
                "from the other in apply."
            )
        pairs.append((first, second))
    return tuple(pairs)


def first_of_tied(paths: Collection[str], pairs: Pairs) -> dict[str, str]:
    """The first path, in the tree's order, of the leaves tied to each path."""
    order = {path: number for number, path in enumerate(paths)}
    first = {path: path for path in paths}
    for pair in pairs:
        low, high = sorted((first[path] for path in pair), key=order.__getitem__)
        first = {path: low if f == high else f for path, f in first.items()}
    return first


def _is_nnx_variable(node: Any) -> bool:
    # The class is compared by name, because Flax is an optional dependency.
    return any(
        base.__name__ == "Variable" and base.__module__.startswith("flax.nnx")
        for base in type(node).__mro__
    )
