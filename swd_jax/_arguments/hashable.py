"""Numbers in a form that can be hashed and compared."""

from typing import Any

import jax
import numpy as np
from jax.core import Tracer


def hashable_number(value: Any) -> Any:
    """Convert a concrete array scalar to a NumPy scalar of the same dtype.

    Arrays of JAX and NumPy cannot be hashed, NumPy scalars can, and they print as the
    same decimal. Schedules, tracers and numbers of Python are returned unchanged.
    """
    if isinstance(value, Tracer) or not isinstance(value, jax.Array | np.ndarray):
        return value
    return np.asarray(value)[()]


def whole_number(value: Any) -> Any:
    """Convert a concrete whole number of any type to an int; tracers stay."""
    return value if isinstance(value, Tracer) else int(value)
