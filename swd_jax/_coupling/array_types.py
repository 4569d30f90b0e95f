"""Names for types that the modules share."""

from typing import Any, TypeAlias

import numpy as np

Ids: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
"""Atoms, or FIXED (-1), for positions of an array."""

Bools: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

Dims: TypeAlias = tuple[int, ...]

Equation: TypeAlias = Any
"""A `jax.extend.core.JaxprEqn`."""
