"""A photograph that comes with scikit-learn, pixel by pixel: no file is needed."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_sample_image

from data_loading.dataset import Picture
from data_loading.search import Search

SOURCE = "scikit-learn, which brings it"
SIZE = 128
AVERAGED = 3  # so many pixels a side become one


def read(name: str, search: Search, cache: Path | None) -> Picture:
    """The middle of "china.jpg", 128 × 128 pixels, a random half of them to learn."""
    del search, cache
    colours = _shrunk(load_sample_image("china.jpg")).reshape(-1, 3)
    axis = np.linspace(-1, 1, SIZE, dtype=np.float32)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    positions = np.stack([x.ravel(), y.ravel()], axis=-1)
    train, test = np.split(np.random.default_rng(0).permutation(SIZE**2), 2)
    return Picture(
        f"{name} ({len(train):,}/{len(test):,} pixels)",
        positions[train],
        colours[train],
        positions[test],
        colours[test],
    )


def _shrunk(picture: np.ndarray) -> np.ndarray:
    """The square in the middle of a picture, squares of its pixels averaged."""
    side = SIZE * AVERAGED
    top, left = ((length - side) // 2 for length in picture.shape[:2])
    middle = picture[top : top + side, left : left + side].astype(np.float32) / 255
    return middle.reshape(SIZE, AVERAGED, SIZE, AVERAGED, 3).mean((1, 3))
