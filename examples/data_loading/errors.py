"""What can be wrong with data: it is not there, or it is not what it should be."""

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


# What the libraries raise on damaged files. `SyntaxError` is Pillow's, on a PNG.
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
