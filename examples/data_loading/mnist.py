"""MNIST, in one of the formats

- the four idx files of its authors, packed or not, in the folder, in `mnist` or in
  `MNIST/raw` (where torchvision keeps them),
- `mnist.npz` of Keras,
- an npz of any name `mnist*.npz` with `images` and `labels` and no split of its own.
"""

import gzip
import math
from pathlib import Path

import numpy as np

from data_loading.dataset import Images, as_labels
from data_loading.errors import BadFile, reading
from data_loading.search import Search

SOURCE = (
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz, "
    "or the idx files from https://storage.googleapis.com/cvdf-datasets/mnist/"
)
PARTS = ("train", "t10k")
IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
# The four bytes at the beginning: uint8 numbers (8) in so many dimensions (3, 1).
MAGIC = {3: 0x00000803, 1: 0x00000801}


def read(name: str, search: Search, cache: Path | None) -> Images | None:
    del cache
    idx = [f"{part}-{kind}" for part in PARTS for kind in (IMAGES, LABELS)]
    files = search.files(["", "mnist", "MNIST/raw"], idx, endings=["", ".gz"])
    if files is not None:
        train, test = (
            _read_pair(files[f"{part}-{IMAGES}"], files[f"{part}-{LABELS}"])
            for part in PARTS
        )
        with reading(files[idx[0]].parent):
            return Images(name, *train, *test, classes=10)
    path = search.matching(["", "mnist"], ["mnist.npz", "mnist*.npz"])
    return None if path is None else _read_npz(name, path)


def _read_pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    pixels, classes = _read_idx(images, dimensions=3), _read_idx(labels, dimensions=1)
    if len(pixels) != len(classes):
        raise BadFile(
            f"{labels}: {len(classes)} labels for the {len(pixels)} images "
            f"of {images.name}"
        )
    return pixels[..., None], as_labels(classes)


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    opened = gzip.open if path.suffix == ".gz" else open
    with reading(path), opened(path, "rb") as file:
        content = file.read()
    magic = int.from_bytes(content[:4], "big")
    if magic != MAGIC[dimensions]:
        raise BadFile(
            f"{path}: begins with 0x{magic:08x} instead of "
            f"0x{MAGIC[dimensions]:08x}, so it is not the idx file of its name"
        )
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise BadFile(f"{path}: truncated, only {len(content)} bytes")
    shape = np.frombuffer(content, ">u4", dimensions, offset=4).tolist()
    expected = header + math.prod(shape)
    if len(content) != expected:
        problem = "truncated" if len(content) < expected else "too long"
        raise BadFile(
            f"{path}: {problem}, {len(content)} bytes where {shape} needs {expected}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _read_npz(name: str, path: Path) -> Images:
    with (
        reading(path),
        path.open("rb") as file,  # np.load forgets to close one that is damaged
        np.load(file, allow_pickle=False) as archive,
    ):
        if {"x_train", "y_train", "x_test", "y_test"} <= set(archive.files):
            return Images(
                name,
                archive["x_train"][..., None],
                as_labels(archive["y_train"]),
                archive["x_test"][..., None],
                as_labels(archive["y_test"]),
                classes=10,
            )
        if {"images", "labels"} <= set(archive.files):
            images, labels = archive["images"][..., None], archive["labels"]
            return _split(name, images, as_labels(labels))
        raise BadFile(
            f"{path}: has {', '.join(archive.files)}, but neither x_train, y_train, "
            "x_test and y_test nor images and labels"
        )


def _split(name: str, images: np.ndarray, labels: np.ndarray) -> Images:
    """The first four fifths for training. The name says that this is not all."""
    if len(images) != len(labels):
        raise ValueError(f"{len(labels)} labels for the {len(images)} images")
    count, train = len(images), len(images) * 4 // 5
    size = f"{count // 1000}k" if count % 1000 == 0 else f"{count:,}"
    return Images(
        f"{name}-{size} ({train:,}/{count - train:,})",
        images[:train],
        labels[:train],
        images[train:],
        labels[train:],
        classes=10,
    )
