"""Leaves of a tree by position and by path ("Conv_0/kernel"), in any container."""

import collections
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import optax

_MAX_PATHS_LISTED = 40
# Keys of dataclasses and modules, and of nodes that are registered without keys.
_FIELD_KEYS = (jax.tree_util.GetAttrKey, jax.tree_util.FlattenedIndexKey)


class FlatTree(NamedTuple):
    """A tree's leaves in order, their paths, and the structure that holds them.

    A leaf is identified by its position. Two leaves can share a path, since keys may
    contain "/": see `arrays_by_path`.
    """

    paths: list[str]
    leaves: list[Any]
    treedef: Any
    masked_paths: list[str]
    """Paths of the nodes that `optax.masked` or `optax.partition` has emptied."""
    unwrapped_paths: list[str]
    """The paths without the field of a wrapper: of a node that has one leaf, and is no
    dict, list or tuple."""

    def rebuild(self, replacements: Mapping[int, Any]) -> Any:
        """Return the tree with the leaves at some positions replaced."""
        leaves = [replacements.get(i, leaf) for i, leaf in enumerate(self.leaves)]
        return jax.tree.unflatten(self.treedef, leaves)

    def rebuild_masked(self, entries: Mapping[int, Any]) -> Any:
        """Return the tree with entries at some positions, `MaskedNode` elsewhere."""
        masked = dict.fromkeys(range(len(self.leaves)), optax.MaskedNode())
        return self.rebuild({**masked, **entries})


class ArrayLeaf(NamedTuple):
    """A leaf that is an array."""

    position: int
    path: str
    array: Any


def flatten(tree: Any) -> FlatTree:
    """Flatten a tree and name every leaf by its keys, joined by "/".

    The Variables of Flax NNX and the boxes of Flax linen (`nn.Partitioned`), which wrap
    an array each, add no key: a parameter has the same path in linen and in NNX, boxed
    or not.
    """
    flat = FlatTree([], [], jax.tree.structure(tree), [], [])
    nodes, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_opaque)
    num_inside = collections.Counter(key_path[:-1] for key_path, _ in nodes)
    for key_path, node in nodes:
        if isinstance(node, optax.MaskedNode):
            flat.masked_paths.append(path_name(key_path))
        elif is_flax_box(node):
            # The first key inside is the attribute that holds the box's value.
            for inner_path, leaf in jax.tree_util.tree_flatten_with_path(node)[0]:
                path = path_name((*key_path, *inner_path[1:]))
                flat.paths.append(path)
                flat.leaves.append(leaf)
                flat.unwrapped_paths.append(path)
        else:
            flat.paths.append(path_name(key_path))
            flat.leaves.append(node)
            has_field = bool(key_path) and isinstance(key_path[-1], _FIELD_KEYS)
            is_wrapped = has_field and num_inside[key_path[:-1]] == 1
            unwrapped = key_path[:-1] if is_wrapped else key_path
            flat.unwrapped_paths.append(path_name(unwrapped))
    return flat


def path_name(key_path: tuple[Any, ...]) -> str:
    """Return the keys of a JAX key path, joined by "/"."""
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


def is_array(leaf: Any) -> bool:
    """Whether a leaf has a shape and a dtype: an array, a tracer, an abstract value."""
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def is_inside(path: str, node: str) -> bool:
    """Whether a leaf's path is that of a node or leads through it."""
    return not node or path == node or path.startswith(node + "/")


def is_masked(path: str, flat: FlatTree) -> bool:
    """Whether a path leads to or through a node that `optax.masked` has emptied."""
    return any(is_inside(path, node) for node in flat.masked_paths)


def arrays_by_path(name: str, flat: FlatTree) -> dict[str, Any]:
    """Return the arrays of a tree by path, where every path is that of one array.

    Args:
      name: what to call the tree in an error.
      flat: the tree.

    Raises:
      ValueError: if two arrays have the same path, because keys contain "/":
        {"a/b": {"c": x}, "a": {"b/c": y}} has "a/b/c" twice.
    """
    by_path: dict[str, Any] = {}
    for leaf in arrays(flat):
        if leaf.path in by_path:
            raise ValueError(
                f"{name} has two arrays with the path {leaf.path!r}. Paths are keys "
                "joined by '/': rename a key that contains '/' itself."
            )
        by_path[leaf.path] = leaf.array
    return by_path


