"""Pickles that come from elsewhere, read without letting them run anything.

A pickle names functions that loading calls, so one that was made for it runs whatever
its author likes. This reads arrays, sparse matrices and plain containers, by a list of
their names, and refuses all else.
"""

import io
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from data_loading.errors import reading


class SparseRows:
    """Stands in for SciPy's csr_matrix, whose attributes it gets (see `vars`)."""


def _latin1(text: str, encoding: str) -> bytes:
    """Make bytes, as pickles of old protocols do by `codecs.encode`."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


# Which functions build an array differs between versions of NumPy: it tells itself.
_ARRAY = np.zeros(1).__reduce__()[0]
_ARRAY_OF_BUFFER = np.zeros(1).__reduce_ex__(5)[0]
_SCALAR = np.float64(0).__reduce__()[0]
_ALLOWED = {
    ("_codecs", "encode"): _latin1,
    ("collections", "defaultdict"): defaultdict,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("scipy.sparse.csr", "csr_matrix"): SparseRows,
    ("scipy.sparse._csr", "csr_matrix"): SparseRows,
    **{
        ("builtins", kind.__name__): kind
        for kind in (bool, bytearray, bytes, complex, dict, float, int, list)
    },
    **{("builtins", kind.__name__): kind for kind in (frozenset, set, str, tuple)},
    **{
        (f"numpy.{core}.{module}", function): value
        for core in ("core", "_core")
        for module, function, value in (
            ("multiarray", "_reconstruct", _ARRAY),
            ("multiarray", "scalar", _SCALAR),
            ("numeric", "_frombuffer", _ARRAY_OF_BUFFER),
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
