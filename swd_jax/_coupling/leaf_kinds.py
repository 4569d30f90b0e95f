"""Recognition of the leaves that are no parameters: running statistics, and outputs.

Outputs are intermediate results that a module keeps with its variables, by `sow`.
"""

from collections.abc import Container, Sequence
from typing import Any

import jax

from swd_jax._arrays import tree_paths

_LEAF_NAMES = frozenset(
    "mean var variance running_mean running_var moving_mean moving_variance".split()
)
# Collections of Flax linen and of haiku.
_COLLECTIONS = frozenset(["batch_stats", "mean_ema", "var_ema"])
# Classes by name and package, because Flax and Equinox are optional dependencies.
_CONTAINERS = frozenset([("BatchStat", "flax"), ("State", "equinox")])
_OUTPUT_CLASSES = frozenset(
    [("Intermediate", "flax"), ("Perturbation", "flax"), ("Cache", "flax")]
)


def find_running_statistics(params: Any, paths: Sequence[str]) -> set[str]:
    """Return the paths that are running statistics by container, collection or name."""
    return _paths_inside(params, paths, _CONTAINERS) | {
        path
        for path in paths
        if _COLLECTIONS.intersection(path.split("/"))
        or path.rpartition("/")[2] in _LEAF_NAMES
    }


def find_kept_outputs(
    params: Any, paths: Sequence[str], unused: Container[str]
) -> set[str]:
    """Return the paths that are intermediate results or caches, not parameters.

    - Flax linen has parameters in the collection "params"; `sow` may write to any other
      collection. A leaf of another one is an output if the model does not use it.
    - NNX has a class of variables for each.
    """
    outputs = _paths_inside(params, paths, _OUTPUT_CLASSES)
    for path in paths:
        keys = path.split("/")
        if path not in unused or "params" in keys:
            continue
        # "encoder/intermediates/h" lies beside "encoder/params".
        if any(
            other.startswith("/".join([*keys[:depth], "params", ""]))
            for depth in range(len(keys))
            for other in paths
        ):
            outputs.add(path)
    return outputs


def _paths_inside(
    params: Any, paths: Sequence[str], classes: Container[tuple[str, str]]
) -> set[str]:
    """Return the paths that lead through a node of one of some classes."""

    def is_container(node: Any) -> bool:
        return any(
            (base.__name__, base.__module__.partition(".")[0]) in classes
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
    }
