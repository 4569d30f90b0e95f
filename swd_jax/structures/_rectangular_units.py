"""`Rectangles`: units that are rectangular blocks of a leaf, scored by a norm."""

import abc
import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arguments.short_text import one_of, shown
from swd_jax._arrays import axis_norms, packed_masks, row_chunks, tiling
from swd_jax._arrays.axis_norms import Norm
from swd_jax._arrays.explicit_sharding import is_sharded
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
            units = _repeat(units, axis, n, length)
        return jnp.broadcast_to(units, shape)

    def for_tpu(self) -> "Rectangles":
        """Return the same units, scored in chunks; itself for a derived class."""
        is_derived = any(
            getattr(type(self), name) is not getattr(Rectangles, name)
            for name in ("scores", "expand", "unit_scores")
        )
        return self if is_derived else ChunkedRectangles(self, self.norm)

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


@dataclasses.dataclass(frozen=True, repr=False)
class ChunkedRectangles(Rectangles):
    """Rectangles for TPUs: scores of some rows at a time, and packed masks.

    XLA:TPU (libtpu 0.0.50) stores the tiles of a leaf and pads their short axes: for
    4 x 4 blocks a step took 5.8 times the weights' memory.
    """

    units: Rectangles
    norm: Norm

    def __repr__(self) -> str:
        return repr(self.units)

    def block_lengths(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return those of the units."""
        return self.units.block_lengths(shape)

    def fits_shard(self, shape: tuple[int, ...]) -> bool:
        """Whether the units fit."""
        return self.units.fits_shard(shape)

    def unit_scores(
        self,
        criterion: _criterion.Criterion,
        score_inputs: list[_criterion.ScoreInputs],
        dtype: jnp.dtype,
    ) -> list[jax.Array]:
        """Return the norms of each leaf's blocks."""
        return [self._scores_of(criterion, inputs, dtype) for inputs in score_inputs]

    def _scores_of(
        self,
        criterion: _criterion.Criterion,
        score_inputs: _criterion.ScoreInputs,
        dtype: jnp.dtype,
    ) -> jax.Array:
        leaf, _, _ = score_inputs

        def of_rows(rows: _criterion.ScoreInputs) -> jax.Array:
            [scores] = self.units.unit_scores(criterion, [rows], dtype)
            return scores

        rows_per_unit = self.block_lengths(leaf.shape)[packed_masks.row_axis(leaf)]
        return _unit_scores.map_rows(of_rows, criterion, score_inputs, rows_per_unit)

    def expand(self, units: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Return each weight's unit's entry. Masks are repeated as packed words."""
        if is_sharded(units) or 0 in shape:
            return self.units.expand(units, shape)
        lengths = self.block_lengths(shape)
        rows = packed_masks.rows_per_word(units)
        row_axis = packed_masks.row_axis(units)
        rows_of_unit = min(lengths[row_axis], shape[row_axis])
        is_even = shape[row_axis] % rows_of_unit == 0
        if units.dtype != bool or rows is None or not is_even:
            return self._expand_in_chunks(units, shape, rows_of_unit)
        words = row_chunks.map_rows(
            functools.partial(packed_masks.pack, rows=rows), units, rows
        )
        for axis, (n, length) in enumerate(zip(shape, lengths, strict=True)):
            if axis != row_axis:
                words = _repeat(words, axis, n, length)
        words = jax.lax.optimization_barrier(words)
        mask = packed_masks.unpack(words, shape, rows, repeats=rows_of_unit)
        return jnp.broadcast_to(mask, shape)

    def _expand_in_chunks(
        self, units: jax.Array, shape: tuple[int, ...], rows_of_unit: int
    ) -> jax.Array:
        """Return each weight's unit's entry, computed for some rows at a time.

        Args:
          units: an entry for each unit.
          shape: of the leaf.
          rows_of_unit: the number of rows of a unit.
        """
        row_axis = packed_masks.row_axis(units)

        def of_rows(units: jax.Array) -> jax.Array:
            rows = list(shape)
            rows[row_axis] = rows_of_unit * units.shape[row_axis]
            return self.units.expand(units, tuple(rows))

        growth = math.prod(shape) // units.size
        expanded = row_chunks.map_rows(of_rows, units, 1, growth=growth)
        return jax.lax.slice_in_dim(expanded, 0, shape[row_axis], axis=row_axis)


def _repeat(units: jax.Array, axis: int, n: int, length: int) -> jax.Array:
    """Repeat the entries of the units along an axis, up to n; 1 if a unit is longer."""
    if length == 1 or n <= length:
        return units
    return jax.lax.slice_in_dim(jnp.repeat(units, length, axis), 0, n, axis=axis)


def check_norm(class_name: str, norm: Any) -> None:
    """Raise if `norm` is no norm."""
    if norm not in get_args(Norm):
        raise ValueError(
            f"norm of {class_name} must be {one_of(get_args(Norm))}, got {shown(norm)}"
        )


def _block_sizes(shape: tuple[int, ...], lengths: Sequence[int]) -> int | np.ndarray:
    """Return the number of weights of each block, or one number if all are alike."""
    if all(n % max(min(n, b), 1) == 0 for n, b in zip(shape, lengths, strict=True)):
        return math.prod(min(n, b) for n, b in zip(shape, lengths, strict=True))
    sizes = np.ones((), np.uint32)
    for n, b in zip(shape, lengths, strict=True):
        sizes = np.multiply.outer(sizes, np.minimum(b, n - np.arange(0, n, b)))
    return sizes.astype(np.uint32)
