"""Caps: the most weights that each leaf may lose, from what `min_kept` keeps of it."""

from collections.abc import Sequence

import numpy as np

from swd_jax._arrays import uint64
from swd_jax._arrays.exact_sums import Cost


def leaf_caps(
    leaf_sizes: Sequence[int], min_kept: Sequence[int], unit_sizes: Sequence[Cost]
) -> np.ndarray:
    """Return the cap of each leaf: emulated uint64, shape (leaves, 4).

    Units are pruned whole, so a cap is rounded down to a multiple of their size where
    all units of a leaf have one size.

    Args:
      leaf_sizes: the number of weights of each leaf.
      min_kept: the number of weights that each leaf keeps at least.
      unit_sizes: the number of weights of each leaf's units; None for 1.
    """
    caps = []
    for leaf_size, minimum, unit_size in zip(
        leaf_sizes, min_kept, unit_sizes, strict=True
    ):
        cap = max(leaf_size - minimum, 0)
        if isinstance(unit_size, int):
            cap -= cap % max(unit_size, 1)
        caps.append(uint64.from_int(cap))
    return np.stack(caps)
