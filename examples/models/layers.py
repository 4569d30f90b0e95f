"""Layers of the convolutional networks, and checks of their arguments."""

import jax
from flax import nnx
from jax.typing import DTypeLike

# He et al. 2015 (arXiv 1502.01852), equation 14: keeps the variance of gradients.
he_normal = nnx.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")


def convolution(
    inputs: int,
    outputs: int,
    size: int,
    *,
    stride: int = 1,
    groups: int = 1,
    padding: int | str | None = None,
    bias: bool = False,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A square kernel. Pads both sides alike, so that stride 1 keeps the image size.

    It computes in `dtype`, by default in that of its input. Weights are float32.
    """
    # "SAME" would pad only one side of an image of even size under stride 2.
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides=stride,
        padding=size // 2 if padding is None else padding,
        feature_group_count=groups,
        use_bias=bias,
        kernel_init=he_normal,
        dtype=dtype,
        rngs=rngs,
    )


class ConvolutionWithNorm(nnx.Module):
    """Convolution and batch norm (arXiv 1502.03167), no activation function."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.conv = convolution(
            inputs,
            outputs,
            size,
            stride=stride,
            groups=groups,
            bias=bias,
            dtype=dtype,
            rngs=rngs,
        )
        # Flax's default of 0.99 would need hundreds of steps to forget its start.
        # Means and variances are float32, whatever the dtype.
        self.norm = nnx.BatchNorm(
            outputs, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(self.conv(x))


def average_over_pixels(x: jax.Array) -> jax.Array:
    """Global average pooling: (images, height, width, maps) to (images, maps)."""
    return x.mean(axis=(1, 2))


def require_positive(**sizes: int) -> None:
    """Raises a ValueError that names the first size below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, not {size}.")


def require_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raises a ValueError that names the choices, if the value is none of them."""
    if value not in choices:
        listed = " or ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be {listed}, not {value!r}.")


def largest_of_four(x: jax.Array) -> jax.Array:
    """Max pooling of 2 x 2, without overlap; an odd last row or column is left out.

    Not `nnx.max_pool`, whose gradient is slow on CPUs.
    """
    images, height, width, maps = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(images, height // 2, 2, width // 2, 2, maps).max((2, 4))
