"""New values of the size attributes of Equinox layers (equinox 0.13)."""

from collections.abc import Mapping
from typing import Any

from swd_jax._shrinking.frameworks.shapes_before_and_after import (
    Rule,
    Shapes,
    first_shapes,
)


def _linear(module: Any, shapes: Shapes) -> dict[str, Any]:
    weight = shapes("weight")
    if weight is None:
        return {}
    sizes = dict(zip(("out_features", "in_features"), weight[1], strict=True))
    return {
        name: size for name, size in sizes.items() if getattr(module, name) != "scalar"
    }


def _conv(module: Any, shapes: Shapes) -> dict[str, Any]:
    weight = shapes("weight")
    if weight is None:
        return {}
    out, into, *_ = weight[1]
    groups = module.groups * out // weight[0][0] if module.groups > 1 else 1
    return {"out_channels": out, "in_channels": into * groups, "groups": groups}


def _norm(module: Any, shapes: Shapes) -> dict[str, Any]:
    features = first_shapes(shapes, "weight", "bias")
    if features is None:
        return {}
    before, after = features
    sizes: dict[str, Any] = {"shape": after}
    if hasattr(module, "groups"):
        sizes["groups"] = module.groups * after[0] // before[0]
    return {**sizes, "channels": after[0], "input_size": after[0]}


def _embedding(module: Any, shapes: Shapes) -> dict[str, Any]:
    del module
    table = shapes("weight")
    if table is None:
        return {}
    return {"num_embeddings": table[1][0], "embedding_size": table[1][1]}


def _attention(module: Any, shapes: Shapes) -> dict[str, Any]:
    names = ("query_proj", "value_proj", "output_proj")
    query, value, out = (shapes(f"{name}/weight") for name in names)
    if query is None or value is None or out is None:
        return {}
    heads = module.num_heads * query[1][0] // query[0][0]
    return {
        "num_heads": heads,
        "query_size": query[1][1],
        "value_size": value[1][1],
        "output_size": out[1][0],
    }


RULES: Mapping[str, Rule] = {
    "Linear": _linear,
    "Conv": _conv,
    "ConvTranspose": _conv,
    "BatchNorm": _norm,
    "LayerNorm": _norm,
    "RMSNorm": _norm,
    "GroupNorm": _norm,
    "Embedding": _embedding,
    "MultiheadAttention": _attention,
}
"""By the name of the class."""
