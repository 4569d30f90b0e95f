"""Structures: which weights live and die together."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np


@runtime_checkable
class Structure(Protocol):
    """What a structure has to tell of a leaf. Write your own as a frozen dataclass.

    A leaf's weights are divided into groups, which are an array of any shape. The group
    with the lowest score goes first, and takes all of its weights with it.

    Examples:
      Rows and columns of square kernels in one: the cross through each place of the
      diagonal, less what an earlier cross has.

      >>> import dataclasses, jax.numpy as jnp, numpy as np, swd_jax
      >>> @dataclasses.dataclass(frozen=True)
      ... class Corners:
      ...     def scores(self, scores):
      ...         n = scores.shape[0]
      ...         ring = jnp.minimum(*jnp.indices(scores.shape))
      ...         rings = [jnp.where(ring == i, scores, 0) for i in range(n)]
      ...         return jnp.stack([each.max() for each in rings])
      ...
      ...     def sizes(self, shape):
      ...         return np.arange(2 * shape[0] - 1, 0, -2, dtype=np.uint32)
      ...
      ...     def expand(self, groups, shape):
      ...         return groups[jnp.minimum(*jnp.indices(shape))]
      >>> kernel = jnp.array([[4.0, 4, 4], [4, 1, 1], [4, 1, 8]])
      >>> target = swd_jax.Target(0.4, structure=Corners())
      >>> print(swd_jax.prune({"kernel": kernel}, target)["kernel"])
      [[4. 4. 4.]
       [4. 0. 0.]
       [4. 0. 8.]]
    """

    def scores(self, scores: jax.Array) -> jax.Array:
        """The scores of the groups, from those of a leaf's weights, all at least 0.

        A group with a score that is not finite should have one that is not finite.
        """
        ...

    def sizes(self, shape: tuple[int, ...]) -> int | np.ndarray:
        """How many weights the groups of a leaf have: one number, or one for each.

        Unsigned 32-bit integers in the shape of the groups, at least 1. A `ValueError`
        here says why a leaf of this shape has no such groups.
        """
        ...

    def expand(self, groups: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Each weight's group's entry: from the shape of the groups to the leaf's."""
        ...


@dataclasses.dataclass(frozen=True)
class Unstructured:
    """Every weight stands for itself.

    The structure of the paper's main results: any weight may be pruned whatever
    becomes of its neighbours. What remains is scattered, which saves memory in a
    sparse format but no time in a dense product.

    Examples:
      >>> import swd_jax
      >>> swd_jax.Target(0.9, structure=swd_jax.Unstructured()).structure
      Unstructured()

    Source: section 3.3 of arXiv 2011.10520.
    """

    def scores(self, scores: jax.Array) -> jax.Array:
        """The scores themselves."""
        return scores

    def sizes(self, shape: tuple[int, ...]) -> int:
        """One weight each."""
        del shape
        return 1

    def expand(self, groups: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The groups themselves."""
        del shape
        return groups

    def fits_part(self, shape: tuple[int, ...]) -> bool:
        """Whatever part of a leaf a device has, its groups are whole."""
        del shape
        return True


def normalized_axes(axes: Sequence[int], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Axes counted from the front.

    Raises:
      ValueError: if there is no such axis.
    """
    for axis in axes:
        if not -len(shape) <= axis < len(shape):
            raise ValueError(f"there is no axis {axis} in {len(shape)} dimensions")
    return tuple(axis % len(shape) for axis in axes)


def check_structure(structure: Any) -> None:
    """Raise if a target's structure is not one."""
    if not isinstance(structure, Structure) or isinstance(structure, type):
        raise ValueError(
            "structure must be Unstructured(), Block(...), NM(...), Channel(...) or "
            "your own, with the methods scores, sizes and expand, got "
            f"{structure!r}"
        )
    try:
        hash(structure)
    except TypeError as error:
        raise ValueError(
            f"structure must be hashable, as a frozen dataclass is, and {structure!r} "
            f"is not: {error}"
        ) from error


def check_leaf(
    structure: Structure,
    path: str,
    shape: tuple[int, ...],
    *,
    divided: bool,
    parts: tuple[int, ...],
) -> None:
    """Raise if a leaf has no such groups, or devices have parts of them.

    Args:
      structure: the groups.
      path: of the leaf.
      shape: of the leaf, or of the part of it that a device has.
      divided: whether devices have parts of the leaf, by hand.
      parts: how many of them each axis is known to have otherwise.
    """
    try:
        structure.sizes(shape)
    except ValueError as error:
        raise ValueError(
            f"{structure!r} does not fit the parameter {path!r} of shape {shape}: "
            f"{error}. Give prunable to leave it out"
        ) from error
    fits_part = getattr(structure, "fits_part", None)
    if divided and not (fits_part is not None and fits_part(shape)):
        raise ValueError(
            f"{structure!r} has groups that may lie on several devices: of "
            f"{path!r} each has a part of shape {shape}. Without axis_name, under jit "
            "over a mesh, groups may lie anywhere; or divide the weights between groups"
        )
    fits_mesh = getattr(structure, "fits_mesh", None)
    if fits_mesh is not None and not fits_mesh(shape, parts):
        raise ValueError(
            f"{structure!r} has groups that would lie on several devices: {path!r} of "
            f"shape {shape} has {parts} parts along its axes. Divide it between "
            "groups, or give the mesh axes the type Auto, where groups may lie anywhere"
        )
