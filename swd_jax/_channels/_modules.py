"""Module objects that shrink: Flax NNX and Equinox, with their static sizes."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import jax

from swd_jax import _paths
from swd_jax._channels import _kept
from swd_jax._channels._groups import ChannelGroups, Kept

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = Callable[[str], tuple[Shape, Shape] | None]
"""The shape before and after of a layer's array, by its name in the layer."""


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
      attributes: new values for attributes of the module, by path: `{"block/heads": 3}`.
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
      >>> model = nnx.Sequential(nnx.Linear(4, 16, rngs=rngs), nnx.Linear(16, 3, rngs=rngs))
      >>> x = jnp.ones((1, 4))
      >>> groups = swd_jax.channel_groups(lambda model, x: model(x), model, x)
      >>> small = swd_jax.shrink_module(model, groups, [[True, False] * 8])
      >>> small.layers[0].out_features, small(x).shape
      (8, (1, 3))
    """
    flat = _paths.flatten(model)
    _kept.check_shapes(groups, flat, "model")
    vectors = _kept.vectors(groups, kept, round_to, scores)
    return cut_tree(model, flat, _kept.cuts(groups, vectors), attributes or {})


def cut_tree(
    tree: Any, flat: _paths.Flat, cuts: _kept.Cuts, attributes: Mapping[str, Any]
) -> Any:
    """A tree whose arrays are cut, and whose modules know about it."""
    shapes: dict[str, tuple[Shape, Shape]] = {}
    replaced: dict[int, Any] = {}
    for position, path, leaf in _paths.arrays(flat):
        new = _kept.cut(leaf, cuts.get(path, {}))
        shapes[path] = tuple(leaf.shape), tuple(new.shape)
        if path in cuts:
            replaced[position] = new
    small = flat.rebuilt(replaced)
    if any(_is_flax(node) for node in jax.tree.leaves(tree, is_leaf=_is_flax)):
        small = _with_shared_variables(tree, cuts)
    unused = dict(attributes)
    for prefix, module in _modules("", small):
        of_layer = _prefixed(shapes, prefix)
        for name, value in _sizes(module, of_layer).items():
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


def _prefixed(shapes: Mapping[str, tuple[Shape, Shape]], prefix: str) -> Shapes:
    return lambda name: shapes.get(f"{prefix}/{name}" if prefix else name)


def _with_shared_variables(tree: Any, cuts: _kept.Cuts) -> Any:
    """Cut NNX modules by their state, in which a shared Variable occurs once."""
    from flax import nnx  # only for those who use it  # noqa: PLC0415

    def shrunk(key_path: Any, node: Any) -> Any:
        path = _paths.path_name(key_path)
        if not _is_flax(node):
            return _kept.cut(node, cuts.get(path, {})) if path in cuts else node
        graph, state = nnx.split(node)
        flat = _paths.flatten(state)
        prefix = f"{path}/" if path else ""
        replaced = {
            position: _kept.cut(leaf, cuts[prefix + inner])
            for position, inner, leaf in _paths.arrays(flat)
            if prefix + inner in cuts
        }
        return nnx.merge(graph, flat.rebuilt(replaced))

    return jax.tree_util.tree_map_with_path(shrunk, tree, is_leaf=_is_flax)


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
        for key in node._fields:
            yield from _modules(below(key), getattr(node, key))
    elif isinstance(node, list | tuple) or _is_of(node, "flax.nnx", "List"):
        for key, value in enumerate(node):
            yield from _modules(below(key), value)
    elif _is_module(node):
        for key, value in vars(node).items():
            if not key.startswith("_pytree__"):
                yield from _modules(below(key), value)
        yield path, node


# The sizes of layers that their arrays imply.


def _sizes(module: Any, shapes: Shapes) -> dict[str, Any]:
    """New values of a layer's attributes, by its class."""
    package = next(
        (
            package
            for base in type(module).__mro__
            for package in ("flax.nnx", "equinox")
            if base.__name__ in _TABLES[package] and base.__module__.startswith(package)
        ),
        None,
    )
    if package is None:
        return {}
    table = _TABLES[package]
    rule = next(table[b.__name__] for b in type(module).__mro__ if b.__name__ in table)
    found = rule(module, shapes)
    return {name: value for name, value in found.items() if hasattr(module, name)}


def _flax_linear(module: Any, shapes: Shapes) -> dict[str, Any]:
    del module
    kernel = shapes("kernel")
    return {"in_features": kernel[1][0], "out_features": kernel[1][1]} if kernel else {}


def _flax_linear_general(module: Any, shapes: Shapes) -> dict[str, Any]:
    kernel = shapes("kernel")
    if kernel is None:
        return {}
    into, out = len(module.in_features), len(module.out_features)
    sizes = kernel[1][len(kernel[1]) - into - out :]
    return {"in_features": sizes[:into], "out_features": sizes[into:]}


