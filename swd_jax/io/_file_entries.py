"""Arrays as entries of a file: whole, or as a mask and the nonzero values."""

import math
from collections.abc import Iterable, Mapping

import numpy as np

_SHAPE_ENDING = ".shape"
_SPARSE_ENDINGS = (".mask", ".values", _SHAPE_ENDING)
_TYPE_ENDING = ".dtype"
ENDINGS = (*_SPARSE_ENDINGS, _TYPE_ENDING)
"""Endings of the entries that are no array of the tree."""


def encode(path: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """The entries of an array, by name: the smaller of the two forms."""
    entries: dict[str, np.ndarray] = {}
    nonzero = array != 0
    # 2 is a user-defined type: those of ml_dtypes (bfloat16, float8, int4).
    if array.dtype.isbuiltin == 2:
        entries[path + _TYPE_ENDING] = np.array(array.dtype.name)
        array = array.view(f"u{array.dtype.itemsize}")
    bits, values = np.packbits(nonzero.ravel()), array[nonzero]
    if values.nbytes + bits.nbytes < array.nbytes:
        parts = bits, values, np.array(array.shape, np.int64)
        names = (path + ending for ending in _SPARSE_ENDINGS)
        return entries | dict(zip(names, parts, strict=True))
    return entries | {path: array}


def parts(path: str, entries: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The entries of one array, each read once."""
    names = (path, *(path + ending for ending in ENDINGS))
    if path in entries:
        names = (path, path + _TYPE_ENDING)
    return {name: entries[name] for name in names if name in entries}


def shape(path: str, entries: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    """The shape of an array, from its entries."""
    if path in entries:
        return entries[path].shape
    numbers = entries[path + _SHAPE_ENDING]
    if numbers.dtype != np.int64 or numbers.ndim != 1 or (numbers < 0).any():
        raise ValueError(f"{path + _SHAPE_ENDING!r} is no shape")
    return tuple(numbers.tolist())


def decode(path: str, entries: Mapping[str, np.ndarray]) -> np.ndarray:
    """The array whose entries `encode` made.

    Raises:
      ValueError: if the entries are not such ones, naming what is wrong with them.
    """
    if path in entries:
        array = entries[path]
    else:
        array = _dense(path, entries)
    name = path + _TYPE_ENDING
    return array if name not in entries else _of_type(array, str(entries[name]))


def _dense(path: str, entries: Mapping[str, np.ndarray]) -> np.ndarray:
    """The array of a mask and the nonzero values."""
    bits, values = (entries[path + ending] for ending in _SPARSE_ENDINGS[:2])
    dimensions = shape(path, entries)
    size = math.prod(dimensions)
    if bits.dtype != np.uint8 or bits.shape != (-(-size // 8),):
        raise ValueError(f"the mask has {bits.size} bytes for {size} weights")
    is_nonzero = np.unpackbits(bits, count=size).view(bool)
    if values.shape != (np.count_nonzero(is_nonzero),):
        raise ValueError(
            f"the mask has {np.count_nonzero(is_nonzero)} nonzero weights, and "
            f"{values.size} values are there"
        )
    array = np.zeros(size, values.dtype)
    array[is_nonzero] = values
    return array.reshape(dimensions)


def _of_type(bits: np.ndarray, name: str) -> np.ndarray:
    """The array of a type of ml_dtypes that is stored as unsigned integers."""
    try:
        dtype = np.dtype(name)
    except TypeError:
        raise ValueError(
            f"the type {name!r} is unknown here: a newer ml_dtypes may have it"
        ) from None
    if dtype.isbuiltin != 2 or bits.dtype != f"u{dtype.itemsize}":
        raise ValueError(f"{bits.dtype} numbers are no {name}")
    return bits.view(dtype)


def array_paths(names: Iterable[str]) -> set[str]:
    """The paths of the arrays whose entries have these names."""
    names = set(names)
    sparse = {
        stem
        for stem in (name.removesuffix(_SPARSE_ENDINGS[0]) for name in names)
        if stem not in names and all(stem + e in names for e in _SPARSE_ENDINGS)
    }
    parts = {stem + ending for stem in sparse for ending in _SPARSE_ENDINGS}
    paths = (names - parts) | sparse
    return paths - {path + _TYPE_ENDING for path in paths}
