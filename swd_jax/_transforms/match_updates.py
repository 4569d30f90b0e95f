"""Updates matched to the parameters that they belong to."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from swd_jax._allocation.prunable_leaves import PrunableLeaf
from swd_jax._arrays import tree_paths


class MatchedUpdates(NamedTuple):
    """Updates, and the position among them of each parameter's update."""

    tree: tree_paths.FlatTree
    position_of_param: dict[int, int]

    def at(self, leaf: PrunableLeaf) -> jax.Array:
        """Return the update of a leaf of the parameters."""
        return jnp.asarray(self.tree.leaves[self.position_of_param[leaf.position]])

    def replaced(
        self, leaves: Sequence[PrunableLeaf], new_updates: Sequence[jax.Array]
    ) -> optax.Updates:
        """Return the tree of updates with those of some leaves replaced."""
        pairs = zip(leaves, new_updates, strict=True)
        return self.tree.rebuild(
            {self.position_of_param[leaf.position]: update for leaf, update in pairs}
        )


def match_updates(
    updates: optax.Updates, params: tree_paths.FlatTree
) -> MatchedUpdates:
    """Match the updates to the parameters.

    Raises:
      ValueError: if the updates have another structure.
    """
    tree = tree_paths.flatten(updates)
    positions = tree_paths.match_positions("updates", tree, params)
    return MatchedUpdates(tree, positions)


def check_params(params: Any, who: str) -> None:
    """Raise if a transformation's `update` is called without parameters."""
    if params is None:
        raise ValueError(
            f"params is None, but {who} needs the weights: call "
            "update(updates, state, params)"
        )
