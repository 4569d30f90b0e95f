"""Names for types that the modules share."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ids: TypeAlias = NDArray[np.int64]
"""Atoms, or FIXED (-1), for positions of an array."""

Bools: TypeAlias = NDArray[np.bool_]

Ints: TypeAlias = NDArray[np.int64]

Dims: TypeAlias = tuple[int, ...]

Equation: TypeAlias = Any
"""A `jax.extend.core.JaxprEqn`."""
