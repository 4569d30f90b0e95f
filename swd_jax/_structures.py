"""Structures: which weights live and die together."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax import _splits

# Up to so many weights that stand together, every pair is compared by itself: one pass
# over memory, but a program that grows with the square.
_UNROLLED = 8


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


@dataclasses.dataclass(frozen=True)
class NM:
    """Of every m consecutive weights along an axis, the best n are never pruned.

    At the sparsity 1 - n/m exactly n of every m are left, as the sparse matrix units of
    GPUs want it: 2 of 4 along the axis that a product sums over. Below it, as while a
    scheduled target rises, it is the worst of the others that go.

    Args:
      n: how many of every m weights are kept, at least 1.
      m: how many weights stand together, more than n and at most 256.
      axis: along which they stand. By default the last but one, the inputs of a dense
        or convolution kernel in JAX.

    Where m does not divide the axis, the last few weights stand together, and up to n
    of them are kept. Among equal scores the last are kept.

    Raises:
      ValueError: if a number is out of range; when the target meets the parameters, if
        a leaf has no such axis.

    Examples:
      >>> import jax.numpy as jnp, swd_jax
      >>> target = swd_jax.Target(0.5, structure=swd_jax.NM(2, 4, axis=-1))
      >>> kernel = jnp.array([[1.0, 5, 3, 2, 9, 8, 7, 6]])
      >>> print(swd_jax.prune({"kernel": kernel}, target)["kernel"])
      [[0. 5. 3. 0. 9. 8. 0. 0.]]

    Source: Mishra et al., "Accelerating sparse deep neural networks"
    (arXiv 2104.08378), section 3.
    """

    n: int
    m: int
    axis: int = -2

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"{name} of NM must be a whole number, got {value!r}")
        if not 1 <= self.n < self.m <= 256:
            raise ValueError(
                f"NM(n, m) needs 1 <= n < m <= 256, got n={self.n}, m={self.m}"
            )

    def scores(self, scores: jax.Array) -> jax.Array:
        """The scores, infinity for those weights that are never pruned."""
        return jnp.where(self.protected(scores), jnp.inf, scores)

    def protected(self, scores: jax.Array) -> jax.Array:
        """Which weights are never pruned: bools in the shape of the scores."""
        lengths = self._lengths(scores.shape)
        # Beyond the far edge stands what is worse than any score.
        split = _splits.split(scores, lengths, fill=-1)
        best = _best(self.n, split, 2 * (self.axis % scores.ndim) + 1)
        return _splits.joined(best, scores)

    def sizes(self, shape: tuple[int, ...]) -> int:
        """One weight each."""
        normalized_axes([self.axis], shape)
        return 1

    def expand(self, groups: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The groups themselves."""
        del shape
        return groups

    def fits_part(self, shape: tuple[int, ...]) -> bool:
        """Whether all of the m weights are in the same part of a leaf."""
        return shape[self.axis % len(shape)] % self.m == 0

    def fits_mesh(self, shape: tuple[int, ...], parts: tuple[int, ...]) -> bool:
        """The same of a whole leaf that has parts along its axes."""
        axis = self.axis % len(shape)
        return parts[axis] == 1 or shape[axis] % (self.m * parts[axis]) == 0

    def _lengths(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        axis = self.axis % len(shape)
        return tuple(self.m if i == axis else 1 for i in range(len(shape)))

    @property
    def greatest_sparsity(self) -> tuple[int, int]:
        """The largest fraction that can be pruned, as numerator and denominator."""
        return self.m - self.n, self.m


def _best(count: int, scores: jax.Array, axis: int) -> jax.Array:
    """Which scores are the best along an axis, of equal ones the last."""
    length = scores.shape[axis]
    if length > _UNROLLED:
        place = jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis)

        def compare(i: jax.Array, better: jax.Array) -> jax.Array:
            other = jax.lax.dynamic_index_in_dim(scores, i, axis)
            later = i > place
            wins = (later & (other >= scores)) | (~later & ~(scores >= other))
            return better + wins.astype(jnp.uint8)

        zeros = jnp.zeros_like(scores, dtype=jnp.uint8)
        found = jax.lax.fori_loop(0, length, compare, zeros, unroll=_UNROLLED)
        return found < count
    members = [jnp.take(scores, i, axis) for i in range(length)]
    better = [jnp.zeros(members[0].shape, jnp.uint8) for _ in members]
    for i in range(length):
        for j in range(i + 1, length):
            later = members[j] >= members[i]
            better[i] = better[i] + later.astype(jnp.uint8)
            better[j] = better[j] + (~later).astype(jnp.uint8)
    return jnp.stack([each < count for each in better], axis)


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
