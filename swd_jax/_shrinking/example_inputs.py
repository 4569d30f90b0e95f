"""Example inputs for a model, made from arrays or their shapes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import tree_paths


def example_like(leaf: Any) -> Any:
    """An array of the same shape and dtype.

    Floating-point arrays are drawn from a standard normal distribution. Other arrays
    are the leaf itself, or zeros for a shape.
    """
    if not tree_paths.is_array(leaf):
        return leaf
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        numbers = np.random.default_rng(0).standard_normal(leaf.shape)
        return jnp.asarray(numbers, leaf.dtype)
    return leaf if isinstance(leaf, jax.Array) else jnp.zeros(leaf.shape, leaf.dtype)
