"""Leaves by their paths: "Conv_0/kernel", in any container."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import optax

_MOST_PATHS_LISTED = 40


class Flat(NamedTuple):
    """A tree's leaves in order, each with its path, and how to put them back."""

    paths: list[str]
    leaves: list[Any]
    treedef: Any
    masked: list[str]
    """Nodes that `optax.masked` or `optax.partition` has emptied."""

    def rebuilt(self, replacements: Mapping[int, Any]) -> Any:
        """The tree with other leaves at some positions."""
        leaves = [replacements.get(i, leaf) for i, leaf in enumerate(self.leaves)]
        return jax.tree.unflatten(self.treedef, leaves)


def flatten(tree: Any) -> Flat:
    """Flatten a tree, naming every leaf by the keys that lead to it.

    Keys are joined by "/". The Variable that Flax NNX wraps round each array adds no
    key of its own, so that a parameter has the same path in linen and in NNX.
    """
    flat = Flat([], [], jax.tree.structure(tree), [])
    nodes, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_wrapper)
    for key_path, node in nodes:
        if isinstance(node, optax.MaskedNode):
            flat.masked.append(path_name(key_path))
        elif _is_nnx_variable(node):
            # The first key inside is the attribute that holds the variable's value.
            for inner_path, leaf in jax.tree_util.tree_flatten_with_path(node)[0]:
                flat.paths.append(path_name((*key_path, *inner_path[1:])))
                flat.leaves.append(leaf)
        else:
            flat.paths.append(path_name(key_path))
            flat.leaves.append(node)
    return flat


def path_name(key_path: tuple[Any, ...]) -> str:
    """The keys of a JAX key path, joined by "/"."""
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


def is_array(leaf: Any) -> bool:
    """Whether a leaf has a shape and a dtype: an array, a tracer, an abstract value."""
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def is_inside(path: str, node: str) -> bool:
    """Whether a leaf's path is that of a node or leads through it."""
    return not node or path == node or path.startswith(node + "/")


def is_masked(path: str, flat: Flat) -> bool:
    """Whether a path leads to something that a tree has lost to `optax.masked`."""
    return any(is_inside(path, node) for node in flat.masked)


def listing(paths: Iterable[str]) -> str:
    """Paths for an error message: one a line, the first forty."""
    named = [path or "(the tree is one array, with an empty path)" for path in paths]
    lines = [f"\n  {path}" for path in named[:_MOST_PATHS_LISTED]]
    if len(named) > _MOST_PATHS_LISTED:
        lines.append(f"\n  ... and {len(named) - _MOST_PATHS_LISTED} more")
    return "".join(lines) or "\n  (there are none)"


def arrays(flat: Flat) -> list[tuple[int, str, Any]]:
    """Position, path and leaf of those leaves that are arrays."""
    return [
        (position, path, leaf)
        for position, (path, leaf) in enumerate(
            zip(flat.paths, flat.leaves, strict=True)
        )
        if is_array(leaf)
    ]


def matched_positions(name: str, given: Flat, params: Flat) -> dict[int, int]:
    """Where another tree has the arrays that belong to the parameters.

    Containers may differ in what is no array, as an Equinox module and its gradient
    do.

    Args:
      name: what to call the other tree in an error.
      given: the other tree, with one array for each array among the parameters, at the
        same path and in the same shape. Where they are masked it may have arrays.
      params: the parameters.

    Returns:
      The position in `given` for every position in `params` that holds an array.

    Raises:
      ValueError: where a path or a shape differs, naming the path.
    """
    wanted = arrays(params)
    found = [array for array in arrays(given) if not is_masked(array[1], params)]
    wanted_paths = [path for _, path, _ in wanted]
    found_paths = [path for _, path, _ in found]
    if wanted_paths != found_paths:
        missing = [path for path in wanted_paths if path not in set(found_paths)]
        superfluous = [path for path in found_paths if path not in set(wanted_paths)]
        difference = (
            f"it has no array at {missing[0]!r}"
            if missing
            else f"it has an array at {superfluous[0]!r}, where they have none"
            if superfluous
            else "its arrays come in another order"
        )
        raise ValueError(
            f"{name} must have the structure of the parameters, but {difference}. The "
            f"parameters' paths are:{listing(wanted_paths)}"
        )
    for (_, path, param), (_, _, leaf) in zip(wanted, found, strict=True):
        if leaf.shape != param.shape:
            raise ValueError(
                f"{name} must have the shapes of the parameters, but has {leaf.shape} "
                f"at {path!r}, where they have {param.shape}."
            )
    return {
        position: other
        for (position, _, _), (other, _, _) in zip(wanted, found, strict=True)
    }


def _is_wrapper(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode) or _is_nnx_variable(node)


def _is_nnx_variable(node: Any) -> bool:
    # By name, so that Flax is needed only by those who use it.
    return any(
        base.__name__ == "Variable" and base.__module__.startswith("flax.nnx")
        for base in type(node).__mro__
    )
