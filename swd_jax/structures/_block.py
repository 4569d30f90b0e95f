"""`Block`: rectangular blocks of weights along the last axes of a leaf."""

import dataclasses

from swd_jax._arrays.axis_norms import Norm
from swd_jax.structures import _rectangular_units
from swd_jax.structures._rectangular_units import Rectangles


@dataclasses.dataclass(frozen=True)
class Block(Rectangles):
    """Rectangular blocks of weights that are pruned together.

    Args:
      shape: the shape of a block, along the last axes of a leaf, as NumPy aligns
        shapes: `Block((4, 4))` divides the inputs and outputs of every kernel of Flax
        and haiku, for each pixel of a convolution. (Equinox's convolutions are
        (outputs, inputs, window): `Block((4, 4, 1, 1))`.) None stands for a whole axis.
        Blocks at the far edge are smaller where the shape does not divide the leaf's;
        nothing is padded.
      norm: how a block's score follows from the scores of its weights: "rms", the root
        of the mean square; "l2", the root of the sum of squares; "mean" or "l1", the
        mean or the sum of the absolute values. A mean compares blocks of different
        sizes fairly; a sum favours large blocks.

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
        _rectangular_units.check_norm("Block", self.norm)

    def fits_shard(self, shape: tuple[int, ...]) -> bool:
        """Whether the blocks' lengths divide those of a shard."""
        return None not in self.shape and all(
            n % length == 0
            for n, length in zip(shape, self.block_lengths(shape), strict=True)
        )

    def block_lengths(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the length of a block along each axis of a leaf."""
        if len(shape) < len(self.shape):
            raise ValueError(f"a block of {self.shape} has more dimensions")
        missing = (1,) * (len(shape) - len(self.shape))
        lengths = (*missing, *self.shape)
        return tuple(n if b is None else b for n, b in zip(shape, lengths, strict=True))
