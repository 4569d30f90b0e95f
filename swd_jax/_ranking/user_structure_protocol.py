"""`Structure`: the methods by which a structure divides a leaf into units."""

from typing import Protocol, runtime_checkable

import jax
import numpy as np


@runtime_checkable
class Structure(Protocol):
    """The units of a leaf that are pruned together. Write one as a frozen dataclass.

    A structure divides the weights of a leaf into units, which form an array of any
    shape. The unit with the lowest score is pruned first, with all of its weights.

    Two optional methods tell which sharded leaves a structure supports. Without
    `fits_shard`, a leaf that `axis_name` says is sharded is refused. Without
    `fits_mesh`, any sharding of a mesh in explicit mode is accepted.

    - `fits_shard(shape) -> bool`: inside `shard_map` or `pmap`, whether every unit lies
      within one shard, given the shape of a device's shard of the leaf.
    - `fits_mesh(shape, num_shards) -> bool`: on a mesh in explicit mode, whether every
      unit lies within one shard, given the leaf's shape and the number of shards along
      each of its axes.

    Examples:
      Rows and columns of a square kernel together: unit i is the cross through the
      i-th element of the diagonal, less the crosses before it.

      >>> import dataclasses, jax.numpy as jnp, numpy as np, swd_jax
      >>> @dataclasses.dataclass(frozen=True)
      ... class Corners:
      ...     def scores(self, scores):
      ...         n = scores.shape[0]
      ...         ring = jnp.minimum(*jnp.indices(scores.shape))
      ...         rings = [jnp.where(ring == i, scores, 0) for i in range(n)]
      ...         return jnp.stack([ring_scores.max() for ring_scores in rings])
      ...
      ...     def sizes(self, shape):
      ...         return np.arange(2 * shape[0] - 1, 0, -2, dtype=np.uint32)
      ...
      ...     def expand(self, units, shape):
      ...         return units[jnp.minimum(*jnp.indices(shape))]
      >>> kernel = jnp.array([[4.0, 4, 4], [4, 1, 1], [4, 1, 8]])
      >>> target = swd_jax.Target(0.4, structure=Corners())
      >>> print(swd_jax.prune({"kernel": kernel}, target)["kernel"])
      [[4. 4. 4.]
       [4. 0. 0.]
       [4. 0. 8.]]
    """

    def scores(self, scores: jax.Array) -> jax.Array:
        """Return the scores of the units, given those of a leaf's weights, all >= 0.

        A unit with a weight whose score is not finite should have a score that is not
        finite, so that it is never pruned.
        """
        ...

    def sizes(self, shape: tuple[int, ...]) -> int | np.ndarray:
        """Return the number of weights of each unit, or one number if all are alike.

        Unsigned 32-bit integers in the shape of the units, at least 1. Raise a
        `ValueError` that says why a leaf of this shape cannot be divided.
        """
        ...

    def expand(self, units: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Return each weight's unit's entry: from the shape of the units to `shape`."""
        ...
