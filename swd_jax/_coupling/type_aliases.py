"""Type aliases that the modules of the channel analysis share."""

from typing import Any, TypeAlias

import numpy as np

AtomIds: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
"""Atoms of an array's positions; `union_find.NOT_REMOVABLE` (-1) for the others."""

Bools: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

Dims: TypeAlias = tuple[int, ...]

Equation: TypeAlias = Any
"""A `jax.extend.core.JaxprEqn`."""
