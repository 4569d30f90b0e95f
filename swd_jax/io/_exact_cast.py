"""Conversion of arrays to another type without a change of any number."""

from typing import Any, Literal

import jax
import numpy as np

Kind = Literal["bool", "integer", "real", "complex"]


def kind_of(dtype: Any) -> Kind | None:
    """The kind of numbers of a type; None if its values are no numbers."""
    # NumPy's own `kind` says "V" of most types of ml_dtypes: bfloat16, float8, int4.
    kinds: list[tuple[Kind, Any]] = [
        ("bool", np.bool_),
        ("integer", np.integer),
        ("real", np.floating),
        ("complex", np.complexfloating),
    ]
    for kind, family in kinds:
        if jax.numpy.issubdtype(dtype, family):
            return kind
    return None


def cast(array: np.ndarray, dtype: Any) -> np.ndarray | None:
    """The array in another type, or None if a number would change.

    NaN may become any NaN, and -0 may become 0.
    """
    dtype = np.dtype(dtype)
    if array.dtype == dtype:
        return array
    if kind_of(dtype) == "complex":
        return _complex(array, dtype)
    if kind_of(array.dtype) == "complex":
        return None if np.imag(array).any() else cast(np.real(array), dtype)
    # NumPy warns of numbers out of range, which `_are_equal` finds, and of NaN.
    with np.errstate(all="ignore"):
        wide = _widened(array)
        converted = wide.astype(dtype)
        return converted if _are_equal(_widened(converted), wide) else None


def _complex(array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray | None:
    """`cast` to a complex type: both parts by themselves, for one may be NaN."""
    converted = np.zeros(array.shape, dtype)
    part = np.real(converted).dtype
    is_complex = kind_of(array.dtype) == "complex"
    real = cast(np.real(array) if is_complex else array, part)
    imaginary = cast(np.imag(array), part) if is_complex else np.imag(converted)
    if real is None or imaginary is None:
        return None
    converted.real, converted.imag = real, imaginary
    return converted


def _widened(array: np.ndarray) -> np.ndarray:
    """The same numbers in the type that holds all of their kind: int64, float64."""
    if kind_of(array.dtype) != "real":
        return array.astype(np.uint64 if array.dtype == np.uint64 else np.int64)
    return array.astype(np.result_type(array.dtype, np.float64))


def _are_equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether widened arrays hold the same numbers. No comparison here rounds."""
    if one.dtype.kind == "f" and other.dtype.kind == "f":
        return bool(((one == other) | (np.isnan(one) & np.isnan(other))).all())
    if one.dtype.kind == "f":
        return _are_equal(other, one)
    if other.dtype.kind == "f":
        # C does not define the conversion of a number out of range: ARM saturates.
        limits = np.iinfo(one.dtype)
        inside = (other >= float(limits.min)) & (other < float(limits.max))
        if not (inside & (other == np.trunc(other))).all():
            return False
        other = other.astype(one.dtype)
    return bool((one == other).all())  # NumPy compares int64 with uint64 by value
