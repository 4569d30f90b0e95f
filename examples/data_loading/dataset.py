"""Data sets: images, text, graphs and a picture, checked once for all later code.

`held_out` of each is what settings are chosen with: a part of the training data is kept
out of training and takes the place of the test data, which nobody then has looked at.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np


def as_labels(labels: Any) -> np.ndarray:
    """The labels in int32, whatever kind of integers they come as."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"labels are whole numbers, but these are {labels.dtype}")
    return labels.astype(np.int32)


def _check_labels(what: str, labels: np.ndarray, classes: int) -> None:
    if labels.ndim != 1 or labels.dtype != np.int32:
        raise ValueError(f"{what} labels are {labels.dtype}{labels.shape}, not int32")
    if labels.size == 0:
        raise ValueError(f"no {what} labels")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"{what} labels go from {labels.min()} to {labels.max()}, "
            f"but {classes} classes have the labels 0 to {classes - 1}"
        )


@dataclass(frozen=True, eq=False)
class Images:
    """Pictures of one size, and which of the classes each belongs to."""

    name: str
    train_images: np.ndarray  # uint8, (images, height, width, channels)
    train_labels: np.ndarray  # int32, (images,)
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: int  # labels are 0 to classes - 1

    def __post_init__(self) -> None:
        for what, images, labels in (
            ("training", self.train_images, self.train_labels),
            ("test", self.test_images, self.test_labels),
        ):
            if images.ndim != 4 or images.dtype != np.uint8:
                raise ValueError(
                    f"{what} images are {images.dtype}{images.shape}, "
                    "not uint8 (images, height, width, channels)"
                )
            if len(images) != len(labels):
                raise ValueError(
                    f"{len(images)} {what} images, but {len(labels)} labels"
                )
            _check_labels(what, labels, self.classes)
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise ValueError(
                f"training images are {self.train_images.shape[1:]}, "
                f"but test images {self.test_images.shape[1:]}"
            )

    def head(self, train: int | None = None, test: int | None = None) -> "Images":
        """The first images of every class, for a smaller budget: always the same.

        As many of each class as the numbers allow, in the order in which they were.
        `None` keeps all of them. The name tells that it is a part.
        """
        train_part = _balanced(self.train_labels, train, "training")
        test_part = _balanced(self.test_labels, test, "test")
        part = f"first {len(train_part):,}/{len(test_part):,}"
        whole = len(train_part) == len(self.train_labels) and (
            len(test_part) == len(self.test_labels)
        )
        return replace(
            self,
            name=self.name if whole else f"{self.name}, {part}",
            train_images=self.train_images[train_part],
            train_labels=self.train_labels[train_part],
            test_images=self.test_images[test_part],
            test_labels=self.test_labels[test_part],
        )

    def held_out(self) -> "Images":
        """Every fifth training image of each class in place of the test images."""
        out = _places_in_class(self.train_labels) % _FIFTH == _FIFTH - 1
        return replace(
            self,
            name=_held_out_name(self.name, np.sum(~out), np.sum(out), "images"),
            train_images=self.train_images[~out],
            train_labels=self.train_labels[~out],
            test_images=self.train_images[out],
            test_labels=self.train_labels[out],
        )


