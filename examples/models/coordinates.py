"""A picture as a network: from where a pixel is to its colour.

Sines and cosines of random frequencies come first, without which such a network sees
only the coarse shapes (Tancik et al. 2020, arXiv 2006.10739).
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from models.layers import require_positive


class Fixed(nnx.Variable[jax.Array]):
    """Numbers that are not trained."""


class CoordinateNetwork(nnx.Module):
    """(pixels, 2) positions from -1 to 1, to (pixels, 3) colours.

    The frequencies are the same in every network, whatever its seed: `spread` is their
    standard deviation, in half-turns from the middle of the picture to its edge.
    """

    def __init__(
        self,
        *,
        width: int = 128,
        frequencies: int = 64,
        spread: float = 4.0,
        rngs: nnx.Rngs,
    ) -> None:
        require_positive(width=width, frequencies=frequencies)
        random = np.random.default_rng(0).normal(0, spread, (2, frequencies))
        self.frequencies = Fixed(jnp.asarray(np.pi * random, jnp.float32))
        self.dense1 = nnx.Linear(2 * frequencies, width, rngs=rngs)
        self.dense2 = nnx.Linear(width, width, rngs=rngs)
        self.dense3 = nnx.Linear(width, 3, rngs=rngs)

    def __call__(self, positions: jax.Array) -> jax.Array:
        angles = positions @ self.frequencies[...]
        x = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        x = nnx.relu(self.dense1(x))
        x = nnx.relu(self.dense2(x))
        return self.dense3(x)
