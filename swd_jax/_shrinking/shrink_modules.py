"""Module objects that shrink: Flax NNX and Equinox, with their static sizes."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax

from swd_jax._arrays import tree_paths
from swd_jax._coupling.channel_groups import ChannelGroups, Kept
from swd_jax._shrinking import cut_arrays, layer_sizes


def shrink_module(
    model: Any,
    groups: ChannelGroups,
    kept: Kept | Any,
    *,
    attributes: Mapping[str, Any] | None = None,
    round_to: int = 1,
    scores: Any = None,
) -> Any:
    """Cut channels out of a Flax NNX or Equinox module.

    The module comes back smaller, and is used as before. The sizes that layers of Flax
    and Equinox keep beside their arrays (`in_features`, `groups`, `num_heads`, ...)
    are set anew; those of your own layers are named in `attributes`. To have the result
    checked against the model, use `shrink`.

    Args:
      model: the module that the groups were found in, as `params` of `channel_groups`,
        or any tree that holds modules. It stays as it is.
      groups: what `channel_groups` gave.
      kept: which channels stay: as in `shrink`.
      attributes: new values for attributes of the module, by path:
        `{"block/heads": 3}`.
      round_to: as in `shrink`.
      scores: as in `shrink`.

    Returns:
      A module of the same class.

    Raises:
      ValueError: if the groups are those of another model, `kept` does not fit them or
        empties a layer, or the module has no such attribute.

    Examples:
      >>> import jax.numpy as jnp, swd_jax
      >>> from flax import nnx
      >>> rngs = nnx.Rngs(0)
      >>> model = nnx.Sequential(
      ...     nnx.Linear(4, 16, rngs=rngs), nnx.Linear(16, 3, rngs=rngs)
      ... )
      >>> x = jnp.ones((1, 4))
      >>> groups = swd_jax.channels.channel_groups(lambda model, x: model(x), model, x)
      >>> small = swd_jax.channels.shrink_module(model, groups, [[True, False] * 8])
      >>> small.layers[0].out_features, small(x).shape
      (8, (1, 3))
    """
    flat = tree_paths.flatten(model)
    cut_arrays.check_shapes(groups, flat, "model")
    vectors = cut_arrays.vectors(groups, kept, round_to, scores)
    return cut_tree(model, flat, cut_arrays.cuts(groups, vectors), attributes or {})


def cut_tree(
    tree: Any,
    flat: tree_paths.Flat,
    cuts: cut_arrays.Cuts,
    attributes: Mapping[str, Any],
) -> Any:
    """A tree whose arrays are cut, and whose modules know about it."""
    arrays = {path: leaf for _, path, leaf in tree_paths.arrays(flat)}
    new = cut_arrays.cut({path: arrays[path] for path in cuts}, cuts)
    if any(_is_flax(node) for node in jax.tree.leaves(tree, is_leaf=_is_flax)):
        small = _with_shared_variables(tree, new)
    else:
        small = flat.rebuilt(
            {i: new[path] for i, path, _ in tree_paths.arrays(flat) if path in new}
        )
    shapes = {
        path: (tuple(leaf.shape), tuple(new.get(path, leaf).shape))
        for path, leaf in arrays.items()
    }
    unused = dict(attributes)
    for prefix, module in _modules("", small):
        of_layer = _prefixed(shapes, prefix)
        for name, value in layer_sizes.sizes(module, of_layer).items():
            object.__setattr__(module, name, value)
        for path in list(unused):
            layer, _, name = path.rpartition("/")
            if layer == prefix and hasattr(module, name):
                object.__setattr__(module, name, unused.pop(path))
    if unused:
        raise ValueError(
            f"attributes names {next(iter(unused))!r}, which is no attribute of a "
            "module in the model. A path leads to it by attributes and numbers, such "
            "as 'blocks/0/heads'."
        )
    return small


def _prefixed(
    shapes: Mapping[str, layer_sizes.BeforeAndAfter], prefix: str
) -> layer_sizes.Shapes:
    return lambda name: shapes.get(f"{prefix}/{name}" if prefix else name)


def _with_shared_variables(tree: Any, new: Mapping[str, Any]) -> Any:
    """Change NNX modules by their state, in which a shared Variable occurs once."""
    from flax import nnx  # only for those who use it  # noqa: PLC0415

    def changed(key_path: Any, node: Any) -> Any:
        path = tree_paths.path_name(key_path)
        if not _is_flax(node):
            return new.get(path, node)
        graph, state = nnx.split(node)
        flat = tree_paths.flatten(state)
        prefix = f"{path}/" if path else ""
        replaced = {
            position: new[prefix + inner]
            for position, inner, _ in tree_paths.arrays(flat)
            if prefix + inner in new
        }
        return nnx.merge(graph, flat.rebuilt(replaced))

    return jax.tree_util.tree_map_with_path(changed, tree, is_leaf=_is_flax)


def has_modules(tree: Any) -> bool:
    """Whether there are modules in a tree."""
    return any(True for _ in _modules("", tree))


def _is_flax(node: Any) -> bool:
    return _is_of(node, "flax.nnx", "Module")


def _is_module(node: Any) -> bool:
    return _is_flax(node) or _is_of(node, "equinox", "Module")


def _is_of(node: Any, package: str, name: str) -> bool:
    return any(
        base.__name__ == name and base.__module__.startswith(package)
        for base in type(node).__mro__
    )


def _modules(path: str, node: Any) -> Iterator[tuple[str, Any]]:
    """All modules in a tree, the inner ones first, with their paths."""

    def below(key: Any) -> str:
        return f"{path}/{key}" if path else str(key)

    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _modules(below(key), value)
    elif isinstance(node, tuple) and hasattr(node, "_fields"):
        for key, value in zip(getattr(node, "_fields"), node, strict=True):  # noqa: B009
            yield from _modules(below(key), value)
    elif isinstance(node, list | tuple) or _is_of(node, "flax.nnx", "List"):
        for key, value in enumerate(node):
            yield from _modules(below(key), value)
    elif _is_module(node):
        for key, value in vars(node).items():
            if not key.startswith("_pytree__"):
                yield from _modules(below(key), value)
        yield path, node