def _flax_conv(module: Any, shapes: Shapes) -> dict[str, Any]:
    kernel = shapes("kernel")
    if kernel is None:
        return {}
    *_, into, out = kernel[1]
    groups = module.feature_group_count * out // kernel[0][-1]
    if module.feature_group_count == 1:
        groups = 1
    return {
        "kernel_shape": kernel[1],
        "in_features": into * groups,
        "out_features": out,
        "feature_group_count": groups,
    }


def _flax_conv_transpose(module: Any, shapes: Shapes) -> dict[str, Any]:
    kernel = shapes("kernel")
    if kernel is None:
        return {}
    *_, into, out = kernel[1]
    if getattr(module, "transpose_kernel", False):
        into, out = out, into
    return {"kernel_shape": kernel[1], "in_features": into, "out_features": out}


def _first(shapes: Shapes, *names: str) -> tuple[Shape, Shape] | None:
    return next((shapes(name) for name in names if shapes(name)), None)


def _flax_norm(module: Any, shapes: Shapes) -> dict[str, Any]:
    found = _first(shapes, "scale", "bias", "mean")
    if found is None:
        return {}
    before, after = found
    sizes: dict[str, Any] = {"num_features": after[-1]}
    if hasattr(module, "num_groups"):
        sizes["num_groups"] = module.num_groups * after[-1] // before[-1]
    return sizes


def _flax_embed(module: Any, shapes: Shapes) -> dict[str, Any]:
    del module
    table = shapes("embedding")
    if table is None:
        return {}
    return {"num_embeddings": table[1][0], "features": table[1][1]}


def _flax_einsum(module: Any, shapes: Shapes) -> dict[str, Any]:
    del module
    kernel, bias = shapes("kernel"), shapes("bias")
    sizes = {"kernel_shape": kernel[1]} if kernel else {}
    return {**sizes, "bias_shape": bias[1]} if bias else sizes


def _flax_attention(module: Any, shapes: Shapes) -> dict[str, Any]:
    del module
    query, key, out = (shapes(f"{n}/kernel") for n in ("query", "key", "out"))
    if query is None or key is None or out is None:
        return {}
    into, heads, size = query[1]
    return {
        "num_heads": heads,
        "num_kv_heads": key[1][1],
        "head_dim": size,
        "in_features": into,
        "qkv_features": heads * size,
        "in_kv_features": key[1][0],
        "out_features": out[1][-1],
    }


def _equinox_linear(module: Any, shapes: Shapes) -> dict[str, Any]:
    weight = shapes("weight")
    if weight is None:
        return {}
    sizes = dict(zip(("out_features", "in_features"), weight[1], strict=True))
    return {
        name: size for name, size in sizes.items() if getattr(module, name) != "scalar"
    }


def _equinox_conv(module: Any, shapes: Shapes) -> dict[str, Any]:
    weight = shapes("weight")
    if weight is None:
        return {}
    out, into, *_ = weight[1]
    groups = module.groups * out // weight[0][0] if module.groups > 1 else 1
    return {"out_channels": out, "in_channels": into * groups, "groups": groups}


def _equinox_norm(module: Any, shapes: Shapes) -> dict[str, Any]:
    found = _first(shapes, "weight", "bias")
    if found is None:
        return {}
    before, after = found
    sizes: dict[str, Any] = {"shape": after}
    if hasattr(module, "groups"):
        sizes["groups"] = module.groups * after[0] // before[0]
    return {**sizes, "channels": after[0], "input_size": after[0]}


def _equinox_embedding(module: Any, shapes: Shapes) -> dict[str, Any]:
    del module
    table = shapes("weight")
    if table is None:
        return {}
    return {"num_embeddings": table[1][0], "embedding_size": table[1][1]}


def _equinox_attention(module: Any, shapes: Shapes) -> dict[str, Any]:
    names = ("query_proj", "value_proj", "output_proj")
    found = [shapes(f"{name}/weight") for name in names]
    query, value, out = found
    if query is None or value is None or out is None:
        return {}
    heads = module.num_heads * query[1][0] // query[0][0]
    return {
        "num_heads": heads,
        "query_size": query[1][1],
        "value_size": value[1][1],
        "output_size": out[1][0],
    }


_TABLES: dict[str, dict[str, Callable[[Any, Shapes], dict[str, Any]]]] = {
    "flax.nnx": {
        "Linear": _flax_linear,
        "LinearGeneral": _flax_linear_general,
        "Conv": _flax_conv,
        "ConvTranspose": _flax_conv_transpose,
        "BatchNorm": _flax_norm,
        "LayerNorm": _flax_norm,
        "RMSNorm": _flax_norm,
        "InstanceNorm": _flax_norm,
        "GroupNorm": _flax_norm,
        "Embed": _flax_embed,
        "Einsum": _flax_einsum,
        "MultiHeadAttention": _flax_attention,
    },
    "equinox": {
        "Linear": _equinox_linear,
        "Conv": _equinox_conv,
        "ConvTranspose": _equinox_conv,
        "BatchNorm": _equinox_norm,
        "LayerNorm": _equinox_norm,
        "RMSNorm": _equinox_norm,
        "GroupNorm": _equinox_norm,
        "Embedding": _equinox_embedding,
        "MultiheadAttention": _equinox_attention,
    },
}
