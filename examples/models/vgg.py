"""VGG-16 and VGG-19 (Simonyan & Zisserman 2014, arXiv 1409.1556) with batch norm."""

import jax
from flax import nnx

from models.layers import (
    ConvolutionWithNorm,
    average_over_pixels,
    largest_of_four,
    require_choice,
    require_positive,
)

# Convolutions before each of the five poolings (table 1, columns D and E).
CONVOLUTIONS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
# Maps of their outputs, as multiples of the first one's.
GROWTH = (1, 2, 4, 8, 8)


class VGG(nnx.Module):
    """(images, height, width, channels) to (images, classes).

    Args:
        depth: 16 or 19.
        form: "cifar" ends in global average pooling and one linear layer, and its
            convolutions have no biases, which batch norm would cancel. "imagenet" is
            the paper's network for 224x224 pixels, with biases and three linear layers.
        width: Maps of the first convolution; all others have a multiple of it.
        classes: Of images; 10 or 1000, after the form, unless given.
        channels: Of an image.
        rngs: For the initial weights, and for dropout.
    """

    def __init__(
        self,
        depth: int = 16,
        *,
        form: str = "cifar",
        width: int = 64,
        classes: int | None = None,
        channels: int = 3,
        rngs: nnx.Rngs,
    ) -> None:
        require_choice("depth", depth, tuple(CONVOLUTIONS))
        require_choice("form", form, ("cifar", "imagenet"))
        large_images = form == "imagenet"
        if classes is None:
            classes = 1000 if large_images else 10
        require_positive(width=width, classes=classes, channels=channels)
        self.stages = nnx.List()
        inputs = channels
        for count, growth in zip(CONVOLUTIONS[depth], GROWTH, strict=True):
            stage = nnx.List()
            for _ in range(count):
                stage.append(
                    ConvolutionWithNorm(
                        inputs, growth * width, 3, bias=large_images, rngs=rngs
                    )
                )
                inputs = growth * width
            self.stages.append(stage)
        if large_images:
            self.head = ThreeLinearLayers(inputs, 64 * width, classes, rngs=rngs)
        else:
            self.head = OneLinearLayer(inputs, classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = images
        for stage in self.stages:
            for layer in stage:
                x = nnx.relu(layer(x))
            x = largest_of_four(x)
        return self.head(x)


class OneLinearLayer(nnx.Module):
    """Global average pooling and a classifier."""

    def __init__(self, maps: int, classes: int, *, rngs: nnx.Rngs) -> None:
        self.dense = nnx.Linear(maps, classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.dense(average_over_pixels(x))


class ThreeLinearLayers(nnx.Module):
    """The paper's classifier on 7x7 pixels, with dropout of 0.5 between its layers."""

    SIZE = 7  # 224 pixels, halved five times

    def __init__(self, maps: int, hidden: int, classes: int, *, rngs: nnx.Rngs) -> None:
        self.dense1 = nnx.Linear(self.SIZE**2 * maps, hidden, rngs=rngs)
        self.dense2 = nnx.Linear(hidden, hidden, rngs=rngs)
        self.dense3 = nnx.Linear(hidden, classes, rngs=rngs)
        self.dropout1 = nnx.Dropout(0.5, rngs=rngs)
        self.dropout2 = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        if x.shape[1:3] != (self.SIZE, self.SIZE):
            raise ValueError(
                "The imagenet form takes 224x224 images: 7x7 pixels after five "
                f"poolings, not {x.shape[1]}x{x.shape[2]}."
            )
        x = x.reshape(x.shape[0], -1)
        x = self.dropout1(nnx.relu(self.dense1(x)))
        x = self.dropout2(nnx.relu(self.dense2(x)))
        return self.dense3(x)
