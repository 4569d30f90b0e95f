"""`shrink_state`: the optimizer's state cut as the parameters are."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from swd_jax._arrays import tree_paths
from swd_jax._coupling.channel_groups import ChannelGroups, Kept
from swd_jax._shrinking import channels_to_positions, cut_arrays, masks_to_channels
from swd_jax._shrinking.axes_of_state_array import (
    Shape,
    are_equal,
    kept_positions_of,
    positions_in_vector,
)
from swd_jax._shrinking.channels_to_positions import KeptPositions
from swd_jax._shrinking.factored_moments import FactoredMoments
from swd_jax._shrinking.parameter_of_state_array import (
    Candidate,
    Keys,
    ParameterFinder,
    split,
)


def shrink_state(
    state: Any,
    groups: ChannelGroups,
    kept: Kept | Any,
    *,
    multiple_of: int = 1,
    scores: Any = None,
    prefix: str | None = None,
    like: Any = None,
) -> Any:
    """Cut channels out of an optimizer's state, so that training can continue.

    Momenta, masks and all other arrays of a parameter are cut as the parameter is. The
    path of such an array has the parameter's path at its end, or before the number of
    an axis. Its axes are those of the parameter, some of them (the rows and columns of
    `optax.adafactor`, the vectors of `optax.sm3`), or those of the parameter after
    others (the memory of `optax.lbfgs`). A vector of all parameters, as
    `optax.flatten` makes it, is cut as well. Scalars and arrays of no parameter are not
    changed.

    Args:
      state: the state of any optax transformation, or any other tree: an averaged copy
        of the parameters, a gradient.
      groups: the result of `channel_groups` for the parameters.
      kept: the kept channels, as in `shrink`, or its result's `kept`.
      multiple_of: as in `shrink`.
      scores: as in `shrink`.
      prefix: the path of the part of the model that the optimizer has, such as
        "generator"; needed where other parts have the same paths and shapes.
      like: a new state for the smaller parameters, or its shapes, such as
        `jax.eval_shape(tx.init, small.params)`. The result is checked against it.

    Returns:
      The state for the smaller parameters.

    Raises:
      ValueError: if `kept` does not fit the groups, an array belongs to a parameter
        that is cut but its axes are not known, as the projections of
        `optax.contrib.galore`, it may belong to several parameters, the optimizer may
        keep other arrays for the smaller parameters (adafactor factors large ones
        only), or the result does not have the shapes of `like`.

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
    parameters = _keys_inside(prefix, groups)
    flat = tree_paths.flatten(state)
    finder = ParameterFinder(parameters, flat)
    leaves: dict[int, Any] = {}
    cuts: dict[int, KeptPositions] = {}
    factored = FactoredMoments()
    for array in tree_paths.arrays(flat):
        position, path, leaf = array
        shape = tuple(leaf.shape)
        if math.prod(shape) <= 1:
            continue
        candidates = finder.candidates(path)
        found = _fitting(path, shape, candidates, groups, positions)
        if found is None:
            cut = _positions_in_vector_of_all(shape, parameters, groups, positions)
            if cut is None:
                _check_unrelated(path, shape, candidates, groups, positions)
                if not candidates and like is None:
                    _check_other_shape(path, shape, groups, positions)
                continue
        else:
            candidate, cut = found
            shapes = _before_and_after(candidate.path, groups, positions)
            factored.add(candidate, array, cut, shapes)
        leaves[position], cuts[position] = leaf, cut
    for position, (leaf, cut) in factored.sources(like is not None).items():
        leaves[position], cuts[position] = leaf, cut
    small = flat.rebuild(cut_arrays.cut(leaves, cuts))
    if like is not None:
        _check_like(small, like)
    return small


def _keys_inside(prefix: str | None, groups: ChannelGroups) -> dict[str, Keys]:
    """By path: the keys, below a prefix, of the parameters that are inside it."""
    prefix = (prefix or "").removesuffix("/")
    keys = {
        path: split(path.removeprefix(prefix).removeprefix("/"))
        for path in groups.shapes
        if tree_paths.is_inside(path, prefix)
    }
    if not keys:
        raise ValueError(
            f"prefix={prefix!r} leads to none of the parameters, whose paths are:"
            f"{tree_paths.listing(groups.shapes)}"
        )
    return keys


