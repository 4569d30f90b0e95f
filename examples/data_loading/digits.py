"""The 1,797 handwritten digits that come with scikit-learn: no file is needed."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from data_loading.dataset import Images, as_labels
from data_loading.search import Search

SOURCE = "scikit-learn, which brings it"
TRAINING_IMAGES = 1437  # the split of examples/digits_training.py


def read(name: str, search: Search, cache: Path | None) -> Images:
    """8 × 8 pixels. Theirs go from 0 to 16; times 15 that is 0 to 240."""
    del search, cache
    digits = load_digits()
    pixels = (15 * digits.images[..., None]).astype(np.uint8)
    labels = as_labels(digits.target)
    train_images, test_images, train_labels, test_labels = train_test_split(
        pixels, labels, train_size=TRAINING_IMAGES, stratify=labels, random_state=0
    )
    return Images(name, train_images, train_labels, test_images, test_labels, 10)