def array_lookup(
    name: str, tree: FlatTree, params: FlatTree
) -> Callable[[int], Any | None]:
    """Return a function from a parameter's position to a tree's array for it.

    Trees of one structure match by position, others by path. The function returns None
    where the tree has no array.

    Args:
      name: what to call the tree in an error.
      tree: a tree like the parameters, which may lack some of their arrays.
      params: the parameters.

    Raises:
      ValueError: if trees that differ in structure have two arrays with the same path.
    """
    if tree.treedef == params.treedef:
        by_position = {leaf.position: leaf.array for leaf in arrays(tree)}
        return by_position.get
    arrays_by_path("params", params)
    by_path = arrays_by_path(name, tree)
    return lambda position: by_path.get(params.paths[position])


def listing(paths: Iterable[str]) -> str:
    """Return paths for an error message: one a line, the first forty."""
    names = [path or "(the tree is one array, with an empty path)" for path in paths]
    lines = [f"\n  {path}" for path in names[:_MAX_PATHS_LISTED]]
    if len(names) > _MAX_PATHS_LISTED:
        lines.append(f"\n  ... and {len(names) - _MAX_PATHS_LISTED} more")
    return "".join(lines) or "\n  (there are none)"


def arrays(flat: FlatTree) -> list[ArrayLeaf]:
    """Return those leaves of a tree that are arrays."""
    return [
        ArrayLeaf(position, path, leaf)
        for position, (path, leaf) in enumerate(
            zip(flat.paths, flat.leaves, strict=True)
        )
        if is_array(leaf)
    ]


def match_positions(name: str, tree: FlatTree, params: FlatTree) -> dict[int, int]:
    """Return where a tree has the arrays that belong to those of the parameters.

    Trees of one structure match by position. Trees of different containers match by
    path: an Equinox module and its gradient differ in leaves that are no arrays.

    Args:
      name: what to call the tree in an error.
      tree: a tree with one array for each array among the parameters, at the same path
        and in the same shape. Where the parameters are masked it may have arrays.
      params: the parameters.

    Returns:
      The position in `tree` for every position in `params` that holds an array.

    Raises:
      ValueError: where a path or a shape differs, naming the path.
    """
    param_arrays = arrays(params)
    if tree.treedef == params.treedef:
        tree_arrays = arrays(tree)
        is_matched = _positions(tree_arrays) == _positions(param_arrays)
    else:
        tree_arrays = [
            leaf for leaf in arrays(tree) if not is_masked(leaf.path, params)
        ]
        is_matched = _paths(tree_arrays) == _paths(param_arrays)
    if not is_matched:
        difference = _describe_difference(_paths(tree_arrays), _paths(param_arrays))
        raise ValueError(
            f"{name} must have the structure of the parameters, but {difference}. The "
            f"parameters' paths are:{listing(_paths(param_arrays))}"
        )
    pairs = list(zip(param_arrays, tree_arrays, strict=True))
    for param, leaf in pairs:
        if leaf.array.shape != param.array.shape:
            raise ValueError(
                f"{name} must have the shapes of the parameters, but has "
                f"{leaf.array.shape} at {param.path!r}, where they have "
                f"{param.array.shape}."
            )
    return {param.position: leaf.position for param, leaf in pairs}


def _positions(leaves: list[ArrayLeaf]) -> list[int]:
    return [leaf.position for leaf in leaves]


def _paths(leaves: list[ArrayLeaf]) -> list[str]:
    return [leaf.path for leaf in leaves]


def _describe_difference(paths: list[str], param_paths: list[str]) -> str:
    """Return how the paths of a tree's arrays differ from those of the parameters."""
    present, expected = set(paths), set(param_paths)
    missing = [path for path in param_paths if path not in present]
    if missing:
        return f"there is no array at {missing[0]!r}"
    superfluous = [path for path in paths if path not in expected]
    if superfluous:
        return f"there is an array at {superfluous[0]!r}, where they have none"
    return "the arrays come in another order"


def _is_opaque(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode) or is_flax_box(node)


def is_flax_box(node: Any) -> bool:
    """Whether a node is a Variable of Flax NNX, or a box of Flax linen's metadata."""
    # Compared by name: Flax need not be installed.
    return any(
        (base.__name__ == "Variable" and base.__module__.startswith("flax.nnx"))
        or (base.__name__ == "AxisMetadata" and base.__module__ == "flax.core.meta")
        for base in type(node).__mro__
    )