@dataclass(frozen=True, eq=False)
class Text:
    """Characters as numbers: places in the vocabulary."""

    name: str
    train: np.ndarray  # int32, (characters,)
    test: np.ndarray
    vocabulary: str  # every character once

    def __post_init__(self) -> None:
        for what, numbers in (("training", self.train), ("test", self.test)):
            if numbers.ndim != 1 or numbers.dtype != np.int32:
                raise ValueError(
                    f"{what} text is {numbers.dtype}{numbers.shape}, not int32"
                )
            _check_range(f"{what} characters", numbers, len(self.vocabulary))

    def held_out(self) -> "Text":
        """The last tenth of the training text in place of the test text."""
        train = len(self.train) * 9 // 10
        out = len(self.train) - train
        return replace(
            self,
            name=_held_out_name(self.name, train, out, "characters"),
            train=self.train[:train],
            test=self.train[train:],
        )


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels of one picture: where they are and what colour they have."""

    name: str
    train_positions: np.ndarray  # float32, (pixels, 2): x and y from -1 to 1
    train_colours: np.ndarray  # float32, (pixels, 3): red, green, blue from 0 to 1
    test_positions: np.ndarray
    test_colours: np.ndarray

    def __post_init__(self) -> None:
        for what, positions, colours in (
            ("training", self.train_positions, self.train_colours),
            ("test", self.test_positions, self.test_colours),
        ):
            if len(positions) != len(colours) or not len(positions):
                raise ValueError(
                    f"{len(positions)} {what} pixels, but {len(colours)} colours"
                )
            for kind, numbers, size, low in (
                ("positions", positions, 2, -1),
                ("colours", colours, 3, 0),
            ):
                if numbers.dtype != np.float32 or numbers.shape[1:] != (size,):
                    raise ValueError(
                        f"{what} {kind} are {numbers.dtype}{numbers.shape}, "
                        f"not float32 (pixels, {size})"
                    )
                if not low <= numbers.min() <= numbers.max() <= 1:
                    raise ValueError(f"{what} {kind} are not all from {low} to 1")

    def held_out(self) -> "Picture":
        """A fifth of the training pixels in place of the test pixels.

        Every fifth, in an order that is random already.
        """
        out = np.arange(len(self.train_positions)) % _FIFTH == _FIFTH - 1
        return replace(
            self,
            name=_held_out_name(self.name, np.sum(~out), np.sum(out), "pixels"),
            train_positions=self.train_positions[~out],
            train_colours=self.train_colours[~out],
            test_positions=self.train_positions[out],
            test_colours=self.train_colours[out],
        )


_FIFTH = 5


def _held_out_name(name: str, train: int, out: int, what: str) -> str:
    return f"{name}, held-out training data ({train:,}/{out:,} {what})"


def _places_in_class(labels: np.ndarray) -> np.ndarray:
    """Count, for each image, the images of the same class that come before it."""
    before = np.empty(len(labels), int)
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        before[places] = np.arange(len(places))
    return before


def _balanced(labels: np.ndarray, count: int | None, what: str) -> np.ndarray:
    """Return the positions of the first images of each class, `count` in all."""
    if count is None:
        return np.arange(len(labels))
    if not 1 <= count <= len(labels):
        raise ValueError(f"{count} of the {len(labels)} {what} images")
    before = _places_in_class(labels)
    return np.sort(np.argsort(before, kind="stable")[:count])


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes with features and links, and the class of each node.

    The features and the links are sparse matrices: `values[i]` stands in row `rows[i]`
    and column `columns[i]`, everything else is 0.
    """

    name: str
    feature_rows: np.ndarray  # int32: the node
    feature_columns: np.ndarray  # int32: the feature
    feature_values: np.ndarray  # float32; those of a node add up to 1
    nodes: int
    feature_count: int
    edge_rows: np.ndarray  # int32
    edge_columns: np.ndarray  # int32
    edge_values: np.ndarray  # float32, of D^-1/2 (A + I) D^-1/2
    labels: np.ndarray  # int32, (nodes,)
    classes: int
    train_nodes: np.ndarray  # int32
    validation_nodes: np.ndarray
    test_nodes: np.ndarray

    def __post_init__(self) -> None:
        for what, count in (("feature", self.feature_count), ("edge", self.nodes)):
            rows = getattr(self, f"{what}_rows")
            columns = getattr(self, f"{what}_columns")
            values = getattr(self, f"{what}_values")
            if not len(rows) == len(columns) == len(values):
                raise ValueError(f"{what}: rows, columns and values differ in number")
            _check_range(f"{what} rows", rows, self.nodes)
            _check_range(f"{what} columns", columns, count)
        if len(self.labels) != self.nodes:
            raise ValueError(f"{len(self.labels)} labels for {self.nodes} nodes")
        _check_labels("node", self.labels, self.classes)
        parts = (self.train_nodes, self.validation_nodes, self.test_nodes)
        used = np.concatenate(parts)
        _check_range("nodes of the split", used, self.nodes)
        if len(np.unique(used)) != len(used):
            raise ValueError("a node is twice in the training, validation and test set")

    def held_out(self) -> "Graph":
        """The validation nodes in place of the test nodes."""
        return replace(
            self,
            name=f"{self.name}, held-out validation nodes",
            validation_nodes=np.zeros(0, np.int32),
            test_nodes=self.validation_nodes,
        )


def _check_range(what: str, numbers: np.ndarray, count: int) -> None:
    if numbers.size and (numbers.min() < 0 or numbers.max() >= count):
        raise ValueError(
            f"{what} go from {numbers.min()} to {numbers.max()}, "
            f"but there are only 0 to {count - 1}"
        )