def _fitting(
    path: str,
    shape: Shape,
    candidates: Sequence[Candidate],
    groups: ChannelGroups,
    positions: Mapping[str, KeptPositions],
) -> tuple[Candidate, KeptPositions] | None:
    """The parameter that an array of the state belongs to, and its kept positions.

    Of several parameters, it is one whose axes the array has, in a field that has most
    of the parameters beside it, and of those one of the array's shape.
    """
    cuts = {
        candidate: kept_positions_of(
            candidate,
            shape,
            groups.shapes[candidate.path],
            positions.get(candidate.path, {}),
        )
        for candidate in candidates
    }
    fitting = [
        candidate
        for candidate, cut in cuts.items()
        if cut is not None and (candidate.is_whole or not candidate.after)
    ]
    if not fitting:
        return None
    best = max(map(_rank, fitting))
    fitting = [candidate for candidate in fitting if _rank(candidate) == best]
    same = [c for c in fitting if groups.shapes[c.path] == shape and not c.after]
    first, *others = same or fitting
    first_cut = cuts[first]
    assert first_cut is not None
    for other in others:
        other_cut = cuts[other]
        assert other_cut is not None
        if not are_equal(first_cut, other_cut):
            raise ValueError(
                f"The state's {path!r} may belong to {first.path!r} or to "
                f"{other.path!r}. Give shrink_state(prefix=...), the path of the part "
                "of the model that the optimizer has."
            )
    return first, first_cut


def _rank(candidate: Candidate) -> tuple[float, int]:
    return candidate.share, -len(candidate.field)


def _positions_in_vector_of_all(
    shape: Shape,
    parameters: Mapping[str, Keys],
    groups: ChannelGroups,
    positions: Mapping[str, KeptPositions],
) -> KeptPositions | None:
    """The kept positions in a vector of all parameters, None for another array."""
    if len(shape) != 1:
        return None
    sizes = {path: math.prod(groups.shapes[path]) for path in parameters}
    nodes = {keys[:1] for keys in parameters.values() if len(keys) > 1}
    for node in ((), *sorted(nodes)):
        inside = [p for p, keys in parameters.items() if keys[: len(node)] == node]
        total = sum(sizes[path] for path in inside)
        # A small part of the model may have the length of another vector by chance.
        if total == shape[0] and 2 * total > sum(sizes.values()):
            shapes = [(path, groups.shapes[path]) for path in inside]
            return {0: positions_in_vector(shapes, positions)}
    return None


def _before_and_after(
    path: str, groups: ChannelGroups, positions: Mapping[str, KeptPositions]
) -> tuple[Shape, Shape]:
    """A parameter's shapes before and after the cut."""
    before, cut = groups.shapes[path], positions.get(path, {})
    after = [
        int(cut[axis].sum()) if axis in cut else length
        for axis, length in enumerate(before)
    ]
    return before, tuple(after)


def _check_unrelated(
    path: str,
    shape: Shape,
    candidates: Sequence[Candidate],
    groups: ChannelGroups,
    positions: Mapping[str, KeptPositions],
) -> None:
    """Raise if an array that is not cut may belong to a parameter that is."""
    for candidate in candidates:
        whole, cut = groups.shapes[candidate.path], positions.get(candidate.path, {})
        # A tree of a single array has no keys, and keys in the middle of a path may be
        # equal by chance: a length must be the same too.
        has_length = any(whole[axis] in shape for axis in cut)
        is_named = candidate.path and not candidate.after
        if cut and candidate.is_whole and (is_named or has_length):
            raise ValueError(
                f"The state's {path!r} has the shape {shape} and belongs to "
                f"{candidate.path!r}, of shape {whole}: it cannot be cut, because its "
                "axes are not known. Begin with a new state, tx.init(params)."
            )


def _check_other_shape(
    path: str,
    shape: Shape,
    groups: ChannelGroups,
    positions: Mapping[str, KeptPositions],
) -> None:
    """Raise if an array of another path has the shape of a parameter that is cut."""
    if len(shape) < 2:
        return  # short vectors have the same length by chance
    for parameter in positions:
        if groups.shapes[parameter] == shape:
            raise ValueError(
                f"The state's {path!r} has the shape of {parameter!r}, which is cut, "
                "and no parameter's path. Give shrink_state(like=...), a new state for "
                "the smaller parameters, if it belongs to none. Otherwise begin with "
                "that state."
            )


def _check_like(small: Any, like: Any) -> None:
    """Raise if a state has another structure or other shapes than a new one."""
    flat, expected = tree_paths.flatten(small), tree_paths.flatten(like)
    if flat.paths != expected.paths:
        path = next(iter(set(expected.paths).symmetric_difference(flat.paths)), "")
        raise ValueError(
            f"like has another structure than the state: {path!r} is in one of them "
            "only. Give the new state of the same optimizer."
        )
    for path, leaf, other in zip(flat.paths, flat.leaves, expected.leaves, strict=True):
        if np.shape(leaf) != np.shape(other):
            raise ValueError(
                f"The state's {path!r} has the shape {np.shape(leaf)} after the cut, "
                f"and {np.shape(other)} in like: the optimizer keeps another array for "
                "the smaller parameters. Begin with a new state, tx.init(params)."
            )
