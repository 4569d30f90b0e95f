"""Pickles that come from elsewhere, read without letting them run anything.

A pickle names functions that loading calls, so one that was made for it runs whatever
its author likes. This reads arrays of numbers, sparse matrices and plain containers, by
a list of their names, and refuses all else.
"""

import io
import math
import operator
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from data_loading.errors import reading


class SparseRows:
    """Stands in for SciPy's csr_matrix, whose attributes it gets (see `vars`)."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Without this method, a pickle could set attributes of the class as well.
        vars(self).update(state)


def _latin1(text: str, encoding: str) -> bytes:
    """Make bytes, as pickles of old protocols do by `codecs.encode`."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


# NumPy's own constructors (2.4) protect nobody: `numpy.ndarray((1,), "O", 8 * b"A")`
# reads an object at the address AAAAAAAA, and so does an array of `numpy.dtype("O")`
# once its state says that it holds no objects.


class _Type:
    """Stands in for `numpy.dtype`, of numbers only."""

    __slots__ = ("dtype",)

    def __init__(self, name: str, align: bool = False, copy: bool = False) -> None:
        del align, copy
        dtype = np.dtype(name)
        if not isinstance(name, str) or dtype.kind not in "biufc":
            raise pickle.UnpicklingError(f"refused, because it has arrays of {name!r}")
        self.dtype = dtype

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take the order of the bytes, the one part of the state that numbers have."""
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array that takes numbers only as its state."""

    def __setstate__(self, state: tuple[Any, ...], /) -> None:
        _, shape, stored, is_fortran, content = state
        super().__setstate__(
            (1, *_checked(content, stored, shape), bool(is_fortran), _bytes(content))
        )


def _bytes(content: Any) -> bytes:
    # Python 2 has bytes as text, which is decoded as latin1.
    return content.encode("latin1") if isinstance(content, str) else bytes(content)


def _checked(content: Any, stored: Any, shape: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array, if the bytes are as many."""
    if not isinstance(stored, _Type) or not isinstance(
        content, (bytes, bytearray, str)
    ):
        raise pickle.UnpicklingError("refused, because it has arrays of objects")
    sizes = tuple(operator.index(size) for size in shape)
    size = math.prod(sizes) * stored.dtype.itemsize
    if min(sizes, default=0) < 0 or size != len(content):
        raise pickle.UnpicklingError(f"damaged, {len(content)} bytes for {sizes}")
    return sizes, stored.dtype


def _empty_array(*arguments: Any) -> _Array:
    """Stands in for `_reconstruct`: the state that follows says what the array is."""
    del arguments
    return np.ndarray.__new__(_Array, 0)


def _array_of_buffer(content: Any, stored: Any, shape: Any, order: str) -> np.ndarray:
    sizes, dtype = _checked(content, stored, shape)
    return np.frombuffer(content, dtype).reshape(
        sizes, order="F" if order == "F" else "C"
    )


def _scalar(stored: Any, content: Any) -> np.generic:
    _, dtype = _checked(content, stored, ())
    return np.frombuffer(_bytes(content), dtype)[0]


_ALLOWED = {
    ("_codecs", "encode"): _latin1,
    ("collections", "defaultdict"): defaultdict,
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): "the argument of _reconstruct",
    ("scipy.sparse.csr", "csr_matrix"): SparseRows,
    ("scipy.sparse._csr", "csr_matrix"): SparseRows,
    **{
        ("builtins", kind.__name__): kind
        for kind in (
            *(bool, bytearray, bytes, complex, dict, float, frozenset, int, list),
            *(set, str, tuple),
        )
    },
    # NumPy 2 calls the package `_core`.
    **{
        (f"numpy.{core}.{module}", function): value
        for core in ("core", "_core")
        for module, function, value in (
            ("multiarray", "_reconstruct", _empty_array),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _array_of_buffer),
        )
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "__builtin__":  # its name in Python 2
            module = "builtins"
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"refused, because it asks for {module}.{name}"
            ) from None


def unpickle(content: bytes, source: Path | str) -> Any:
    """The content of a pickle of Python 2 or 3; an error names the source."""
    with reading(source):
        try:
            # Python 2 did not tell text from bytes; latin1 keeps both.
            return _Unpickler(io.BytesIO(content), encoding="latin1").load()
        except pickle.UnpicklingError:
            raise
        # A damaged pickle can ask for anything, so anything can come of it.
        except Exception as error:
            raise pickle.UnpicklingError(f"damaged, {error!r}") from error
