"""Recognition of the leaves that are running statistics, as those of a batch norm."""

from collections.abc import Sequence
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


def find_running_statistics(params: Any, paths: Sequence[str]) -> set[str]:
    """Return the paths that are running statistics by container, collection or name."""
    nodes, _ = jax.tree_util.tree_flatten_with_path(params, is_leaf=_is_container)
    containers = [
        tree_paths.path_name(key_path)
        for key_path, node in nodes
        if _is_container(node)
    ]
    return {
        path
        for path in paths
        if any(tree_paths.is_inside(path, container) for container in containers)
        or _COLLECTIONS.intersection(path.split("/"))
        or path.rpartition("/")[2] in _LEAF_NAMES
    }


def _is_container(node: Any) -> bool:
    return any(
        (base.__name__, base.__module__.partition(".")[0]) in _CONTAINERS
        for base in type(node).__mro__
    )
