"""CIFAR-10 and CIFAR-100, in one of the formats

- the python batches of its authors, as a folder or in the tar.gz as it comes,
- folders of pictures, `train/<class>/*.jpg` and `test/<class>/*.jpg` (jpeg, png),
- a tar of such folders, named `cifar10*.tar`, `.tar.gz` or `.tar.xz`.
"""

import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from data_loading import image_folders
from data_loading.dataset import Images, as_labels
from data_loading.errors import BadFile, reading
from data_loading.pickles import unpickle
from data_loading.search import Search

SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html (the python version)"


class _Batches(NamedTuple):
    folder: str
    archive: str
    train: list[str]
    test: list[str]
    labels: str
    classes: int


BATCHES = {
    "cifar10": _Batches(
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        train=[f"data_batch_{number}" for number in range(1, 6)],
        test=["test_batch"],
        labels="labels",
        classes=10,
    ),
    "cifar100": _Batches(
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        train=["train"],
        test=["test"],
        labels="fine_labels",
        classes=100,
    ),
}


def read(name: str, search: Search, cache: Path | None) -> Images | None:
    batches = BATCHES[name]
    places = ["", name]
    folders = [batches.folder, f"{name}/{batches.folder}"]
    files = search.files(folders, batches.train + batches.test)
    if files is not None:
        contents = {file: path.read_bytes() for file, path in files.items()}
        folder = files[batches.train[0]].parent
        return _read_batches(name, batches, contents, folder)
    archive = search.matching(places, [batches.archive])
    if archive is not None:
        return _read_batches(name, batches, _unpack(archive, batches), archive)
    # No digit after the name: cifar100.tar is none of cifar10's. The folder itself
    # comes last, because its train and test may well be another data set's.
    source = (
        search.folder_with([name], image_folders.PARTS)
        or search.matching(places, [f"{name}[!0-9]*"], [".tar", ".tar.gz", ".tar.xz"])
        or search.folder_with([""], image_folders.PARTS)
    )
    if source is None:
        return None
    return image_folders.read(name, source, batches.classes, cache)


def _unpack(path: Path, batches: _Batches) -> dict[str, bytes]:
    """The batches in an archive, read in its order and not written anywhere."""
    wanted, contents = batches.train + batches.test, {}
    with reading(path), tarfile.open(path, "r|*") as archive:
        for member in archive:
            name = PurePosixPath(member.name).name
            file = archive.extractfile(member) if name in wanted else None
            if file is not None:
                contents[name] = file.read()
    missing = [name for name in wanted if name not in contents]
    if missing:
        raise BadFile(f"{path}: lacks {', '.join(missing)}")
    return contents


def _read_batches(
    name: str, batches: _Batches, contents: Mapping[str, bytes], source: Path
) -> Images:
    train, test = (
        [_read_batch(contents[file], batches.labels, source / file) for file in files]
        for files in (batches.train, batches.test)
    )
    with reading(source):
        return Images(
            name,
            np.concatenate([images for images, _ in train]),
            np.concatenate([labels for _, labels in train]),
            np.concatenate([images for images, _ in test]),
            np.concatenate([labels for _, labels in test]),
            batches.classes,
        )


def _read_batch(
    content: bytes, labels_key: str, source: Path
) -> tuple[np.ndarray, np.ndarray]:
    batch = unpickle(content, source)
    with reading(source):
        if not isinstance(batch, dict):
            raise ValueError(f"not a dictionary, but {type(batch).__name__}")
        pixels, labels = np.asarray(batch["data"]), as_labels(batch[labels_key])
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3 * 32 * 32):
            raise ValueError(
                f"data is {pixels.dtype}{pixels.shape} for {len(labels)} labels"
            )
    # Each row is an image: all of its red, then all green, then all blue.
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels
