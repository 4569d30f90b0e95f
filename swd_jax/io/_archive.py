"""Arrays in an `.npz` file: written whole or not at all, and checked when read."""

import contextlib
import io
import os
import secrets
import shutil
import zipfile
from collections.abc import Generator, Iterator, Mapping
from typing import BinaryIO

import numpy as np

_ENDING = ".npy"


def write(file: str, entries: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name to a file.

    They go to a file beside it, which then takes its place: after an error or a kill
    there is the old file or the new one.

    Raises:
      OSError: if it cannot be written, naming the file.
    """
    file = os.path.realpath(file)  # of a link, what it points to
    partial = os.path.join(
        os.path.dirname(file), f".{secrets.token_hex(8)}.npz.partial"
    )
    try:
        with open(partial, "xb") as stream:
            if os.path.exists(file):
                shutil.copymode(file, partial)
            _write(stream, entries)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, file)
    except OSError as error:
        kept = ", and the file that was there is unchanged"
        problem = f"{error.strerror or error}: nothing was written"
        problem += kept if os.path.exists(file) else ""
        raise OSError(error.errno, problem, file) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(partial)


def _write(stream: BinaryIO, entries: Mapping[str, np.ndarray]) -> None:
    # numpy.savez_compressed takes the names as keyword arguments, and so does not
    # accept "file" and "allow_pickle".
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, entry in entries.items():
            with archive.open(name + _ENDING, "w", force_zip64=True) as part:
                np.lib.format.write_array(part, entry, allow_pickle=False)


def has_entry_name(name: str) -> bool:
    """Whether a zip archive can have an entry of this name."""
    return zipfile.ZipInfo(name + _ENDING).filename == name + _ENDING


@contextlib.contextmanager
def read(file: str) -> Generator[Mapping[str, np.ndarray]]:
    """The arrays of a file by name, each read when it is asked for.

    Raises:
      OSError: if there is no such file, or it cannot be read.
      ValueError: if it is no `.npz` file; and when an array is asked for that is
        damaged, or that only pickle could read.
    """
    with open(file, "rb") as stream:
        try:
            archive = zipfile.ZipFile(stream)
        # zipfile raises errors of many types where a file is damaged.
        except Exception as error:
            raise ValueError(
                f"{file!r} is no .npz file, or only a part of one: {error}"
            ) from error
        with archive:
            yield _Entries(archive)


class _Entries(Mapping[str, np.ndarray]):
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._files = {name.removesuffix(_ENDING): name for name in archive.namelist()}

    def __getitem__(self, name: str) -> np.ndarray:
        file = self._files[name]
        try:
            # Read to the end, where zipfile compares the checksum.
            stream = io.BytesIO(self._archive.read(file))
            array = np.lib.format.read_array(stream, allow_pickle=False)
        except MemoryError:
            raise
        # zipfile and NumPy, which parses the header and runs nothing, do so here.
        except Exception as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        if stream.read(1):
            raise ValueError("there are bytes after the end of the array")
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)
