"""The axis of a parameter that its layer sums over, where its framework tells it."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax

from swd_jax._allocation.weight_or_bias import split_path, split_words
from swd_jax._arrays import tree_paths

_Shape: TypeAlias = tuple[int, ...]

_KERNEL_NAMES = {"kernel", "w"}  # of Flax and of haiku
_EMBEDDING = 0  # no axis, counted from the end
_OF_EMBEDDING = "an embedding is looked up, or summed over its features"
_EMBEDDING_NAMES = {"embedding", "embeddings"}  # of Flax and of haiku


def axis_finder(tree: tree_paths.FlatTree, params: Any) -> Callable[[str, _Shape], int]:
    """Return a function from a leaf's path and shape to its summed axis, from the end.

    The function raises a ValueError, with the reason, if the axis is not certain.

    Args:
      tree: the parameters, flattened.
      params: the same parameters as a tree.
    """
    shapes = {leaf.path: tuple(leaf.array.shape) for leaf in tree_paths.arrays(tree)}
    in_equinox = axes_in_equinox(params)

    def find(path: str, shape: _Shape) -> int:
        axis = in_equinox(path)
        if axis == _EMBEDDING:
            raise ValueError(_OF_EMBEDDING)
        return _axis_by_name(path, shape, shapes) if axis is None else axis

    return find


def axes_in_equinox(params: Any) -> Callable[[str], int | None]:
    """Return a function from a path to the summed axis, from the end, of its layer.

    The function returns None if the path leads to no layer of Equinox.
    """
    layers = _equinox_layers(params)

    def find(path: str) -> int | None:
        for layer_path, layer in layers:
            if tree_paths.is_inside(path, layer_path):
                return _axis_in_equinox(layer)
        return None

    return find


def _axis_by_name(path: str, shape: _Shape, shapes: dict[str, _Shape]) -> int:
    name, layer, _ = split_path(path)
    if name in _EMBEDDING_NAMES:
        raise ValueError(_OF_EMBEDDING)
    if name == "weight" or name.startswith("weight_"):
        raise ValueError("a 'weight' has its inputs last in some libraries")
    if len(shape) == 2:
        return -2
    if name not in _KERNEL_NAMES:
        raise ValueError(f"it has {len(shape)} dimensions, and a name of your own")
    words = split_words(layer)
    if "transpose" in words:
        raise ValueError("transposed convolutions have their inputs in either place")
    if any(word.startswith("conv") for word in words):
        return -2
    axis = _axis_in_attention(path, name, shapes)
    return _axis_by_bias(path, name, shape, shapes) if axis is None else axis


def _around_name(path: str, name: str) -> tuple[list[str], list[str]]:
    """Return the keys before the one that names a leaf, and those of its wrappers."""
    keys = path.split("/")
    index = len(keys) - 1 - keys[::-1].index(name)
    return keys[:index], keys[index + 1 :]


def _axis_in_attention(path: str, name: str, shapes: dict[str, _Shape]) -> int | None:
    """Return the axis in Flax's attention, whose kernels have an axis of heads.

    Query, key and value are (inputs, heads, features); out is (heads, features,
    outputs).
    """
    parents, wrappers = _around_name(path, name)
    kernels = {
        key: shapes.get("/".join([*parents[:-1], key, name, *wrappers]), ())
        for key in ("query", "key", "value", "out")
    }
    is_attention = (
        all(len(shape) == 3 for shape in kernels.values())
        and kernels["query"][1:] == kernels["out"][:2]
        and kernels["key"][1:] == kernels["value"][1:]
    )
    if not is_attention or parents[-1] not in kernels:
        return None
    return -2 if parents[-1] == "out" else -3


def _axis_by_bias(
    path: str, name: str, shape: _Shape, shapes: dict[str, _Shape]
) -> int:
    """Return the last axis that the bias of the same layer does not have.

    A kernel is (stacked layers..., inputs..., outputs...), and its bias the same
    without the inputs.
    """
    parents, wrappers = _around_name(path, name)
    bias_name = "bias" if name == "kernel" else "b"
    bias = shapes.get("/".join([*parents, bias_name, *wrappers]), ())
    axes: set[int] = set()
    for num_outputs in range(1, len(bias) + 1):
        num_stacked = len(bias) - num_outputs
        expected = shape[:num_stacked] + shape[len(shape) - num_outputs :]
        if len(shape) > len(bias) and bias == expected:
            axes.add(-num_outputs - 1)
    if len(axes) != 1:
        raise ValueError(
            f"it has {len(shape)} dimensions, and its layer's name and bias do not "
            "tell which of them are inputs"
        )
    return axes.pop()


def _equinox_layers(params: Any) -> list[tuple[str, Any]]:
    nodes, _ = jax.tree_util.tree_flatten_with_path(params, is_leaf=_is_equinox_layer)
    return [
        (tree_paths.path_name(key_path), node)
        for key_path, node in nodes
        if _is_equinox_layer(node)
    ]


def _is_equinox_layer(node: Any) -> bool:
    return not _EQUINOX_LAYERS.isdisjoint(_equinox_classes(node))


def _equinox_classes(node: Any) -> set[str]:
    # Compared by name: Equinox need not be installed.
    return {
        base.__name__
        for base in type(node).__mro__
        if base.__module__.startswith("equinox.nn")
    }


_EQUINOX_LAYERS = {
    *("Linear", "GRUCell", "LSTMCell"),
    *("Conv", "ConvTranspose", "Embedding"),
}


def _axis_in_equinox(layer: Any) -> int:
    classes = _equinox_classes(layer)
    if "Embedding" in classes:
        return _EMBEDDING
    if classes & {"Conv", "ConvTranspose"}:
        # (outputs, inputs of a group, window), and perhaps stacked layers before that.
        return -layer.num_spatial_dims - 1
    return -1  # (outputs, inputs)
