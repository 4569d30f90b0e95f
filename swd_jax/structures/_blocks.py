"""Structures of rectangular groups: blocks, and slices along an axis."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import axis_norms, tiling
from swd_jax._arrays.axis_norms import Norm
from swd_jax.structures import _structure


@dataclasses.dataclass(frozen=True)
class Block:
    """Rectangular blocks of weights that live and die together.

    Args:
      shape: of a block, along the last dimensions of a leaf, as NumPy aligns shapes:
        `Block((4, 4))` divides the inputs and outputs of every kernel, for each pixel
        of a convolution. None stands for a whole dimension. Blocks at the far edge are
        smaller where the shape does not divide the leaf's; nothing is padded.
      norm: a block's score from those of its weights: "rms", the root of their mean
        square; "l2", of the sum of squares; "mean" or "l1", of their absolute values.
        Those with a mean compare blocks of different sizes fairly; sums favour large
        ones.

    The target counts weights, not blocks, and is met to within one block.

    Raises:
      ValueError: for lengths below 1 or an unknown norm; when the target meets the
        parameters, if a leaf has fewer dimensions than a block.

    Examples:
      >>> import jax.numpy as jnp, swd_jax
      >>> target = swd_jax.Target(0.5, structure=swd_jax.Block((1, 2)))
      >>> kernel = jnp.array([[1.0, 1, 3, 3], [9, 0, 1, 2]])
      >>> print(swd_jax.prune({"kernel": kernel}, target)["kernel"])
      [[0. 0. 3. 3.]
       [9. 0. 0. 0.]]

    Source: section 3.3 of arXiv 2011.10520 for structures; Gray et al., "GPU kernels
    for block-sparse weights" (2017) for blocks.
    """

    shape: tuple[int | None, ...]
    norm: Norm = "rms"

    def __post_init__(self) -> None:
        if isinstance(self.shape, list):
            object.__setattr__(self, "shape", tuple(self.shape))
        if not isinstance(self.shape, tuple) or not self.shape:
            raise ValueError(
                f"shape of Block must be a tuple of lengths, got {self.shape!r}"
            )
        for length in self.shape:
            whole = isinstance(length, int) and not isinstance(length, bool)
            if length is not None and not (whole and length >= 1):
                raise ValueError(
                    "shape of Block must have whole numbers of at least 1, or None for "
                    f"a whole dimension, got {self.shape!r}"
                )
        _check_norm("Block", self.norm)

    def scores(self, scores: jax.Array) -> jax.Array:
        """The norm of each block, shape (blocks along each axis)."""
        return _scores(scores, self._lengths(scores.shape), self.norm)

    def sizes(self, shape: tuple[int, ...]) -> int | np.ndarray:
        """The number of weights of each block."""
        return _sizes(shape, self._lengths(shape))

    def expand(self, groups: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Each weight's block's entry."""
        return _expand(groups, shape, self._lengths(shape))

    def fits_part(self, shape: tuple[int, ...]) -> bool:
        """Whether all blocks lie within the parts of a leaf."""
        return None not in self.shape and all(
            n % b == 0 for n, b in zip(shape, self._lengths(shape), strict=True)
        )

    def fits_mesh(self, shape: tuple[int, ...], parts: tuple[int, ...]) -> bool:
        """Whether no block that is shorter than an axis crosses from part to part."""
        return tiling.lie_within(shape, self._lengths(shape), parts)

    def _lengths(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) < len(self.shape):
            raise ValueError(f"a block of {self.shape} has more dimensions")
        missing = (1,) * (len(shape) - len(self.shape))
        lengths = (*missing, *self.shape)
        return tuple(n if b is None else b for n, b in zip(shape, lengths, strict=True))


