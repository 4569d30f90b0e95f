"""Checks that a state was made for the targets and the parameters that it meets."""

from collections.abc import Sequence
from typing import Any

import jax

from swd_jax._allocation.prunable_leaves import PrunableLeaf
from swd_jax._arguments.short_text import type_of
from swd_jax._arrays import tree_paths

_WAY_OUT = (
    "It was made for another target, or for other parameters: call init again, with "
    "these parameters, or give the target that it was made with"
)


def check_fields(
    who: str, state: Any, fields: Sequence[str], *, may_have_more: bool = False
) -> None:
    """Raise if a state is not of the transformation that is updated.

    Args:
      who: the transformation, for the error.
      state: that of a user.
      fields: those that the transformation reads.
      may_have_more: whether the state may have other fields too.

    Raises:
      ValueError: naming the type of the state.
    """
    has_all = all(hasattr(state, name) for name in fields)
    own = getattr(state, "_fields", fields)
    if not has_all or (set(own) - set(fields) and not may_have_more):
        raise ValueError(
            f"state is {type_of(state)}, and {who} needs the state that its own init "
            "returns. Call init again; or, for a transformation in a chain, call the "
            "update of the chain"
        )


def check_thresholds(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raise if a state has thresholds for other pools than the targets have.

    Raises:
      ValueError: with both numbers.
    """
    if shape != expected:
        raise ValueError(
            f"state has thresholds of shape {shape}, and the target has {expected} for "
            f"these parameters. {_WAY_OUT}"
        )


def arrays_of_leaves(
    name: str, contents: str, tree: Any, leaves: Sequence[PrunableLeaf]
) -> list[jax.Array]:
    """Return the arrays that a tree in a state has for the prunable leaves.

    Args:
      name: the tree, for errors.
      contents: what its arrays are, in the plural, for errors.
      tree: with an array for each leaf, and `optax.MaskedNode` elsewhere. It may come
        in another container than the parameters, with the same paths.
      leaves: in the order of the parameters.

    Raises:
      ValueError: if the tree does not fit the leaves.
    """
    arrays = tree_paths.arrays(tree_paths.flatten(tree))
    # A state of NNX that is restored as dicts has a key for the value of a Variable.
    paths = [leaf.path.removesuffix("/value") for leaf in arrays]
    expected = [leaf.path.removesuffix("/value") for leaf in leaves]
    if paths != expected:
        raise ValueError(
            f"{name} has {contents} at other leaves than the target prunes, or in "
            f"another order: at{tree_paths.listing(paths)}\nand not at"
            f"{tree_paths.listing(expected)}\n{_WAY_OUT}"
        )
    for leaf, stored in zip(leaves, arrays, strict=True):
        if tuple(stored.array.shape) != tuple(leaf.weights.shape):
            raise ValueError(
                f"{name} has {contents} of shape {tuple(stored.array.shape)} at "
                f"{leaf.path!r}, where the parameters have "
                f"{tuple(leaf.weights.shape)}. {_WAY_OUT}"
            )
    return [leaf.array for leaf in arrays]
