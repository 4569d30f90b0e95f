"""Random scores: a control for the other criteria."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arguments import validation
from swd_jax._arrays.manual_sharding import Shards
from swd_jax.criteria._criterion import Criterion, LibraryCriterion


def random_scores(seed: int) -> Criterion:
    """Random numbers that do not depend on the weights.

    A control that any other criterion must beat. A weight's score follows from its
    position and the seed, and is the same at every step.

    Args:
      seed: a whole number. Seeds in [0, 2**32) give different scores.

    Returns:
      A criterion for `Target(criterion=...)`. Criteria of the same seed are equal.

    Raises:
      ValueError: if the seed is not a whole number.

    Examples:
      >>> import jax.numpy as jnp, swd_jax
      >>> target = swd_jax.Target(0.5, criterion=swd_jax.criteria.random_scores(seed=0))
      >>> pruned = swd_jax.prune({"kernel": jnp.ones((8, 8))}, target)
      >>> print(pruned["kernel"].sum())
      32.0
    """
    validation.check_seed(seed)
    leaf_seeds = _LeafSeeds(int(seed))
    return LibraryCriterion(
        f"random_scores({int(seed)})",
        _uniform,
        statistics=leaf_seeds,
        sharded_statistics=leaf_seeds,
    )


@dataclasses.dataclass(frozen=True)
class _LeafSeeds:
    """A seed for each leaf, and on each device for its shard of the leaf."""

    seed: int

    def __call__(
        self, leaves: Sequence[jax.Array], shards: Shards | None = None
    ) -> list[jax.Array]:
        low, high = np.uint32(self.seed % 2**32), np.uint32((self.seed >> 32) % 2**32)
        # Mixed before the index is added: with a sum or a product of the two, leaf 1 of
        # one seed would be leaf 0 of another.
        seed = _mix(_mix(np.array([low])) ^ high)
        leaf_seeds = _mix(seed + np.arange(len(leaves), dtype=np.uint32))
        if shards is None:
            return [jnp.asarray(leaf_seed) for leaf_seed in leaf_seeds]
        return [
            _mix(leaf_seed + shards.shard_index(i))
            for i, leaf_seed in enumerate(leaf_seeds)
        ]


def _uniform(weights: jax.Array, leaf_seed: jax.Array) -> jax.Array:
    """Hash each position to [0, 1), in steps of 2**-24."""
    position = jnp.zeros(weights.shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(weights.ndim)):
        index = jax.lax.broadcasted_iota(jnp.uint32, weights.shape, axis)
        position = position + index * np.uint32(stride % 2**32)
        stride *= weights.shape[axis]
    bits = _mix(_mix(position) ^ leaf_seed)
    uniform = (bits >> 8).astype(weights.dtype) * 2.0**-24
    return jnp.where(jnp.isfinite(weights), uniform, jnp.inf)


def _mix(bits: Any) -> Any:
    """Map uint32 one to one, so that each output bit depends on all input bits.

    Works on arrays of NumPy and of JAX. Source of the constants: Wellons, "Prospecting
    for hash functions" (lowbias32).
    """
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits = (bits ^ (bits >> shift)) * np.uint32(factor)
    return bits ^ (bits >> 16)
