"""Sizes that the layers of Flax NNX and Equinox keep beside their arrays."""

from collections.abc import Callable
from typing import Any, TypeAlias

Shape: TypeAlias = tuple[int, ...]
BeforeAndAfter: TypeAlias = tuple[Shape, Shape]
"""Of an array that is cut."""
Shapes: TypeAlias = Callable[[str], BeforeAndAfter | None]
"""The shapes of a layer's array, by its name in the layer."""


def sizes(module: Any, shapes: Shapes) -> dict[str, Any]:
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


def _first(shapes: Shapes, *names: str) -> BeforeAndAfter | None:
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
