"""Updates matched to the parameters that they are for."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from swd_jax._allocation.prunable_leaves import PrunableLeaf
from swd_jax._arrays import tree_paths


class Matched(NamedTuple):
    """Updates with their leaves where the parameters have theirs."""

    flat: tree_paths.Flat
    positions: dict[int, int]

    def of(self, leaf: PrunableLeaf) -> jax.Array:
        """The update of a leaf of the parameters."""
        return jnp.asarray(self.flat.leaves[self.positions[leaf.position]])

    def replaced(
        self, leaves: list[PrunableLeaf], changed: list[jax.Array]
    ) -> optax.Updates:
        """The updates with those of some leaves changed."""
        pairs = zip(leaves, changed, strict=True)
        return self.flat.rebuilt(
            {self.positions[leaf.position]: update for leaf, update in pairs}
        )


def match(updates: optax.Updates, params: Any, who: str) -> Matched:
    """Match the updates to the parameters.

    Raises:
      ValueError: if there are no parameters, or the updates have another structure.
    """
    if params is None:
        raise ValueError(
            f"params is None, but {who} needs the weights: call "
            "update(updates, state, params)"
        )
    flat = tree_paths.flatten(updates)
    tree = tree_paths.flatten(params)
    return Matched(flat, tree_paths.matched_positions("updates", flat, tree))
