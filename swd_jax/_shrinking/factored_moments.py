"""Rows and columns of factored second moments (`optax.scale_by_factored_rms`)."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from swd_jax._arrays import tree_paths
from swd_jax._shrinking.axes_of_state_array import (
    COLUMNS,
    ROWS,
    Shape,
    factored_axes,
)
from swd_jax._shrinking.channels_to_positions import KeptPositions
from swd_jax._shrinking.parameter_of_state_array import Candidate, Keys

ShapesBeforeAndAfter: TypeAlias = tuple[Shape, Shape]


class _Moment(NamedTuple):
    array: tree_paths.ArrayLeaf
    cut: KeptPositions
    before: Shape
    """The parameter's shape."""
    after: Shape
    """The smaller parameter's shape."""


class FactoredMoments:
    """The rows and columns in a state, which depend on which axes are the largest."""

    def __init__(self) -> None:
        """Begin with none."""
        self._moments: dict[tuple[Keys, str], _Moment] = {}

    def add(
        self,
        candidate: Candidate,
        array: tree_paths.ArrayLeaf,
        cut: KeptPositions,
        shapes: ShapesBeforeAndAfter,
    ) -> None:
        """Take note of an array of the state if it has rows or columns.

        Args:
          candidate: its parameter.
          array: the array.
          cut: its kept positions.
          shapes: the parameter's shapes before and after the cut.
        """
        if candidate.field and candidate.field[-1] in (ROWS, COLUMNS):
            key = candidate.field, candidate.path
            self._moments[key] = _Moment(array, cut, *shapes)

    def sources(self, is_checked: bool) -> Mapping[int, tuple[Any, KeptPositions]]:
        """The arrays that rows and columns are cut from, by position in the state.

        Rows become columns where another axis of the smaller parameter is the largest.

        Args:
          is_checked: whether the result's shapes are compared with a new state's.

        Raises:
          ValueError: if the optimizer takes the means over other axes of a smaller
            parameter, or perhaps keeps no means.
        """
        least = min((_second(m.before) for m in self._moments.values()), default=0)
        sources: dict[int, tuple[Any, KeptPositions]] = {}
        for (field, parameter), moment in self._moments.items():
            axes, new = factored_axes(moment.before), factored_axes(moment.after)
            assert axes is not None
            assert new is not None
            other = (*field[:-1], COLUMNS if field[-1] == ROWS else ROWS)
            source = moment
            if new != axes:
                if (
                    sorted(new) != sorted(axes)
                    or (other, parameter) not in self._moments
                ):
                    raise ValueError(
                        f"The state's {moment.array.path!r} has means over an axis of "
                        f"{parameter!r}. The largest axes of the smaller parameter, of "
                        f"shape {moment.after}, are others than those of "
                        f"{moment.before}, so the optimizer has means over other axes. "
                        "Begin with a new state, tx.init(params)."
                    )
                source = self._moments[other, parameter]
            if _second(moment.after) < least and not is_checked:
                raise ValueError(
                    f"The state's {moment.array.path!r} has means over an axis of "
                    f"{parameter!r}, and the smaller parameter, of shape "
                    f"{moment.after}, may be too small for the optimizer to keep "
                    "means (min_dim_size_to_factor). Give shrink_state(like=...), a "
                    "new state for the smaller parameters, so that it is checked. Or "
                    "begin with that state."
                )
            sources[moment.array.position] = source.array.array, source.cut
        return sources


def _second(shape: Shape) -> int:
    return sorted(shape)[-2]
