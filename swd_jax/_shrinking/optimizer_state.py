"""The optimizer's state cut along with the parameters."""

import math
from typing import Any

from swd_jax._arrays import tree_paths
from swd_jax._coupling.channel_groups import ChannelGroups, Kept
from swd_jax._shrinking import cut_arrays


def shrink_state(
    state: Any,
    groups: ChannelGroups,
    kept: Kept | Any,
    *,
    round_to: int = 1,
    scores: Any = None,
) -> Any:
    """Cut channels out of an optimizer's state, so that training goes on.

    Momenta and all other arrays that belong to a parameter are cut as it is. They are
    found by their paths, which end like that of the parameter, and by their shapes.
    Scalars, and what belongs to no parameter, stay.

    Args:
      state: of any optax transformation, or any other tree: an averaged copy of the
        parameters, a gradient.
      groups: what `channel_groups` gave for the parameters.
      kept: which channels stay: as in `shrink`, or its result's `kept`.
      round_to: as in `shrink`.
      scores: as in `shrink`.

    Returns:
      The state for the smaller parameters.

    Raises:
      ValueError: if `kept` does not fit the groups, or an array belongs to a parameter
        that is cut but has another shape, as factored second moments have.

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
    vectors = cut_arrays.vectors(groups, kept, round_to, scores)
    cuts = cut_arrays.cuts(groups, vectors)
    names = {path: path.split("/") for path in groups.shapes}
    flat = tree_paths.flatten(state)
    leaves: dict[int, Any] = {}
    cuts_of: dict[int, cut_arrays.Cut] = {}
    for position, path, leaf in tree_paths.arrays(flat):
        if math.prod(leaf.shape) <= 1:
            continue
        owner = _owner(path.split("/"), tuple(leaf.shape), names, groups)
        if owner is None or owner not in cuts:
            continue
        if tuple(leaf.shape) != groups.shapes[owner]:
            raise ValueError(
                f"The state's {path!r} has the shape {tuple(leaf.shape)} and belongs "
                f"to {owner!r}, of shape {groups.shapes[owner]}: it cannot be cut. "
                "Begin with a new state, tx.init(params)."
            )
        leaves[position], cuts_of[position] = leaf, cuts[owner]
    return flat.rebuilt(cut_arrays.cut(leaves, cuts_of))


def _owner(
    keys: list[str],
    shape: tuple[int, ...],
    names: dict[str, list[str]],
    groups: ChannelGroups,
) -> str | None:
    """The parameter whose path ends most like this one, of this shape if there is."""
    lengths = {path: _common_end(keys, name) for path, name in names.items()}
    longest = max(lengths.values(), default=0)
    found = [path for path, length in lengths.items() if length == longest]
    fitting = [path for path in found if groups.shapes[path] == shape]
    # A tree that is one array has no keys: then only the shape tells.
    whole = [path for path in found if longest == len(names[path])]
    if longest == 0 and not whole:
        return None
    if len(fitting) == 1:
        return fitting[0]
    if len(fitting) > 1:
        raise ValueError(
            f"The state's {'/'.join(keys)!r} may belong to {fitting[0]!r} or to "
            f"{fitting[1]!r}. Give shrink_state the state of an optimizer whose "
            "parameters have the paths that the groups have."
        )
    return found[0] if whole else None


def _common_end(one: list[str], other: list[str]) -> int:
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count
