"""Which axes of a parameter the axes of an array in an optimizer's state are."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from swd_jax._shrinking.channels_to_positions import KeptPositions
from swd_jax._shrinking.parameter_of_state_array import Candidate

Shape: TypeAlias = tuple[int, ...]
Axes: TypeAlias = tuple[int | None, ...]
"""For each axis of the array: the axis of the parameter, None = of no parameter."""

# `optax.scale_by_factored_rms` (optax 0.2) and `optax.scale_by_lbfgs`.
ROWS, COLUMNS = "v_row", "v_col"
_STACKED = ("diff_params_memory", "diff_updates_memory")


def kept_positions_of(
    candidate: Candidate, shape: Shape, parameter: Shape, positions: KeptPositions
) -> KeptPositions | None:
    """The kept positions of an array of the state, from those of its parameter.

    Args:
      candidate: the parameter, and the keys around its path.
      shape: the array's shape.
      parameter: the parameter's shape.
      positions: the parameter's kept positions by axis.

    Returns:
      The kept positions by axis of the array. None if its shape does not follow from
      the parameter's, or does so in several ways that cut different positions.
    """
    found: list[KeptPositions] = []
    for axes in _possible_axes(candidate, shape, parameter):
        cut = {
            dim: positions[axis]
            for dim, axis in enumerate(axes)
            if axis is not None and axis in positions
        }
        if not any(are_equal(cut, other) for other in found):
            found.append(cut)
    return found[0] if len(found) == 1 else None


def are_equal(left: KeptPositions, right: KeptPositions) -> bool:
    """Whether two arrays keep the same positions."""
    return left.keys() == right.keys() and all(
        np.array_equal(left[axis], right[axis]) for axis in left
    )


def factored_axes(shape: Shape) -> tuple[int, int] | None:
    """The two axes that factored second moments are means over, None without two.

    `optax.scale_by_factored_rms` drops the second from "v_row" and the first from
    "v_col": the largest axis, and the largest but one.
    """
    if len(shape) < 2:
        return None
    *_, second, largest = np.argsort(shape).tolist()
    return second, largest


def _possible_axes(
    candidate: Candidate, shape: Shape, parameter: Shape
) -> Iterator[Axes]:
    rank, whole = len(parameter), tuple(range(len(parameter)))
    name = candidate.field[-1] if candidate.field else ""
    if candidate.after and candidate.after[-1].isdecimal():
        yield from _of_one_axis(int(candidate.after[-1]), shape, parameter)
    elif name in (ROWS, COLUMNS) and (axes := factored_axes(parameter)) is not None:
        dropped = axes[1] if name == ROWS else axes[0]
        left = tuple(axis for axis in whole if axis != dropped)
        if shape == tuple(parameter[axis] for axis in left):
            yield left
    elif shape == parameter:
        yield whole
    elif len(shape) == rank:
        # A mean that keeps the axes that it is over.
        if all(a in (1, b) for a, b in zip(shape, parameter, strict=True)):
            yield tuple(
                axis if length == parameter[axis] else None
                for axis, length in enumerate(shape)
            )
    elif len(shape) < rank:
        for axes in itertools.combinations(whole, len(shape)):
            if shape == tuple(parameter[axis] for axis in axes):
                yield axes
    else:
        more = len(shape) - rank
        for before in range(1 if name in _STACKED else more + 1):
            start = more if name in _STACKED else before
            if shape[start : start + rank] == parameter:
                yield (None,) * start + whole + (None,) * (more - start)


def _of_one_axis(axis: int, shape: Shape, parameter: Shape) -> Iterator[Axes]:
    """A vector, or a matrix of products, of one axis of the parameter."""
    is_one_length = axis < len(parameter) and set(shape) == {parameter[axis]}
    if is_one_length and len(shape) <= 2:
        yield (axis,) * len(shape)


def positions_in_vector(
    shapes: Sequence[tuple[str, Shape]], positions: Mapping[str, KeptPositions]
) -> np.ndarray:
    """The kept positions of all parameters in one vector, in their order."""
    parts: list[np.ndarray] = []
    for path, shape in shapes:
        kept = np.ones(shape, np.bool_)
        for axis, along in positions.get(path, {}).items():
            np.moveaxis(kept, axis, 0)[~along] = False
        parts.append(kept.ravel())
    return np.concatenate(parts)
