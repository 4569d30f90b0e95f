"""Errors of data: a file is missing, or its content is not what it should be."""

import lzma
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class MissingData(FileNotFoundError):
    """The data set is not in the folder."""


class BadFile(ValueError):
    """A file is damaged, or is not what its name promises."""


# Errors of the libraries on damaged files. Pillow raises `SyntaxError` on a PNG.
DAMAGE = (
    EOFError,
    IndexError,
    KeyError,
    OSError,
    SyntaxError,
    ValueError,
    lzma.LZMAError,
    pickle.UnpicklingError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


@contextmanager
def reading(source: Path | str) -> Iterator[None]:
    """Whatever goes wrong in here names the file."""
    try:
        yield
    except BadFile:
        raise  # it names a file already
    except DAMAGE as error:
        # Some say little without their names: KeyError('data').
        plain = isinstance(error, (ValueError, pickle.UnpicklingError))
        raise BadFile(f"{source}: {error if plain else repr(error)}") from error
