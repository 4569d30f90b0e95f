"""New values of the size attributes of Flax NNX layers (flax 0.12)."""

from collections.abc import Mapping
from typing import Any

from swd_jax._shrinking.frameworks.shapes_before_and_after import (
    Rule,
    Shapes,
    first_shapes,
)


def _linear(module: Any, shapes: Shapes) -> dict[str, Any]:
    del module
    kernel = shapes("kernel")
    return {"in_features": kernel[1][0], "out_features": kernel[1][1]} if kernel else {}


def _linear_general(module: Any, shapes: Shapes) -> dict[str, Any]:
    kernel = shapes("kernel")
    if kernel is None:
        return {}
    into, out = len(module.in_features), len(module.out_features)
    sizes = kernel[1][len(kernel[1]) - into - out :]
    return {"in_features": sizes[:into], "out_features": sizes[into:]}


def _conv(module: Any, shapes: Shapes) -> dict[str, Any]:
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


def _conv_transpose(module: Any, shapes: Shapes) -> dict[str, Any]:
    kernel = shapes("kernel")
    if kernel is None:
        return {}
    *_, into, out = kernel[1]
    if getattr(module, "transpose_kernel", False):
        into, out = out, into
    return {"kernel_shape": kernel[1], "in_features": into, "out_features": out}


def _norm(module: Any, shapes: Shapes) -> dict[str, Any]:
    features = first_shapes(shapes, "scale", "bias", "mean")
    if features is None:
        return {}
    before, after = features
    sizes: dict[str, Any] = {"num_features": after[-1]}
    if hasattr(module, "num_groups"):
        sizes["num_groups"] = module.num_groups * after[-1] // before[-1]
    return sizes


def _embed(module: Any, shapes: Shapes) -> dict[str, Any]:
    del module
    table = shapes("embedding")
    if table is None:
        return {}
    return {"num_embeddings": table[1][0], "features": table[1][1]}


def _einsum(module: Any, shapes: Shapes) -> dict[str, Any]:
    del module
    kernel, bias = shapes("kernel"), shapes("bias")
    sizes = {"kernel_shape": kernel[1]} if kernel else {}
    return {**sizes, "bias_shape": bias[1]} if bias else sizes


def _attention(module: Any, shapes: Shapes) -> dict[str, Any]:
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


RULES: Mapping[str, Rule] = {
    "Linear": _linear,
    "LinearGeneral": _linear_general,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "BatchNorm": _norm,
    "LayerNorm": _norm,
    "RMSNorm": _norm,
    "InstanceNorm": _norm,
    "GroupNorm": _norm,
    "Embed": _embed,
    "Einsum": _einsum,
    "MultiHeadAttention": _attention,
}
"""By the name of the class."""
