"""Conversion of arrays to another type without a change of any number."""

import warnings
from typing import Any

import numpy as np


def cast(array: np.ndarray, dtype: Any) -> np.ndarray | None:
    """The array in another type, or None if a number would change.

    NaN may become any NaN.
    """
    dtype = np.dtype(dtype)
    if array.dtype == dtype:
        return array
    # NumPy warns of numbers out of range and of imaginary parts that are dropped.
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = array.astype(dtype)
        returned = converted.astype(array.dtype)
    # NaN is the only number that differs from itself; `np.isnan` takes no integers.
    nan = np.not_equal(returned, returned) & np.not_equal(array, array)
    same = (returned == array) | nan
    if array.dtype.kind in "iu" and dtype.kind in "iu":
        # -1 as int8 is 255 as uint8 and comes back as -1.
        same &= (converted < 0) == (array < 0)
    return converted if same.all() else None
