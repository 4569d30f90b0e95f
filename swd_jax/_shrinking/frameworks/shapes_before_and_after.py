"""The shapes of a layer's arrays before and after the cut."""

import itertools
from collections.abc import Callable
from typing import Any, TypeAlias

Shape: TypeAlias = tuple[int, ...]
BeforeAndAfter: TypeAlias = tuple[Shape, Shape]
"""Shapes of an array before and after the cut."""
Shapes: TypeAlias = Callable[[str], BeforeAndAfter | None]
"""The shapes of a layer's array by its name in the layer, None without one."""
Rule: TypeAlias = Callable[[Any, Shapes], dict[str, Any]]
"""New values of a layer's attributes, from the layer and the shapes of its arrays."""


def new_shape(shapes: Shapes, name: str, before: Shape) -> Shape | None:
    """The new shape of a layer's array, without the axes that stack layers.

    `nnx.vmap` and `eqx.filter_vmap` give the arrays of a layer one more axis, and leave
    the sizes that it keeps as they are.

    Args:
      shapes: the shapes of the layer's arrays.
      name: the array's name.
      before: the shape that the sizes of a single layer give.

    Returns:
      The new shape of a single layer's array; None if the layer has no such array, or
      none of that shape.
    """
    found = shapes(name)
    if found is None:
        return None
    stacked, after = found
    # Layers are stacked along the first axis, unless the model says otherwise.
    possible = [
        axes
        for axes in itertools.combinations(range(len(stacked)), len(before))
        if tuple(stacked[axis] for axis in axes) == before
        and all(
            stacked[axis] == after[axis]
            for axis in range(len(stacked))
            if axis not in axes
        )
    ]
    return tuple(after[axis] for axis in possible[-1]) if possible else None


def first_new_shape(shapes: Shapes, *names: str, before: Shape) -> Shape | None:
    """The new shape of the first of some arrays that the layer has."""
    found = (new_shape(shapes, name, before) for name in names)
    return next((shape for shape in found if shape is not None), None)
