"""Criteria of the weights alone: the magnitude, and its share of the leaf's norm."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import exact_norms, sort_keys, xla_cpu
from swd_jax._arrays.manual_sharding import Shards
from swd_jax.criteria._criterion import (
    Criterion,
    ExtraInputs,
    LibraryCriterion,
    scores,
)


def _magnitude(weights: jax.Array, statistic: None) -> jax.Array:
    del statistic
    return jnp.abs(weights)


def _scaled_magnitude(weights: jax.Array, scale: jax.Array) -> jax.Array:
    # A product, because XLA rewrites some divisions by a scalar as products and others
    # not, so that a quotient would give one weight two scores.
    return jnp.abs(weights) * scale


def _reciprocal_norms(
    leaves: Sequence[jax.Array], shards: Shards | None = None
) -> list[jax.Array]:
    """Compute 1 / ||w|| of each leaf, clipped to normal floats; 1 for zero leaves."""
    return _reciprocals(exact_norms.leaf_l2_norms(leaves, shards))


def _reciprocal_rms(
    leaves: Sequence[jax.Array], shards: Shards | None = None
) -> list[jax.Array]:
    """Compute 1 / RMS(w) of each leaf, clipped in the same way."""
    norms = exact_norms.leaf_l2_norms(leaves, shards)
    sizes = [
        leaf.size * (1 if shards is None else shards.num_shards(i))
        for i, leaf in enumerate(leaves)
    ]
    roots = np.sqrt(np.maximum(sizes, 1)).astype(norms.dtype)
    return _reciprocals(norms * (1 / roots))


def _reciprocals(norms: jax.Array) -> list[jax.Array]:
    tiny = jnp.finfo(norms.dtype).tiny
    factors = 1 / jnp.where(norms > 0, jnp.clip(norms, tiny, 1 / tiny), 1)
    return xla_cpu.unstack_unfused(factors)


magnitude: Criterion = LibraryCriterion(
    "magnitude", _magnitude, preserves_mantissa_bits=True, elementwise=True
)
"""The magnitude |w|: the criterion of the paper, and the default.

One threshold over layers whose weights differ in scale takes most from the layer with
the smallest weights, at worst all of it. `summarize` names the leaves that it empties.

Source: algorithm 1 of arXiv 2011.10520.
"""

normalized_magnitude: Criterion = LibraryCriterion(
    "normalized_magnitude",
    _scaled_magnitude,
    statistics=_reciprocal_norms,
    sharded_statistics=_reciprocal_norms,
    elementwise=True,
)
"""The magnitude as a share of its leaf's L2 norm: |w| / ||leaf||.

Leaves whose weights are small throughout keep their part under a global target, and a
leaf cannot be emptied because of its scale alone. With `scope="local"` it selects as
`magnitude` does, up to rounding. Weights that are not finite count in no norm.
"""

rms_normalized_magnitude: Criterion = LibraryCriterion(
    "rms_normalized_magnitude",
    _scaled_magnitude,
    statistics=_reciprocal_rms,
    sharded_statistics=_reciprocal_rms,
    elementwise=True,
)
"""The magnitude over the root mean square of its leaf: |w| sqrt(n) / ||leaf||.

Under `normalized_magnitude` the shares are smaller in large leaves, because more
weights share the norm. This criterion takes the same fraction of a large leaf as of a
small one whose weights have the same distribution.
"""


def scores_with_signs(
    criterion: Criterion,
    weights: jax.Array,
    statistic: Any,
    inputs: ExtraInputs,
    dtype: jnp.dtype,
) -> jax.Array:
    """Score one leaf for a norm, which ignores signs: `magnitude` by the weights.

    A norm is a loop of XLA over an array. The weights are such an array already, while
    magnitudes would have to be materialized.
    """
    if criterion is magnitude:
        return sort_keys.widen(weights, dtype)
    return scores(criterion, weights, statistic, inputs, dtype)
