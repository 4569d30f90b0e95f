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
    """Return the L2 norm of the finite weights of each leaf: shape (leaves,).

    Args:
      leaves: floating-point arrays.
      dtype: of the norms, at least that of the leaves. A square that overflows makes
        its norm infinite.
      shards: how the leaves are sharded manually, if they are.
    """
    sums = [
        jnp.sum(jnp.square(jnp.where(jnp.isfinite(leaf), leaf, 0))).astype(dtype)
        for leaf in leaves
    ]
    if shards is not None:
        masked = [shards.mask_replicas(i, total) for i, total in enumerate(sums)]
        return jnp.sqrt(shards.psum(jnp.stack(masked)))
    return jnp.sqrt(jnp.stack(sums))
