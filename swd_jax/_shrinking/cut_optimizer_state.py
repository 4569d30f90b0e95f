"""`shrink_state`: the optimizer's state cut as the parameters are."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from swd_jax._arrays import tree_paths
from swd_jax._coupling.channel_groups import ChannelGroups, Kept
from swd_jax._shrinking import channels_to_positions, cut_arrays, masks_to_channels
from swd_jax._shrinking.channels_to_positions import KeptPositions


def shrink_state(
    state: Any,
    groups: ChannelGroups,
    kept: Kept | Any,
    *,
    multiple_of: int = 1,
    scores: Any = None,
    prefix: str | None = None,
) -> Any:
    """Cut channels out of an optimizer's state, so that training can continue.

    Momenta and all other arrays of a parameter are cut as the parameter is. Such an
    array has a path that ends like the parameter's, and the same shape. Scalars and
    arrays of no parameter are not changed.

    Args:
      state: the state of any optax transformation, or any other tree: an averaged copy
        of the parameters, a gradient.
      groups: the result of `channel_groups` for the parameters.
      kept: the kept channels, as in `shrink`, or its result's `kept`.
      multiple_of: as in `shrink`.
      scores: as in `shrink`.
      prefix: the path of the part of the model that the optimizer has, such as
        "generator"; needed where other parts have the same paths and shapes.

    Returns:
      The state for the smaller parameters.

    Raises:
      ValueError: if `kept` does not fit the groups, an array belongs to a parameter
        that is cut but has another shape, as factored second moments have, or it may
        belong to several parameters.

    Where it stands: beside `shrink`, with the same `groups` and `kept`.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, swd_jax
      >>> def model(params, x):
      ...     return jax.nn.relu(x @ params["first"]) @ params["second"]
      >>> params = {"first": jnp.ones((4, 16)), "second": jnp.ones((16, 3))}
      >>> groups = swd_jax.channels.channel_groups(model, params, jnp.ones((1, 4)))
      >>> state = optax.adam(1e-3).init(params)
      >>> kept = [[True] * 5 + [False] * 11]
      >>> small = swd_jax.channels.shrink_state(state, groups, kept)
      >>> small[0].mu["first"].shape, small[0].nu["second"].shape
      ((4, 5), (5, 3))
    """
    vectors = masks_to_channels.as_vectors(groups, kept, multiple_of, scores)
    positions = channels_to_positions.kept_positions(groups, vectors)
    parameter_keys = _keys_inside(prefix, groups)
    flat = tree_paths.flatten(state)
    leaves: dict[int, Any] = {}
    leaf_positions: dict[int, KeptPositions] = {}
    for position, path, leaf in tree_paths.arrays(flat):
        shape = tuple(leaf.shape)
        if math.prod(shape) <= 1:
            continue
        parameter = _find_parameter(_split(path), shape, parameter_keys, groups)
        if parameter is None or parameter not in positions:
            continue
        if shape != groups.shapes[parameter]:
            raise ValueError(
                f"The state's {path!r} has the shape {shape} and belongs to "
                f"{parameter!r}, of shape {groups.shapes[parameter]}: it cannot be "
                "cut. Begin with a new state, tx.init(params)."
            )
        leaves[position], leaf_positions[position] = leaf, positions[parameter]
    return flat.rebuild(cut_arrays.cut(leaves, leaf_positions))


def _keys_inside(prefix: str | None, groups: ChannelGroups) -> dict[str, list[str]]:
    """By path: the keys, below a prefix, of the parameters that are inside it."""
    prefix = (prefix or "").removesuffix("/")
    keys = {
        path: _split(path.removeprefix(prefix).removeprefix("/"))
        for path in groups.shapes
        if tree_paths.is_inside(path, prefix)
    }
    if not keys:
        raise ValueError(
            f"prefix={prefix!r} leads to none of the parameters, whose paths are:"
            f"{tree_paths.listing(groups.shapes)}"
        )
    return keys


def _split(path: str) -> list[str]:
    # The path of a tree that is a single array is empty.
    return path.split("/") if path else []


def _find_parameter(
    keys: Sequence[str],
    shape: tuple[int, ...],
    parameter_keys: Mapping[str, Sequence[str]],
    groups: ChannelGroups,
) -> str | None:
    """The parameter that an array of the state belongs to.

    Its path has the longest common ending with the array's path; of several such
    parameters, the one of the array's shape.
    """
    lengths = {p: _common_ending(keys, own) for p, own in parameter_keys.items()}
    longest = max(lengths.values(), default=0)
    candidates = [path for path, length in lengths.items() if length == longest]
    fitting = [path for path in candidates if groups.shapes[path] == shape]
    whole = [path for path in candidates if longest == len(parameter_keys[path])]
    if longest == 0 and not whole:
        return None
    if len(fitting) == 1:
        return fitting[0]
    if len(fitting) > 1:
        raise ValueError(
            f"The state's {'/'.join(keys)!r} may belong to {fitting[0]!r} or to "
            f"{fitting[1]!r}. Give shrink_state(prefix=...), the path of the part of "
            "the model that the optimizer has."
        )
    return candidates[0] if whole else None


def _common_ending(left: Sequence[str], right: Sequence[str]) -> int:
    """Number of equal keys at the end of two paths."""
    length = 0
    for a, b in zip(reversed(left), reversed(right), strict=False):
        if a != b:
            break
        length += 1
    return length
