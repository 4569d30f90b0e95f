"""The order in which channels go: one by one, or so many of a group together."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._ranking.channel_layout import Layout


def places(keys: Sequence[jax.Array | np.ndarray]) -> jax.Array:
    """Where each channel comes in the order of some keys, the first of equals first."""
    numbers = jnp.arange(len(keys[0]), dtype=jnp.int32)
    order = jax.lax.sort(
        [*map(jnp.asarray, keys), numbers], num_keys=len(keys), is_stable=True
    )[-1]
    return jnp.zeros_like(numbers).at[order].set(numbers)


def places_in_groups(layout: Layout, keys: jax.Array) -> jax.Array:
    """Where each channel comes among those of its group: int32, shape (channels,)."""
    return places([layout.group_of, keys]) - layout.first


def last_places(layout: Layout, places_in_groups: jax.Array) -> jax.Array:
    """The place in its group of the last channel that goes with each."""
    if not layout.in_multiples:
        return places_in_groups
    together = layout.of_channels(layout.together)
    # What makes the length of an axis no multiple goes before all others.
    rest = layout.sizes % together
    multiples = (places_in_groups - rest) // together
    last = rest + (multiples + 1) * together - 1
    return jnp.where(places_in_groups < rest, rest - 1, last)


def of_last(layout: Layout, keys: jax.Array, values: jax.Array) -> jax.Array:
    """For each channel the value of the last one that goes with it.

    Args:
      layout: the channels.
      keys: by which those of a group are ordered, shape (channels,).
      values: of the channels, shape (channels,).
    """
    if not layout.in_multiples:
        return values
    place, first = places_in_groups(layout, keys), layout.first
    in_order = jnp.zeros_like(values).at[first + place].set(values)
    return in_order[first + last_places(layout, place)]
