"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381)."""

import jax
from flax import nnx

from models.layers import (
    ConvolutionWithNorm,
    average_over_pixels,
    require_choice,
    require_positive,
)

# Table 2: expansion, output maps with 32 in the first layer, blocks, first stride.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
LAST_MAPS = 1280


class InvertedResidual(nnx.Module):
    """Expand by a 1x1 convolution, filter every map by itself, project (figure 3)."""

    def __init__(
        self, inputs: int, outputs: int, expansion: int, stride: int, *, rngs: nnx.Rngs
    ) -> None:
        inside = expansion * inputs
        self.expands = expansion > 1
        if self.expands:
            self.expand = ConvolutionWithNorm(inputs, inside, 1, rngs=rngs)
        self.filter = ConvolutionWithNorm(
            inside, inside, 3, stride=stride, groups=inside, rngs=rngs
        )
        self.project = ConvolutionWithNorm(inside, outputs, 1, rngs=rngs)
        self.residual = inputs == outputs and stride == 1

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        if self.expands:
            y = nnx.relu6(self.expand(y))
        y = nnx.relu6(self.filter(y))
        y = self.project(y)  # no activation function: "linear bottleneck"
        return x + y if self.residual else y


class MobileNetV2(nnx.Module):
    """(images, height, width, channels) to (images, classes).

    Args:
        form: "imagenet" divides height and width by 32 in all. "cifar" has stride 1
            in the first layer and in the first stage of table 2 that has stride 2, so
            that 32x32 pixels become 4x4.
        width: Maps of the first layer. All others are scaled along with it, the last
            ones too (the paper leaves those alone in its small networks).
        classes: Of images.
        channels: Of an image.
        dropout: Before the linear layer.
        rngs: For the initial weights, and for dropout.
    """

    def __init__(
        self,
        *,
        form: str = "imagenet",
        width: int = 32,
        classes: int = 1000,
        channels: int = 3,
        dropout: float = 0.2,
        rngs: nnx.Rngs,
    ) -> None:
        require_choice("form", form, ("imagenet", "cifar"))
        require_positive(width=width, classes=classes, channels=channels)

        def scaled(maps: int) -> int:
            return max(1, (maps * width + 16) // 32)  # to the nearest integer

        small_images = form == "cifar"
        self.stem = ConvolutionWithNorm(
            channels, width, 3, stride=1 if small_images else 2, rngs=rngs
        )
        self.blocks = nnx.List()
        inputs = width
        for stage, (expansion, maps, count, first_stride) in enumerate(STAGES):
            keeps_size = small_images and stage == 1
            for index in range(count):
                stride = 1 if index > 0 or keeps_size else first_stride
                self.blocks.append(
                    InvertedResidual(inputs, scaled(maps), expansion, stride, rngs=rngs)
                )
                inputs = scaled(maps)
        self.last = ConvolutionWithNorm(inputs, scaled(LAST_MAPS), 1, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.dense = nnx.Linear(scaled(LAST_MAPS), classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = nnx.relu6(self.stem(images))
        for block in self.blocks:
            x = block(x)
        x = average_over_pixels(nnx.relu6(self.last(x)))
        return self.dense(self.dropout(x))
