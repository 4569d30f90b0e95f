"""New values of the size attributes of Equinox layers (equinox 0.13)."""

from collections.abc import Mapping
from typing import Any

from swd_jax._shrinking.frameworks.shapes_before_and_after import (
    Rule,
    Shapes,
    first_new_shape,
    new_shape,
)


def _linear(module: Any, shapes: Shapes) -> dict[str, Any]:
    names = ("out_features", "in_features")
    before = [getattr(module, name) for name in names]
    weight = new_shape(
        shapes, "weight", tuple(1 if size == "scalar" else size for size in before)
    )
    if weight is None:
        return {}
    sizes = zip(names, before, weight, strict=True)
    return {name: after for name, size, after in sizes if size != "scalar"}


def _conv(module: Any, shapes: Shapes) -> dict[str, Any]:
    groups = module.groups
    out, into = module.out_channels, module.in_channels // groups
    weight = new_shape(shapes, "weight", (out, into, *module.kernel_size))
    if weight is None:
        return {}
    groups = groups * weight[0] // out if groups > 1 else 1
    return {
        "out_channels": weight[0],
        "in_channels": weight[1] * groups,
        "groups": groups,
    }


def _layer_norm(module: Any, shapes: Shapes) -> dict[str, Any]:
    shape = first_new_shape(shapes, "weight", "bias", before=module.shape)
    return {} if shape is None else {"shape": shape}


def _channel_norm(module: Any, shapes: Shapes) -> dict[str, Any]:
    name = "channels" if hasattr(module, "channels") else "input_size"
    before = getattr(module, name)
    after = first_new_shape(shapes, "weight", "bias", before=(before,))
    if after is None:
        return {}
    sizes: dict[str, Any] = {name: after[0]}
    if hasattr(module, "groups"):
        sizes["groups"] = module.groups * after[0] // before
    return sizes


def _embedding(module: Any, shapes: Shapes) -> dict[str, Any]:
    names = ("num_embeddings", "embedding_size")
    before = tuple(getattr(module, name) for name in names)
    table = new_shape(shapes, "weight", before)
    return {} if table is None else dict(zip(names, table, strict=True))


def _attention(module: Any, shapes: Shapes) -> dict[str, Any]:
    heads = module.num_heads
    query = new_shape(
        shapes, "query_proj/weight", (heads * module.qk_size, module.query_size)
    )
    key = new_shape(
        shapes, "key_proj/weight", (heads * module.qk_size, module.key_size)
    )
    value = new_shape(
        shapes, "value_proj/weight", (heads * module.vo_size, module.value_size)
    )
    out = new_shape(
        shapes, "output_proj/weight", (module.output_size, heads * module.vo_size)
    )
    if query is None or key is None or value is None or out is None:
        return {}
    return {
        "num_heads": query[0] // module.qk_size,
        "query_size": query[1],
        "key_size": key[1],
        "value_size": value[1],
        "output_size": out[0],
    }


def _mlp(module: Any, shapes: Shapes) -> dict[str, Any]:
    del shapes  # its layers have their new sizes by now
    widths = {layer.out_features for layer in module.layers[:-1]}
    return {"width_size": widths.pop()} if len(widths) == 1 else {}


def _cell(module: Any, shapes: Shapes) -> dict[str, Any]:
    gates = 3 if type(module).__name__ == "GRUCell" else 4
    rows = gates * module.hidden_size
    into = new_shape(shapes, "weight_ih", (rows, module.input_size))
    hidden = new_shape(shapes, "weight_hh", (rows, module.hidden_size))
    if into is None or hidden is None:
        return {}
    return {"input_size": into[1], "hidden_size": hidden[1]}


RULES: Mapping[str, Rule] = {
    "Linear": _linear,
    "Conv": _conv,
    "ConvTranspose": _conv,
    "BatchNorm": _channel_norm,
    "GroupNorm": _channel_norm,
    "LayerNorm": _layer_norm,
    "RMSNorm": _layer_norm,
    "Embedding": _embedding,
    "MultiheadAttention": _attention,
    "MLP": _mlp,
    "GRUCell": _cell,
    "LSTMCell": _cell,
}
"""By the name of the class."""
