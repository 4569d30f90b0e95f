"""Checks that what is passed for parameters is a tree of parameters, and only that."""

from collections.abc import Mapping
from typing import Any

import jax

from swd_jax._arguments.short_text import shown
from swd_jax._arrays import tree_paths


def check_parameters(params: Any) -> None:
    """Raise if parameters are, or have in them, the state of an optimizer.

    Raises:
      ValueError: naming the place, and what to pass instead.
    """
    if isinstance(params, Mapping):
        has_state, has_params = "opt_state" in params, "params" in params
        way_out = 'state["params"]'
    else:
        has_state, has_params = hasattr(params, "opt_state"), hasattr(params, "params")
        way_out = "state.params"
    if has_state:
        if not has_params:
            way_out = "those of the model, such as nnx.state(model, nnx.Param)"
        raise ValueError(
            f"params is a {type(params).__name__} with an optimizer's state in it. "
            f"Give the parameters alone: {way_out}"
        )
    nodes, _ = jax.tree_util.tree_flatten_with_path(params, is_leaf=_is_state)
    for key_path, node in nodes:
        if _is_state(node):
            place = f"has at {tree_paths.path_name(key_path)!r}" if key_path else "is"
            raise ValueError(
                f"params {place} the state of an optimizer, {type(node).__name__}. "
                "Give the parameters alone, such as state.params of a TrainState"
            )


def check_given_parameters(params: Any) -> None:
    """Raise if the first argument of a function of (params, target) is no parameters.

    Raises:
      ValueError: as `check_parameters`, and for a tree without arrays, unless
        `optax.masked` has emptied it.
    """
    check_parameters(params)
    flat = tree_paths.flatten(params)
    if not tree_paths.arrays(flat) and not flat.masked_paths:
        raise ValueError(
            f"params must be a tree of arrays, and has none: got {shown(params)}. The "
            "parameters come first, (params, target)"
        )


def _is_state(node: Any) -> bool:
    """Whether a node is a state of optax or of this package: a named tuple."""
    kind = type(node)
    return (
        hasattr(kind, "_fields")
        and kind.__name__.endswith("State")
        and kind.__module__.partition(".")[0] in {"optax", "swd_jax"}
    )
