"""The shapes of a layer's arrays before and after the cut."""

from collections.abc import Callable
from typing import Any, TypeAlias

Shape: TypeAlias = tuple[int, ...]
BeforeAndAfter: TypeAlias = tuple[Shape, Shape]
"""Shapes of an array before and after the cut."""
Shapes: TypeAlias = Callable[[str], BeforeAndAfter | None]
"""The shapes of a layer's array by its name in the layer, None without one."""
Rule: TypeAlias = Callable[[Any, Shapes], dict[str, Any]]
"""New values of a layer's attributes, from the layer and the shapes of its arrays."""


def first_shapes(shapes: Shapes, *names: str) -> BeforeAndAfter | None:
    """The shapes of the first of some arrays that the layer has."""
    return next((shapes(name) for name in names if shapes(name)), None)
