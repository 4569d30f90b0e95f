"""Which leaves are prunable: by default, path, predicate or tree of bools."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import tree_paths

Prunable: TypeAlias = str | re.Pattern[str] | Callable[[str, Any], bool] | Any
"""A regular expression, a predicate (path, leaf) -> bool, or a tree of bools."""

_BIAS_OR_SCALE_WORDS = {
    *("bias", "biases", "offset", "offsets", "beta"),
    *("scale", "scales", "gamma", "gain"),
}
_BIAS_OR_SCALE_NAMES = {"b", "g"}  # haiku's bias, the scale of weight normalisation
_NORMALISATION_WORDS = {"norms", "normalization", "normalisation", "bn", "gn", "ln"}
_NORMALISATION_CLASSES = {
    *("BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "RMSNorm"),
}


def is_weight(path: str, leaf: Any) -> bool:
    """Whether a leaf is a weight, by its number of dimensions and its name.

    The default of `Target(prunable=...)`, and a building block for predicates of your
    own. A weight has two or more dimensions and is neither a bias nor the scale of a
    normalisation layer. Layers stacked by `scan` or `vmap` and attention heads give
    those two dimensions too, so the name counts as well: the last key ("bias", "b",
    "scale", "offset", "gamma", ...) and, for a leaf called "weight" or "w", the layer
    that holds it ("norm1", "layer_norm", "ln_f", "bn2", ...). As the default it also
    leaves out what is inside a module whose class is a normalisation layer (Equinox,
    NNX), which a path alone does not tell: in a predicate of your own name those.

    Args:
      path: the keys that lead to the leaf, joined by "/": "Dense_0/kernel".
      leaf: anything with `ndim`, such as an array or a `jax.ShapeDtypeStruct`.

    Returns:
      True for a weight.

    Examples:
      >>> import jax.numpy as jnp, swd_jax
      >>> swd_jax.is_weight("Dense_0/kernel", jnp.zeros((8, 4)))
      True
      >>> swd_jax.is_weight("attention/query/bias", jnp.zeros((8, 4)))
      False

      All weights but those of the last layer:

      >>> target = swd_jax.Target(
      ...     0.9,
      ...     prunable=lambda path, w: (
      ...         swd_jax.is_weight(path, w) and "head" not in path
      ...     ),
      ... )
    """
    if getattr(leaf, "ndim", 0) < 2:
        return False
    *parents, name = path.split("/")
    words = _words(name)
    if (
        _BIAS_OR_SCALE_WORDS.intersection(words)
        or "".join(words) in _BIAS_OR_SCALE_NAMES
    ):
        return False
    layer = next((key for key in reversed(parents) if not key.isdigit()), "")
    return name not in {"weight", "w"} or not any(
        word.endswith("norm") or word in _NORMALISATION_WORDS for word in _words(layer)
    )


def _words(name: str) -> list[str]:
    """The lower-case words of a name: "LayerNorm_0" -> ["layer", "norm"]."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return [word.lower() for word in words]


class PrunableLeaf(NamedTuple):
    """One leaf that the target prunes."""

    position: int  # among the leaves of the whole tree
    path: str
    weights: jax.Array


def check_prunable(prunable: Prunable) -> None:
    """Raise what is known to be wrong before there are parameters."""
    if isinstance(prunable, str):
        try:
            re.compile(prunable)
        except re.error as error:
            raise ValueError(
                f"prunable={prunable!r} is not a regular expression: {error}"
            ) from error
    elif not (
        isinstance(prunable, re.Pattern)
        or _is_tree_of_bools(prunable)
        or callable(prunable)
    ):
        raise ValueError(
            "prunable must be a regular expression on the path, a predicate "
            f"(path, leaf) -> bool or a tree of bools, got {prunable!r}"
        )


