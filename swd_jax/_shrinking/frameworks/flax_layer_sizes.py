"""New values of the size attributes of Flax NNX layers (flax 0.12)."""

from collections.abc import Mapping
from typing import Any

from swd_jax._shrinking.frameworks.shapes_before_and_after import (
    Rule,
    Shapes,
    first_new_shape,
    new_shape,
)


def _linear(module: Any, shapes: Shapes) -> dict[str, Any]:
    before = (module.in_features, module.out_features)
    kernel = new_shape(shapes, "kernel", before)
    return {"in_features": kernel[0], "out_features": kernel[1]} if kernel else {}


def _linear_general(module: Any, shapes: Shapes) -> dict[str, Any]:
    into = len(module.in_features)
    before = (*module.in_features, *module.out_features)
    kernel = new_shape(shapes, "kernel", before)
    if kernel is None:
        return {}
    return {"in_features": kernel[:into], "out_features": kernel[into:]}


def _conv(module: Any, shapes: Shapes) -> dict[str, Any]:
    kernel = new_shape(shapes, "kernel", tuple(module.kernel_shape))
    if kernel is None:
        return {}
    *_, into, out = kernel
    groups = module.feature_group_count
    groups = 1 if groups == 1 else groups * out // module.out_features
    return {
        "kernel_shape": kernel,
        "in_features": into * groups,
        "out_features": out,
        "feature_group_count": groups,
    }


def _conv_transpose(module: Any, shapes: Shapes) -> dict[str, Any]:
    kernel = new_shape(shapes, "kernel", tuple(module.kernel_shape))
    if kernel is None:
        return {}
    *_, into, out = kernel
    if getattr(module, "transpose_kernel", False):
        into, out = out, into
    return {"kernel_shape": kernel, "in_features": into, "out_features": out}


def _norm(module: Any, shapes: Shapes) -> dict[str, Any]:
    is_grouped = hasattr(module, "group_size")
    before = (
        module.num_groups * module.group_size if is_grouped else module.num_features
    )
    features = first_new_shape(shapes, "scale", "bias", "mean", before=(before,))
    if features is None:
        return {}
    if is_grouped:
        return {"num_groups": features[0] // module.group_size}
    return {"num_features": features[0]}


def _embed(module: Any, shapes: Shapes) -> dict[str, Any]:
    table = new_shape(shapes, "embedding", (module.num_embeddings, module.features))
    return {"num_embeddings": table[0], "features": table[1]} if table else {}


def _einsum(module: Any, shapes: Shapes) -> dict[str, Any]:
    kernel = new_shape(shapes, "kernel", tuple(module.kernel_shape))
    bias = new_shape(shapes, "bias", tuple(getattr(module, "bias_shape", None) or ()))
    sizes = {"kernel_shape": kernel} if kernel else {}
    return {**sizes, "bias_shape": bias} if bias else sizes


def _attention(module: Any, shapes: Shapes) -> dict[str, Any]:
    into, heads, size = module.in_features, module.num_heads, module.head_dim
    key_into = getattr(module, "in_kv_features", into)
    key_heads = getattr(module, "num_kv_heads", None) or heads
    query = new_shape(shapes, "query/kernel", (into, heads, size))
    key = new_shape(shapes, "key/kernel", (key_into, key_heads, size))
    out = new_shape(shapes, "out/kernel", (heads, size, module.out_features))
    if query is None or key is None or out is None:
        return {}
    return {
        "num_heads": query[1],
        "num_kv_heads": key[1],
        "head_dim": query[2],
        "in_features": query[0],
        "qkv_features": query[1] * query[2],
        "in_kv_features": key[0],
        "out_features": out[2],
    }


def _cell(module: Any, shapes: Shapes) -> dict[str, Any]:
    into, hidden = module.in_features, module.hidden_features
    # The gates have a layer each in `LSTMCell`, and one together in the others.
    gates = {"OptimizedLSTMCell": 4, "GRUCell": 3}.get(type(module).__name__, 1)
    inputs = first_new_shape(
        shapes, "ii/kernel", "dense_i/kernel", before=(into, gates * hidden)
    )
    state = first_new_shape(
        shapes, "hi/kernel", "dense_h/kernel", before=(hidden, gates * hidden)
    )
    if inputs is None or state is None:
        return {}
    return {"in_features": inputs[0], "hidden_features": state[0]}


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
    "LSTMCell": _cell,
    "OptimizedLSTMCell": _cell,
    "GRUCell": _cell,
    "SimpleCell": _cell,
}
"""By the name of the class."""
