"""Modules of Flax NNX and Equinox in a tree, and NNX modules with other arrays."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax

from swd_jax._arrays import tree_paths


def iterate_modules(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All modules in a tree with their paths, inner modules first."""

    def child_path(key: Any) -> str:
        return f"{path}/{key}" if path else str(key)

    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from iterate_modules(value, child_path(key))
    elif isinstance(node, tuple) and hasattr(node, "_fields"):
        for key, value in zip(getattr(node, "_fields"), node, strict=True):  # noqa: B009
            yield from iterate_modules(value, child_path(key))
    elif isinstance(node, list | tuple) or _has_base(node, "flax.nnx", "List"):
        for key, value in enumerate(node):
            yield from iterate_modules(value, child_path(key))
    elif is_module(node):
        for key, value in attributes(node):
            yield from iterate_modules(value, child_path(key))
        yield path, node


def is_module(node: Any) -> bool:
    """Whether a node is a module of Flax NNX or Equinox."""
    return is_flax_module(node) or _has_base(node, "equinox", "Module")


def attributes(module: Any) -> list[tuple[str, Any]]:
    """Names and values of a module's attributes."""
    # flax 0.12 keeps the state of `nnx.Pytree` in attributes of this prefix.
    return [
        (name, value)
        for name, value in vars(module).items()
        if not name.startswith("_pytree__")
    ]


def has_modules(tree: Any) -> bool:
    """Whether a tree has modules."""
    return any(True for _ in iterate_modules(tree))


def has_flax_modules(tree: Any) -> bool:
    """Whether a tree has Flax NNX modules."""
    return any(map(is_flax_module, jax.tree.leaves(tree, is_leaf=is_flax_module)))


def is_flax_module(node: Any) -> bool:
    """Whether a node is a Flax NNX module."""
    return _has_base(node, "flax.nnx", "Module")


def replace_flax_arrays(tree: Any, arrays: Mapping[str, Any]) -> Any:
    """Replace arrays of a tree with NNX modules, by path.

    `nnx.split` gives a state in which a shared Variable occurs once, so that it is
    still shared after `nnx.merge`. `jax.tree.map` would copy it for each occurrence.
    """
    # Flax is an optional dependency.
    from flax import nnx  # noqa: PLC0415

    def replace(key_path: Any, node: Any) -> Any:
        path = tree_paths.path_name(key_path)
        if not is_flax_module(node):
            return arrays.get(path, node)
        graph, state = nnx.split(node)
        flat = tree_paths.flatten(state)
        prefix = f"{path}/" if path else ""
        replacements = {
            position: arrays[prefix + inner]
            for position, inner, _ in tree_paths.arrays(flat)
            if prefix + inner in arrays
        }
        return nnx.merge(graph, flat.rebuild(replacements))

    return jax.tree_util.tree_map_with_path(replace, tree, is_leaf=is_flax_module)


def _has_base(node: Any, package: str, name: str) -> bool:
    # Classes are compared by name, because Flax and Equinox are optional dependencies.
    return any(
        base.__name__ == name and base.__module__.startswith(package)
        for base in type(node).__mro__
    )
