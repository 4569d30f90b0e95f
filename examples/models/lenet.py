"""The two LeNets of the pruning literature (LeCun et al. 1998, section II)."""

import jax
from flax import nnx

from models.layers import convolution, largest_of_four, require_choice, require_positive


class LeNet300(nnx.Module):
    """LeNet-300-100, a multilayer perceptron: (images, ...) to (images, classes).

    `pixels` is the number of values of one image, which may have any shape.
    """

    def __init__(
        self,
        *,
        pixels: int = 28 * 28,
        classes: int = 10,
        hidden: tuple[int, int] = (300, 100),
        rngs: nnx.Rngs,
    ) -> None:
        first, second = hidden
        require_positive(pixels=pixels, classes=classes, hidden=min(hidden))
        self.dense1 = nnx.Linear(pixels, first, rngs=rngs)
        self.dense2 = nnx.Linear(first, second, rngs=rngs)
        self.dense3 = nnx.Linear(second, classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = images.reshape(images.shape[0], -1)
        x = nnx.relu(self.dense1(x))
        x = nnx.relu(self.dense2(x))
        return self.dense3(x)


class LeNet5(nnx.Module):
    """LeNet-5 in its modern form: (images, size, size, channels) to (images, classes).

    Every map of the second convolution sees all maps of the first, the activation
    function is ReLU, pooling takes the maximum, and the last layer is linear.
    The paper enlarges 28x28 images to 32x32, which is what "SAME" padding of the first
    convolution amounts to; "VALID" is for images that are 32x32 already.
    """

    def __init__(
        self,
        *,
        size: int = 28,
        channels: int = 1,
        classes: int = 10,
        padding: str = "SAME",
        rngs: nnx.Rngs,
    ) -> None:
        require_positive(channels=channels, classes=classes)
        require_choice("padding", padding, ("SAME", "VALID"))
        smallest = 12 if padding == "SAME" else 16
        if size < smallest:
            raise ValueError(
                f"size must be at least {smallest} with {padding} padding, not {size}."
            )
        after_first = (size if padding == "SAME" else size - 4) // 2
        after_second = (after_first - 4) // 2
        self.conv1 = convolution(channels, 6, 5, padding=padding, bias=True, rngs=rngs)
        self.conv2 = convolution(6, 16, 5, padding="VALID", bias=True, rngs=rngs)
        self.dense1 = nnx.Linear(16 * after_second**2, 120, rngs=rngs)
        self.dense2 = nnx.Linear(120, 84, rngs=rngs)
        self.dense3 = nnx.Linear(84, classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = largest_of_four(nnx.relu(self.conv1(images)))
        x = largest_of_four(nnx.relu(self.conv2(x)))
        x = x.reshape(x.shape[0], -1)
        x = nnx.relu(self.dense1(x))
        x = nnx.relu(self.dense2(x))
        return self.dense3(x)
