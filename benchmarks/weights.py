"""Weights in the shapes of real models."""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp

Size = Literal["4.3M", "4.1M", "25.6M", "124M", "7B-layer", "1G"]
"""4.3M: ResNet-20 with 64 maps, 65 leaves. 4.1M: 1,000 leaves of 64 x 64. 25.6M:
ResNet-50, 161 leaves. 124M: a GPT, 148 leaves. 7B-layer: one of the 32 layers of a
transformer with 7 billion weights, 9 leaves. 1G: a transformer, 300 leaves."""


def shapes(size: Size) -> list[tuple[int, ...]]:
    """The shapes of a model's leaves."""
    if size == "4.3M":
        widths = [64] * 6 + [128] * 6 + [256] * 6
        convs = [(3, 3, i, o) for i, o in zip([64, *widths], widths, strict=False)]
        convs = [(3, 3, 3, 64), *convs, (1, 1, 64, 128), (1, 1, 128, 256)]
        return with_norms(convs, (256, 10))
    if size == "25.6M":
        convs, inputs = [(7, 7, 3, 64)], 64
        for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
            convs.append((1, 1, inputs, 4 * width))  # the shortcut
            for _ in range(blocks):
                convs += [(1, 1, inputs, width), (3, 3, width, width)]
                convs.append((1, 1, width, 4 * width))
                inputs = 4 * width
        return with_norms(convs, (2048, 1000))
    if size == "4.1M":
        return [(64, 64)] * 1000
    if size == "124M":
        kernels = [(768, 3 * 768), (768, 768), (768, 4 * 768), (4 * 768, 768)]
        block = [*kernels, *((kernel[1],) for kernel in kernels), *[(768,)] * 4]
        return [(50_257, 768), (1024, 768), *block * 12, (768,), (768,)]
    if size == "7B-layer":
        attention, mlp = [(4096, 4096)] * 4, [(4096, 11_008)] * 2
        return [*attention, *mlp, (11_008, 4096), (4096,), (4096,)]
    width, words = 1408, 40_960
    block = [(width, width)] * 4 + [(width, 4 * width), (4 * width, width)]
    block += [(width,)] * 2
    return [(words, width), (2048, width), *block * 37, (width,), (width, words)]


def with_norms(
    convs: list[tuple[int, ...]], dense: tuple[int, int]
) -> list[tuple[int, ...]]:
    norms = [(conv[-1],) for conv in convs for _ in ("scale", "bias")]
    return [*convs, *norms, dense, (dense[1],)]


def random_leaves(key: jax.Array, size: Size, dtype: Any) -> list[jax.Array]:
    """Weights with the scale of He's initialisation, leaf by leaf."""
    return [
        jax.random.normal(key, shape, dtype)
        / jnp.sqrt(jnp.asarray(max(math.prod(shape[:-1]), 1), dtype))
        for key, shape in zip(
            jax.random.split(key, len(shapes(size))), shapes(size), strict=True
        )
    ]
