"""`Rectangles`: units that are rectangular blocks of a leaf, scored by a norm."""

import abc
import math
from collections.abc import Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import axis_norms, tiling
from swd_jax._arrays.axis_norms import Norm
from swd_jax.criteria import _criterion
from swd_jax.structures import _unit_scores
from swd_jax.structures._leaf_structure import LeafStructure


class Rectangles(LeafStructure):
    """Units that are the blocks of a grid over the leaf, with one length per axis."""

    norm: Norm

    @abc.abstractmethod
    def block_lengths(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the length of a block along each axis of a leaf.

        Raises:
          ValueError: if a leaf of this shape cannot be divided.
        """

    def scores(self, scores: jax.Array) -> jax.Array:
        """Return the norm of each block, shape (blocks along each axis)."""
        lengths = self.block_lengths(scores.shape)
        sizes = _block_sizes(scores.shape, lengths)
        tiles = tiling.tile(scores, lengths)
        within_tile = range(1, tiles.ndim, 2)
        if not isinstance(sizes, int):
            sizes = np.expand_dims(sizes, list(within_tile))
        norms = axis_norms.norms_along_axes(tiles, within_tile, sizes, self.norm)
        return jnp.squeeze(norms, within_tile)

    def sizes(self, shape: tuple[int, ...]) -> int | np.ndarray:
        """Return the number of weights of each block."""
        return _block_sizes(shape, self.block_lengths(shape))

    def expand(self, units: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Return each weight's block's entry."""
        lengths = self.block_lengths(shape)
        for axis, (n, length) in enumerate(zip(shape, lengths, strict=True)):
            if length > 1 and n > length:
                units = jnp.repeat(units, length, axis)
                units = jax.lax.slice_in_dim(units, 0, n, axis=axis)
        return jnp.broadcast_to(units, shape)

    def fits_mesh(self, shape: tuple[int, ...], num_shards: tuple[int, ...]) -> bool:
        """Whether no block shorter than its axis crosses the boundary of a shard."""
        return tiling.tiles_fit_shards(shape, self.block_lengths(shape), num_shards)

    def unit_scores(
        self,
        criterion: _criterion.Criterion,
        score_inputs: list[_criterion.ScoreInputs],
        dtype: jnp.dtype,
    ) -> list[jax.Array]:
        """Return the norms of each leaf's blocks."""
        return _unit_scores.unit_scores(
            self,
            criterion,
            score_inputs,
            dtype,
            # A class that overrides `scores` may need scores of at least 0.
            ignores_sign=type(self).scores is Rectangles.scores,
        )


def check_norm(class_name: str, norm: Any) -> None:
    """Raise if `norm` is no norm."""
    if norm not in get_args(Norm):
        raise ValueError(
            f"norm of {class_name} must be one of {get_args(Norm)}, got {norm!r}"
        )


def _block_sizes(shape: tuple[int, ...], lengths: Sequence[int]) -> int | np.ndarray:
    """Return the number of weights of each block, or one number if all are alike."""
    if all(n % max(min(n, b), 1) == 0 for n, b in zip(shape, lengths, strict=True)):
        return math.prod(min(n, b) for n, b in zip(shape, lengths, strict=True))
    sizes = np.ones((), np.uint32)
    for n, b in zip(shape, lengths, strict=True):
        sizes = np.multiply.outer(sizes, np.minimum(b, n - np.arange(0, n, b)))
    return sizes.astype(np.uint32)
