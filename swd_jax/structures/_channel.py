"""`Channel`: the slices of each leaf along an axis, such as filters, rows or heads."""

import dataclasses

from swd_jax._arrays.axis_norms import Norm
from swd_jax.structures import _rectangular_units
from swd_jax.structures._leaf_structure import normalize_axis
from swd_jax.structures._rectangular_units import Rectangles


@dataclasses.dataclass(frozen=True)
class Channel(Rectangles):
    """All weights at an index along an axis: filters, rows, columns, heads.

    Args:
      axis: the axis whose indices are units. By default the last: the outputs of a
        dense or convolution kernel in Flax and haiku, so that units are its filters; -2
        for its inputs. In Equinox the outputs come first: give 0 for the filters of its
        `Linear` and its convolutions.
      size: the number of consecutive indices that make up a unit: the size of a head,
        where the axis has heads * size indices.
      norm: as for `Block`.

    The target counts weights, not channels, and is met to within one channel. Each leaf
    has channels of its own: a filter's bias and the next layer's inputs are not pruned
    with the filter. `CoupledChannels` prunes them together.

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
        _rectangular_units.check_norm("Channel", self.norm)

    def fits_shard(self, shape: tuple[int, ...]) -> bool:
        """Whether a channel is within a shard whichever axis the leaf is sharded on."""
        return len(shape) == 1 and shape[0] % self.size == 0

    def block_lengths(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the length of a channel along each axis of a leaf."""
        axis = normalize_axis(self.axis, shape)
        if shape[axis] % self.size:
            raise ValueError(
                f"size {self.size} does not divide the {shape[axis]} indices of axis "
                f"{self.axis}"
            )
        return tuple(self.size if i == axis else n for i, n in enumerate(shape))
