"""Arrays as entries of a file: whole, or as a mask and the nonzero values."""

from collections.abc import Iterable, Mapping

import numpy as np

_SPARSE_ENDINGS = (".mask", ".values", ".shape")
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


def decode(path: str, entries: Mapping[str, np.ndarray]) -> np.ndarray:
    """The array whose entries `encode` made."""
    if path in entries:
        array = entries[path]
    else:
        bits, values, shape = (entries[path + ending] for ending in _SPARSE_ENDINGS)
        size = int(np.prod(shape))
        array = np.zeros(size, values.dtype)
        array[np.unpackbits(bits, count=size) > 0] = values
        array = array.reshape(shape)
    name = path + _TYPE_ENDING
    return array.view(np.dtype(str(entries[name]))) if name in entries else array


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
