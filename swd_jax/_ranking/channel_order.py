"""The order in which channels are removed: singly, or in bundles of a channel group."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._ranking.channel_layout import ChannelLayout


def rank_by(keys: Sequence[jax.Array | np.ndarray]) -> jax.Array:
    """Return each channel's rank in the order of some keys, the first of equals first.

    Args:
      keys: arrays of shape (channels,), the most significant one first.

    Returns:
      int32, shape (channels,).
    """
    numbers = jnp.arange(len(keys[0]), dtype=jnp.int32)
    order = jax.lax.sort(
        [*map(jnp.asarray, keys), numbers], num_keys=len(keys), is_stable=True
    )[-1]
    return jnp.zeros_like(numbers).at[order].set(numbers)


def rank_in_group(layout: ChannelLayout, keys: jax.Array) -> jax.Array:
    """Return each channel's rank within its channel group: int32, shape (channels,)."""
    return rank_by([layout.group_of_channel, keys]) - layout.first_channels


def bundle_end(layout: ChannelLayout, ranks_in_group: jax.Array) -> jax.Array:
    """Return the rank in its group of the last channel of each channel's bundle."""
    if not layout.has_bundles:
        return ranks_in_group
    bundle_sizes = layout.repeat_per_channel(layout.bundle_sizes)
    # The first bundle brings the length of an axis down to a multiple.
    remainder = layout.group_sizes % bundle_sizes
    bundle = (ranks_in_group - remainder) // bundle_sizes
    end = remainder + (bundle + 1) * bundle_sizes - 1
    return jnp.where(ranks_in_group < remainder, remainder - 1, end)


def value_of_bundle_end(
    layout: ChannelLayout, keys: jax.Array, values: jax.Array
) -> jax.Array:
    """Return for each channel the value of the last channel of its bundle.

    Args:
      layout: the channels.
      keys: the keys that order the channels of a channel group, shape (channels,).
      values: one value for each channel, shape (channels,).
    """
    if not layout.has_bundles:
        return values
    ranks, first = rank_in_group(layout, keys), layout.first_channels
    in_order = jnp.zeros_like(values).at[first + ranks].set(values)
    return in_order[first + bundle_end(layout, ranks)]
