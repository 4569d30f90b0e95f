"""The criteria that look at the weights alone, and how a criterion is named."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import leaf_norms, sort_keys, variadic_reduce
from swd_jax._arrays.manual_sharding import Shards
from swd_jax.criteria._criterion import Criterion, Evidence, scores


def _magnitude(weights: jax.Array, statistic: None) -> jax.Array:
    del statistic
    return jnp.abs(weights)


def _scaled_magnitude(weights: jax.Array, scale: jax.Array) -> jax.Array:
    # A product and not a quotient: XLA turns some divisions by one number into
    # products and others not, and then the same weight has two scores.
    return jnp.abs(weights) * scale


def _reciprocal_norms(
    leaves: Sequence[jax.Array], shards: Shards | None = None
) -> list[jax.Array]:
    """1 / ||w|| of each leaf, in the range of normal numbers; 1 for a leaf of zeros."""
    return _reciprocals(leaf_norms.l2_norms(leaves, shards))


def _reciprocal_rms(
    leaves: Sequence[jax.Array], shards: Shards | None = None
) -> list[jax.Array]:
    """1 / RMS(w) of each leaf, in the same way."""
    norms = leaf_norms.l2_norms(leaves, shards)
    sizes = [
        leaf.size * (1 if shards is None else shards.parts(i))
        for i, leaf in enumerate(leaves)
    ]
    roots = np.sqrt(np.maximum(sizes, 1)).astype(norms.dtype)
    return _reciprocals(norms * (1 / roots))


def _reciprocals(norms: jax.Array) -> list[jax.Array]:
    tiny = jnp.finfo(norms.dtype).tiny
    factors = 1 / jnp.where(norms > 0, jnp.clip(norms, tiny, 1 / tiny), 1)
    return variadic_reduce.separate(factors)


def random_scores(seed: int) -> Criterion:
    """Scores that are random numbers and have nothing to do with the weights.

    A control: what any other criterion must do better than. A weight has the same score
    at every step, from its position and the seed.

    Args:
      seed: a whole number; another one gives other scores.

    Returns:
      A criterion for `Target(criterion=...)`.

    Raises:
      ValueError: if the seed is not a whole number.

    Examples:
      >>> import jax.numpy as jnp, swd_jax
      >>> target = swd_jax.Target(0.5, criterion=swd_jax.criteria.random_scores(seed=0))
      >>> pruned = swd_jax.prune({"kernel": jnp.ones((8, 8))}, target)
      >>> print(pruned["kernel"].sum())
      32.0
    """
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool):
        raise ValueError(f"seed must be a whole number, got {seed!r}")

    def score(weights: jax.Array, leaf_seed: jax.Array) -> jax.Array:
        position = jnp.zeros(weights.shape, jnp.uint32)
        stride = 1
        for axis in reversed(range(weights.ndim)):
            index = jax.lax.broadcasted_iota(jnp.uint32, weights.shape, axis)
            position = position + index * np.uint32(stride % 2**32)
            stride *= weights.shape[axis]
        bits = _mixed(_mixed(position) ^ leaf_seed)
        uniform = (bits >> 8).astype(weights.dtype) * 2.0**-24
        return jnp.where(jnp.isfinite(weights), uniform, jnp.inf)

    def seeds(
        leaves: Sequence[jax.Array], shards: Shards | None = None
    ) -> list[jax.Array]:
        parts = [0 if shards is None else shards.part(i) for i in range(len(leaves))]
        return [
            _mixed(
                _mixed(jnp.uint32((int(seed) * 2**16 + i) % 2**32)) + jnp.uint32(part)
            )
            for i, part in enumerate(parts)
        ]

    return Criterion(
        f"random_scores({seed})", score, statistics=seeds, divided_statistics=seeds
    )


def _mixed(bits: jax.Array) -> jax.Array:
    """A bijection of 32-bit integers in which each bit depends on all of them."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits = (bits ^ (bits >> shift)) * np.uint32(factor)
    return bits ^ (bits >> 16)


magnitude = Criterion("magnitude", _magnitude, keeps_precision=True, by_weight=True)
"""The magnitude |w|: the criterion of the paper, and the default.

One threshold over layers whose weights differ in scale takes most from the layer with
the smallest weights, at worst all of it. `summarize` names the leaves that it empties.

Source: algorithm 1 of arXiv 2011.10520.
"""

normalized_magnitude = Criterion(
    "normalized_magnitude",
    _scaled_magnitude,
    statistics=_reciprocal_norms,
    divided_statistics=_reciprocal_norms,
    by_weight=True,
)
"""The magnitude as a share of its leaf's L2 norm: |w| / ||leaf||.

Leaves whose weights are small throughout keep their part under a global target, and a
leaf cannot be emptied because of its scale alone. With `scope="local"` it selects as
`magnitude` does, up to rounding. A weight that is not finite counts in no norm.
"""

rms_normalized_magnitude = Criterion(
    "rms_normalized_magnitude",
    _scaled_magnitude,
    statistics=_reciprocal_rms,
    divided_statistics=_reciprocal_rms,
    by_weight=True,
)
"""The magnitude over the root mean square of its leaf: |w| sqrt(n) / ||leaf||.

Like `normalized_magnitude`, whose shares are smaller in large leaves, because more
weights share the norm: this one takes as large a part of a large leaf as of a small one
with weights of the same distribution.
"""


def scores_with_signs(
    criterion: Criterion,
    weights: jax.Array,
    statistic: Any,
    evidence: Evidence,
    dtype: jnp.dtype,
) -> jax.Array:
    """Scores of which only the absolute values count: of magnitudes, the weights.

    A loop of XLA reads arrays. The weights are there; magnitudes would have to be
    stored for it.
    """
    if criterion is magnitude:
        return sort_keys.widen(weights, dtype)
    return scores(criterion, weights, statistic, evidence, dtype)
