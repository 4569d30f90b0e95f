"""Extra arguments: what criteria read besides the weights, found for every leaf."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from swd_jax._allocation.prunable_leaves import PrunableLeaf
from swd_jax._arguments.short_text import shown
from swd_jax._arrays import tree_paths
from swd_jax._targets.target import Target
from swd_jax.criteria._criterion import Criterion, ExtraInputs

AS_ARGUMENT = "extra_args={{{name!r}: ...}}"
"""Format of the extra argument `name` of a function such as `prune`, for errors."""

TO_UPDATE = (
    "it as an extra argument, update(updates, state, params, {name}=...). (The "
    "apply_gradients of flax's TrainState passes none: call state.tx.update instead)"
)
"""Format of the extra argument `name` of a transformation's update, for errors."""


def check_extra_args(
    targets: Sequence[Target], extra_args: Mapping[str, Any] | None
) -> None:
    """Raise if an extra argument is given that no criterion reads."""
    if extra_args is not None and not isinstance(extra_args, Mapping):
        raise ValueError(
            "extra_args must map names to trees like the parameters, such as "
            f"{{'gradient': gradients}}, got {shown(extra_args)}"
        )
    names = {name for target in targets for name in target.criterion.input_names}
    for name in extra_args or ():
        if name not in names:
            raise ValueError(
                f"extra_args has {name!r}, which the criterion does not read: it reads "
                f"{', '.join(sorted(names)) or 'the weights only'}"
            )


def of_leaves(
    criterion: Criterion,
    leaves: Sequence[PrunableLeaf],
    params: tree_paths.FlatTree,
    extra_args: Mapping[str, Any],
    how_to_pass: str,
) -> list[ExtraInputs]:
    """Return the extra inputs of every leaf, without a gradient.

    Args:
      criterion: the criterion that reads them.
      leaves: the prunable leaves.
      params: the parameters.
      extra_args: trees like the parameters, by name. Others than the criterion reads
        are ignored.
      how_to_pass: a format string for errors, which says how the caller's user passes
        the extra argument `name`.

    Raises:
      ValueError: if a tree is missing or does not have the leaves' arrays.
    """
    inputs: list[dict[str, jax.Array]] = [{} for _ in leaves]
    for name in criterion.input_names if leaves else ():
        if extra_args.get(name) is None:
            from_state = ""
            if name == "accumulated":
                from_state = (
                    ", with the state.selection.accumulated of a transformation that "
                    "has trained with this criterion"
                )
            raise ValueError(
                f"criterion {criterion!r} needs {name}, a tree like the parameters: "
                f"give {how_to_pass.format(name=name)}{from_state}"
            )
        tree = tree_paths.flatten(extra_args[name])
        find_array = tree_paths.array_lookup(name, tree, params)
        for leaf, inputs_of_leaf in zip(leaves, inputs, strict=True):
            array = find_array(leaf.position)
            if array is None or array.shape != leaf.weights.shape:
                there = "nothing" if array is None else f"an array of {array.shape}"
                raise ValueError(
                    f"{name} must be a tree like the parameters, and has {there} at "
                    f"{leaf.path!r}, where they have an array of {leaf.weights.shape}"
                )
            inputs_of_leaf[name] = jax.lax.stop_gradient(jnp.asarray(array))
    return list(inputs)
