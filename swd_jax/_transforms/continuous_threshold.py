"""Pruning of latent weights by a threshold at which no weight jumps."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from swd_jax._arrays import float_norms, sort_keys, xla_cpu
from swd_jax._transforms.latent_weights import Latent
from swd_jax._transforms.threshold_state import TargetSelection

# Up to this rescaling, the sum of squares that is left is at least a sixteenth of that
# before: their difference, which saves a pass, has 4 bits less than a float has.
_MAX_CANCELLED = 4.0


class PrunedLatents(NamedTuple):
    """What the network computes with, and how far it moves."""

    weights: list[jax.Array]
    update_norms: jax.Array
    """The L2 norms of the optimizer's updates. shape=(leaves,)"""
    kept_norms: jax.Array
    """The L2 norms of the latent weights that are kept. shape=(leaves,)"""

    def relative_updates(self) -> jax.Array:
        """Return the update of each leaf over its weights: shape (leaves,)."""
        return ratio(self.update_norms, self.kept_norms, otherwise=0.0)

    def total_squares(self) -> jax.Array:
        """Return the sums of squares of all updates and of all kept weights."""
        norms = jnp.stack([self.update_norms, self.kept_norms])
        return jnp.sum(jnp.square(norms), axis=1).astype(jnp.float32)


def prune(
    selected: TargetSelection,
    latents: Sequence[Latent],
    power: float,
    max_rescale: float,
) -> PrunedLatents:
    """Prune a target's leaves by a continuous threshold and restore their norms."""
    ranking, masks = selected.ranking, selected.masks
    shares = ranking.kept_shares(masks, selected.leaf_thresholds, power)
    pairs = list(zip(masks, ranking.weights, strict=True))
    kept = [jnp.where(mask, jnp.zeros_like(array), array) for mask, array in pairs]
    shrunk = [
        array * factor.astype(array.dtype)
        for array, factor in zip(kept, shares.factors, strict=True)
    ]
    updates = [
        sort_keys.widen(latent.update, latent.weights.dtype) for latent in latents
    ]

    def norms(arrays: Sequence[jax.Array]) -> jax.Array:
        return float_norms.leaf_l2_norms(arrays, ranking.dtype, ranking.shards)

    kept_norms, update_norms = norms(kept), norms(updates)
    if shares.lost_squares is None or max_rescale > _MAX_CANCELLED:
        shrunk_norms = norms(shrunk)
    else:
        squares = jnp.square(kept_norms)
        least = squares / max_rescale**2
        left = jnp.maximum(squares - shares.lost_squares, least)
        shrunk_norms = jnp.sqrt(left)
    rescales = ratio(kept_norms, shrunk_norms, otherwise=1.0)
    rescales = xla_cpu.unstack_unfused(jnp.minimum(rescales, max_rescale))
    weights = [
        array * factor.astype(array.dtype)
        for array, factor in zip(shrunk, rescales, strict=True)
    ]
    return PrunedLatents(weights, update_norms, kept_norms)


def ratio(
    numerator: jax.Array, denominator: jax.Array, *, otherwise: float
) -> jax.Array:
    """Divide, where both numbers are positive and finite."""
    is_usual = (numerator > 0) & (denominator > 0)
    is_usual &= jnp.isfinite(numerator) & jnp.isfinite(denominator)
    quotient = numerator / jnp.where(is_usual, denominator, 1)
    return jnp.where(is_usual, quotient, otherwise)
