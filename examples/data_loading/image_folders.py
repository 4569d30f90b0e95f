"""Pictures in folders, `train/<class>/*.jpg` and `test/<class>/*.jpg`, or in a tar.

The classes are labelled in alphabetical order, and the images sorted by class and file
name, so that a folder and an archive of it give the same arrays.
"""

import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from PIL import Image

from data_loading.cache import cached
from data_loading.dataset import Images
from data_loading.errors import BadFile, reading

PARTS = ("train", "test")
ENDINGS = (".jpg", ".jpeg", ".png")


def read(name: str, source: Path, classes: int, cache: Path | None) -> Images:
    """The images of a folder that contains `train` and `test`, or of an archive."""
    file = None if cache is None else cache / f"{name}.npz"
    arrays = cached(file, _fingerprint(source), lambda: _decode(source, classes))
    with reading(source):
        return Images(name=name, classes=classes, **arrays)


def _fingerprint(source: Path) -> str:
    """Changes when files are added, removed, renamed or written again."""
    files = [source] if source.is_file() else list(_files(source))
    stats = [file.stat() for file in files]
    sizes = [
        f"{file.relative_to(source.parent).as_posix()} {stat.st_size}"
        for file, stat in zip(files, stats, strict=True)
    ]
    newest = max((stat.st_mtime_ns for stat in stats), default=0)
    digest = hashlib.sha256("\n".join(sizes).encode()).hexdigest()
    return f"{len(files)} files, newest {newest}, {digest}"


def _is_picture(path: PurePosixPath | Path) -> bool:
    return (
        len(path.parts) >= 3
        and path.parts[-3] in PARTS
        and path.suffix.lower() in ENDINGS
        and not path.name.startswith(".")  # macOS leaves such files next to others
    )


def _files(folder: Path) -> Iterator[Path]:
    for part in PARTS:
        for path in sorted((folder / part).glob("*/*")):
            if _is_picture(path) and path.is_file():
                yield path


def _pictures(source: Path) -> Iterator[tuple[PurePosixPath, BinaryIO]]:
    if source.is_dir():
        for path in _files(source):
            with path.open("rb") as file:
                yield PurePosixPath(path.relative_to(source).as_posix()), file
        return
    # As a stream, in whatever order: going back would unpack all from the beginning.
    with tarfile.open(source, "r|*") as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            if member.isfile() and _is_picture(path):
                file = archive.extractfile(member)
                assert file is not None  # it is for what is no file
                yield path, file


def _decode(source: Path, classes: int) -> dict[str, np.ndarray]:
    found: dict[str, list[tuple[str, str, np.ndarray]]] = {part: [] for part in PARTS}
    shape = None
    with reading(source):
        for path, file in _pictures(source):
            with reading(f"{source}: {path}"), Image.open(file) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            shape = shape or pixels.shape
            if pixels.shape != shape:
                raise BadFile(f"{source}: {path}: {pixels.shape}, others are {shape}")
            part, label, name = path.parts[-3:]
            found[part].append((label, name, pixels))
    arrays = {}
    names = sorted({label for label, _, _ in found["train"]})
    for part, pictures in found.items():
        here = sorted({label for label, _, _ in pictures})
        if len(here) != classes:
            raise BadFile(
                f"{source}: {part} has pictures in {len(here)} class folders, "
                f"not in {classes}"
            )
        if here != names:
            raise BadFile(f"{source}: train and test have different class folders")
        pictures.sort(key=lambda picture: picture[:2])
        labels = [names.index(label) for label, _, _ in pictures]
        arrays[f"{part}_images"] = np.stack([pixels for _, _, pixels in pictures])
        arrays[f"{part}_labels"] = np.array(labels, np.int32)
    return arrays
