"""Residual networks (He et al. 2015, arXiv 1512.03385), for CIFAR and ImageNet."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from models.layers import (
    ConvolutionWithNorm,
    average_over_pixels,
    require_choice,
    require_positive,
)

SHORTCUTS = ("projection", "padding")


class PaddingShortcut(nnx.Module):
    """Every stride-th pixel, and maps of zeros behind the others: no parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        self.added_maps = outputs - inputs
        self.stride = stride

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.added_maps)))


def make_shortcut(
    inputs: int,
    outputs: int,
    stride: int,
    kind: str,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Shortcut of a block: options A ("padding") and B of section 4.1."""
    same_shape = inputs == outputs and stride == 1
    if kind == "padding" or same_shape:  # nothing to pad: the identity
        return PaddingShortcut(inputs, outputs, stride)
    return ConvolutionWithNorm(
        inputs, outputs, 1, stride=stride, dtype=dtype, rngs=rngs
    )


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions (figure 5, left)."""

    expansion = 1  # output maps for each map inside

    def __init__(
        self,
        inputs: int,
        maps: int,
        stride: int,
        shortcut: str,
        *,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        common = {"dtype": dtype, "rngs": rngs}
        self.first = ConvolutionWithNorm(inputs, maps, 3, stride=stride, **common)
        self.second = ConvolutionWithNorm(maps, maps, 3, **common)
        self.shortcut = make_shortcut(inputs, maps, stride, shortcut, **common)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.second(nnx.relu(self.first(x)))
        return nnx.relu(y + self.shortcut(x))


class BottleneckBlock(nnx.Module):
    """1x1, 3x3 and 1x1 convolutions (figure 5, right), in the form called v1.5.

    The paper puts the stride on the first convolution; here the 3x3 one has it, which
    then looks at all pixels.
    """

    expansion = 4

    def __init__(
        self,
        inputs: int,
        maps: int,
        stride: int,
        shortcut: str,
        *,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        outputs = self.expansion * maps
        common = {"dtype": dtype, "rngs": rngs}
        self.first = ConvolutionWithNorm(inputs, maps, 1, **common)
        self.second = ConvolutionWithNorm(maps, maps, 3, stride=stride, **common)
        self.third = ConvolutionWithNorm(maps, outputs, 1, **common)
        self.shortcut = make_shortcut(inputs, outputs, stride, shortcut, **common)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.first(x))
        y = self.third(nnx.relu(self.second(y)))
        return nnx.relu(y + self.shortcut(x))


class ResNet(nnx.Module):
    """(images, height, width, channels) to (images, classes).

    Use `cifar_resnet` and `imagenet_resnet` to make one. `blocks` is the number of
    blocks in each stage; every stage but the first halves height and width and doubles
    the number of maps. It computes in `dtype`, by default in that of the images; its
    weights are float32, its output at least that.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[BottleneckBlock],
        blocks: tuple[int, ...],
        *,
        large_images: bool,
        width: int,
        classes: int,
        channels: int,
        shortcut: str,
        stem_stride: int = 1,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        require_positive(
            width=width, classes=classes, channels=channels, stem_stride=stem_stride
        )
        require_choice("shortcut", shortcut, SHORTCUTS)
        self.large_images = large_images
        common = {"dtype": dtype, "rngs": rngs}
        if large_images:
            self.stem = ConvolutionWithNorm(channels, width, 7, stride=2, **common)
        else:
            self.stem = ConvolutionWithNorm(
                channels, width, 3, stride=stem_stride, **common
            )
        self.blocks = nnx.List()
        inputs = width
        for stage, count in enumerate(blocks):
            maps = width * 2**stage
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                self.blocks.append(block(inputs, maps, stride, shortcut, **common))
                inputs = maps * block.expansion
        self.dense = nnx.Linear(inputs, classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = nnx.relu(self.stem(images))
        if self.large_images:
            both_sides = ((1, 1), (1, 1))
            x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=both_sides)
        for block in self.blocks:
            x = block(x)
        # At least float32 from here on: it costs little, and the loss needs it.
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return self.dense(average_over_pixels(x))


def cifar_resnet(
    depth: int,
    *,
    width: int = 16,
    shortcut: str = "projection",
    classes: int = 10,
    channels: int = 3,
    stem_stride: int = 1,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> ResNet:
    """The networks of section 4.2, for images of about 32x32 pixels.

    Args:
        depth: 20, 32, 56 or any other 6 n + 2.
        width: Maps of the first stage; the paper has 16, and "padding" shortcuts.
        shortcut: Where the shape changes: "projection", a 1x1 convolution with batch
            norm, or "padding" with zeros, which has no parameters.
        classes: Of images.
        channels: Of an image.
        stem_stride: Of the first convolution: 2 halves the height and width of all maps
            of the paper's network, for a quarter of its computation.
        dtype: To compute in, by default that of the images.
        rngs: For the initial weights.
    """
    count, rest = divmod(depth - 2, 6)
    if rest or count < 1:
        raise ValueError(f"depth must be 6 n + 2 (8, 14, 20, ...), not {depth}.")
    return ResNet(
        BasicBlock,
        (count, count, count),
        large_images=False,
        width=width,
        classes=classes,
        channels=channels,
        shortcut=shortcut,
        stem_stride=stem_stride,
        dtype=dtype,
        rngs=rngs,
    )


def imagenet_resnet(
    depth: int,
    *,
    width: int = 64,
    classes: int = 1000,
    channels: int = 3,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> ResNet:
    """ResNet-18 or ResNet-50 (table 1), for images of about 224x224 pixels."""
    require_choice("depth", depth, (18, 50))
    return ResNet(
        BasicBlock if depth == 18 else BottleneckBlock,
        (2, 2, 2, 2) if depth == 18 else (3, 4, 6, 3),
        large_images=True,
        width=width,
        classes=classes,
        channels=channels,
        shortcut="projection",
        dtype=dtype,
        rngs=rngs,
    )