def find_prunable(
    prunable: Prunable, params: tree_paths.Flat, tree: Any
) -> list[PrunableLeaf]:
    """The leaves to prune, in the tree's order.

    Args:
      prunable: which leaves.
      params: the parameters, flattened.
      tree: the same parameters as a tree.

    Returns:
      The leaves. None of a tree that has no leaves at all.

    Raises:
      ValueError: if none of the leaves matches, a matching one is not floating-point,
        or a tree of bools does not fit the parameters.
    """
    matches = _matcher(prunable, params, tree)
    arrays = [PrunableLeaf(*array) for array in tree_paths.arrays(params)]
    found = [entry for entry in arrays if matches(entry)]
    if arrays and not found:
        raise ValueError(
            f"prunable={_described(prunable)} matches none of the parameters. Their "
            f"paths are:{tree_paths.listing(entry.path for entry in arrays)}"
        )
    for entry in found:
        if not jnp.issubdtype(entry.weights.dtype, jnp.floating):
            raise ValueError(
                f"prunable matches {entry.path!r}, which holds {entry.weights.dtype} "
                "numbers, not floating-point weights. Leave it out, for instance with "
                "a predicate: prunable=lambda path, leaf: ..."
            )
    return found


def _matcher(
    prunable: Prunable, params: tree_paths.Flat, tree: Any
) -> Callable[[PrunableLeaf], bool]:
    if isinstance(prunable, str | re.Pattern):
        pattern = re.compile(prunable)
        return lambda leaf: pattern.search(leaf.path) is not None
    # A module of bools may be callable too, so trees come before predicates.
    if _is_tree_of_bools(prunable):
        chosen = _bools_by_position(prunable, params)
        return lambda leaf: chosen[leaf.position]
    if prunable is is_weight:
        layers = _normalisation_layers(tree)
        return lambda leaf: (
            is_weight(leaf.path, leaf.weights)
            and not any(tree_paths.is_inside(leaf.path, layer) for layer in layers)
        )
    return lambda leaf: _asked(prunable, leaf.path, leaf.weights)


def _asked(predicate: Callable[[str, Any], Any], path: str, leaf: Any) -> bool:
    answer = predicate(path, leaf)
    if not isinstance(answer, bool | np.bool_):
        raise ValueError(
            f"prunable must answer with a bool, and answered {answer!r} for {path!r}"
        )
    return bool(answer)


def _is_tree_of_bools(prunable: Any) -> bool:
    leaves = jax.tree.leaves(prunable)
    return bool(leaves) and all(isinstance(leaf, bool | np.bool_) for leaf in leaves)


def _bools_by_position(bools: Any, params: tree_paths.Flat) -> dict[int, bool]:
    """Each parameter's own bool, or that of the part of the tree it is in."""
    given = tree_paths.flatten(bools)
    if given.paths == params.paths:
        return dict(enumerate(map(bool, given.leaves)))
    chosen: dict[int, bool] = {}
    for node, value in zip(given.paths, given.leaves, strict=True):
        inside = [
            i for i, p in enumerate(params.paths) if tree_paths.is_inside(p, node)
        ]
        if not inside and not tree_paths.is_masked(node, params):
            raise ValueError(
                f"prunable has a bool at {node!r}, where the parameters have nothing. "
                f"Their paths are:{tree_paths.listing(params.paths)}"
            )
        chosen.update(dict.fromkeys(inside, bool(value)))
    for position, path, _ in tree_paths.arrays(params):
        if position not in chosen:
            raise ValueError(
                f"prunable has no bool for the parameter {path!r}. Give it the "
                "structure of the parameters, or of their upper levels."
            )
    return chosen


def _normalisation_layers(tree: Any) -> list[str]:
    """Paths of the modules that are normalisation layers by their class.

    An Equinox layer in a list has no name to go by, and its scale may have as many
    dimensions as a kernel.
    """

    def is_layer(node: Any) -> bool:
        return type(node).__name__ in _NORMALISATION_CLASSES

    nodes, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_layer)
    return [
        tree_paths.path_name(key_path) for key_path, node in nodes if is_layer(node)
    ]


def _described(prunable: Prunable) -> str:
    if prunable is is_weight:
        return "is_weight (two or more dimensions, no bias, no scale)"
    return repr(prunable)


def as_prunable(p):
    check_prunable(p)
    return p
