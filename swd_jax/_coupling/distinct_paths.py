"""Arrays of a tree by their paths, where every path is that of one array only."""

from typing import Any

from swd_jax._arrays import tree_paths


def arrays_by_path(flat: tree_paths.FlatTree, name: str) -> dict[str, Any]:
    """The arrays of a tree by path.

    `tree_paths.flatten` joins keys by "/", so that {"a/b": {"c": x}, "a": {"b/c": y}}
    has the path "a/b/c" twice.

    Args:
      flat: the tree.
      name: the tree's name in the error.

    Raises:
      ValueError: if two arrays have the same path.
    """
    arrays: dict[str, Any] = {}
    for _, path, leaf in tree_paths.arrays(flat):
        if path in arrays:
            raise ValueError(
                f"{name} has two arrays with the path {path!r}. Paths are keys joined "
                "by '/': rename a key that contains '/' itself."
            )
        arrays[path] = leaf
    return arrays
