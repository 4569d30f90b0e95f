"""Norms of leaves by floating-point sums: fast, and rounded in the order of the terms.

`exact_norms` has norms that are equal to the bit on any number of devices. They are
needed where a norm decides which weights are selected.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from swd_jax._arrays.manual_sharding import Shards


def leaf_l2_norms(
    leaves: Sequence[jax.Array], dtype: DTypeLike, shards: Shards | None = None
) -> jax.Array:
    """Return the L2 norm of each leaf: shape (leaves,).

    A norm is infinite if a square overflows, and NaN or infinite if an element is.

    Args:
      leaves: floating-point arrays, float32 at least.
      dtype: of the norms, at least that of every leaf.
      shards: how the leaves are sharded manually, if they are.
    """
    # Separate sums: those of XLA:CPU are vectorized, its variadic reductions are not.
    sums = [jnp.sum(jnp.square(leaf)).astype(dtype) for leaf in leaves]
    if shards is not None:
        masked = [shards.mask_replicas(i, total) for i, total in enumerate(sums)]
        return jnp.sqrt(shards.psum(jnp.stack(masked)))
    return jnp.sqrt(jnp.stack(sums))
