"""Files that are written whole or not at all, and folders with one writer."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ModuleNotFoundError:  # Windows has no such locks
    fcntl = None


class Busy(OSError):
    """Another program writes to the folder."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` once the block has ended.

    After an error or a kill there is the old file or the new one.

    Raises:
      OSError: if it cannot be written, for example on a full disk, naming the file.
    """
    path = path.resolve()  # of a link, what it points to
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        with partial.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except OSError as error:
        problem = f"{error.strerror or error}: the file could not be written"
        raise OSError(error.errno, problem, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def write(path: Path, text: str) -> None:
    """Write a text in place of what is at `path`."""
    with writing(path) as stream:
        stream.write(text.encode())


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a lock of the folder, which ends with the block or with the process.

    Raises:
      Busy: if another process holds it.
    """
    with (folder / ".lock").open("wb") as stream:
        if fcntl is not None:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(
                    f"another program writes to {folder}. Wait for its end, or name "
                    "another folder"
                ) from None
            except OSError:
                pass  # some network file systems have no locks
        yield