@dataclasses.dataclass(frozen=True)
class Channel:
    """All weights at an index along an axis: filters, rows, columns, heads.

    Args:
      axis: the one whose indices are groups. By default the last: the outputs of a
        dense or convolution kernel in JAX, so that groups are its filters; -2 for its
        inputs.
      size: how many consecutive indices make up a group: the size of a head, where the
        axis has heads * size of them.
      norm: as for `Block`.

    The target counts weights, not channels, and is met to within one channel. Each leaf
    has its own channels: that a filter's bias, or the next layer's input, could go with
    it is not known here.

    Raises:
      ValueError: for a size below 1 or an unknown norm; when the target meets the
        parameters, if a leaf has no such axis, or `size` does not divide it.

    Examples:
      >>> import jax.numpy as jnp, swd_jax
      >>> target = swd_jax.Target(0.5, structure=swd_jax.Channel(axis=-1))
      >>> kernel = jnp.array([[1.0, 5, 3, 2], [9, 0, 1, 2]])
      >>> print(swd_jax.prune({"kernel": kernel}, target)["kernel"])
      [[1. 5. 0. 0.]
       [9. 0. 0. 0.]]

    Source: Li et al., "Pruning filters for efficient ConvNets" (arXiv 1608.08710).
    """

    axis: int = -1
    size: int = 1
    norm: Norm = "rms"

    def __post_init__(self) -> None:
        for name, value in (("axis", self.axis), ("size", self.size)):
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(
                    f"{name} of Channel must be a whole number, got {value!r}"
                )
        if self.size < 1:
            raise ValueError(f"size of Channel must be at least 1, got {self.size}")
        _check_norm("Channel", self.norm)

    def scores(self, scores: jax.Array) -> jax.Array:
        """The norm of each channel, with the other axes at length 1."""
        return _scores(scores, self._lengths(scores.shape), self.norm)

    def sizes(self, shape: tuple[int, ...]) -> int | np.ndarray:
        """The number of weights of each channel."""
        return _sizes(shape, self._lengths(shape))

    def expand(self, groups: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Each weight's channel's entry."""
        return _expand(groups, shape, self._lengths(shape))

    def fits_part(self, shape: tuple[int, ...]) -> bool:
        """Whether a channel is a part of a leaf whatever the leaf is divided along."""
        return len(shape) == 1 and shape[0] % self.size == 0

    def fits_mesh(self, shape: tuple[int, ...], parts: tuple[int, ...]) -> bool:
        """Whether no group of `size` indices crosses from part to part."""
        return tiling.lie_within(shape, self._lengths(shape), parts)

    def _lengths(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        [axis] = _structure.normalized_axes([self.axis], shape)
        if shape[axis] % self.size:
            raise ValueError(
                f"size {self.size} does not divide the {shape[axis]} indices of axis "
                f"{self.axis}"
            )
        return tuple(self.size if i == axis else n for i, n in enumerate(shape))


def _check_norm(name: str, norm: Any) -> None:
    if norm not in get_args(Norm):
        raise ValueError(
            f"norm of {name} must be one of {get_args(Norm)}, got {norm!r}"
        )


def _sizes(shape: tuple[int, ...], lengths: Sequence[int]) -> int | np.ndarray:
    """How many weights blocks of some lengths have: one number if all are alike."""
    if all(n % max(min(n, b), 1) == 0 for n, b in zip(shape, lengths, strict=True)):
        return math.prod(min(n, b) for n, b in zip(shape, lengths, strict=True))
    sizes = np.ones((), np.uint32)
    for n, b in zip(shape, lengths, strict=True):
        sizes = np.multiply.outer(sizes, np.minimum(b, n - np.arange(0, n, b)))
    return sizes.astype(np.uint32)


def _scores(scores: jax.Array, lengths: Sequence[int], norm: Norm) -> jax.Array:
    """The norm of each block, shape (blocks along each axis)."""
    sizes = _sizes(scores.shape, lengths)
    split = tiling.split(scores, lengths)
    within = range(1, split.ndim, 2)
    if not isinstance(sizes, int):
        sizes = np.expand_dims(sizes, list(within))
    norms = axis_norms.group_norms(split, within, sizes, norm)
    return jnp.squeeze(norms, within)


def _expand(
    groups: jax.Array, shape: tuple[int, ...], lengths: Sequence[int]
) -> jax.Array:
    """Each weight's block's entry, in the shape of the leaf."""
    for axis, (n, b) in enumerate(zip(shape, lengths, strict=True)):
        if b > 1 and n > b:
            groups = jnp.repeat(groups, b, axis)
            groups = jax.lax.slice_in_dim(groups, 0, n, axis=axis)
    return jnp.broadcast_to(groups, shape)
