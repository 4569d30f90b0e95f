"""The thin dense control: fewer maps instead of pruned weights (arXiv 2309.12854)."""

import math
from collections.abc import Callable

import jax
from flax import nnx


def parameter_count(model: nnx.Module) -> int:
    """Count the trained numbers: weights, biases, scales and biases of batch norm."""
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    return sum(math.prod(leaf.shape) for leaf in leaves)


def width_for(parameters: int, make: Callable[[int], nnx.Module]) -> int:
    """The largest width with which a model has at most so many parameters.

    `make(width)` makes the model, with more parameters the wider it is. Only shapes are
    computed, no arrays.

        width_for(9_000, lambda maps: cifar_resnet(20, width=maps, rngs=nnx.Rngs(0)))

    Raises:
        ValueError: A width of 1 is too much already, or the width changes nothing.
    """

    def count(width: int) -> int:
        return parameter_count(nnx.eval_shape(lambda: make(width)))

    smallest = count(1)
    if smallest > parameters:
        raise ValueError(
            f"No width has at most {parameters:,} parameters: 1 has {smallest:,}."
        )
    fits, too_wide, previous = 1, 2, smallest
    while (current := count(too_wide)) <= parameters:
        if current <= previous:
            raise ValueError(
                f"Widths {fits} and {too_wide} both have {current:,} parameters: "
                "make(width) must use its width."
            )
        fits, too_wide, previous = too_wide, 2 * too_wide, current
    while too_wide - fits > 1:
        middle = (fits + too_wide) // 2
        if count(middle) <= parameters:
            fits = middle
        else:
            too_wide = middle
    return fits
