"""Downloading, through a library that many have for it: if it is installed, that is.

The library keeps what it downloads in a place of its own.
"""

import numpy as np

from data_loading.dataset import Images, as_labels

CLASSES = {"mnist": 10, "cifar10": 10, "cifar100": 100}
# Where Hugging Face has them, and what it calls the images and the labels.
HUGGING_FACE = {
    "mnist": ("ylecun/mnist", "image", "label"),
    "cifar10": ("uoft-cs/cifar10", "img", "label"),
    "cifar100": ("uoft-cs/cifar100", "img", "fine_label"),
}


class Unavailable(Exception):
    """A download that failed, with the reason."""


def download(name: str) -> Images:
    """The data set of that name, from the first library that has it."""
    if name not in CLASSES:
        raise Unavailable("no library that would download it is supported")
    problems = []
    for library, fetch in (
        ("tensorflow_datasets", _from_tensorflow_datasets),
        ("datasets", _from_hugging_face),
    ):
        try:
            return Images(name, *fetch(name), classes=CLASSES[name])
        except ModuleNotFoundError as error:
            problems.append(f"{error.name} is not installed")
        # Whatever a library has to say about the network, the user should read it
        # next to what was looked for in the folder.
        except Exception as error:
            problems.append(f"{library} failed: {error!r}")
    raise Unavailable(f"it cannot be downloaded: {'; '.join(problems)}")


def _from_tensorflow_datasets(name: str) -> list[np.ndarray]:
    import tensorflow_datasets

    parts = tensorflow_datasets.load(
        name, split=["train", "test"], batch_size=-1, as_supervised=True
    )
    arrays = []
    for images, labels in tensorflow_datasets.as_numpy(parts):
        arrays += [images, as_labels(labels)]
    return arrays


def _from_hugging_face(name: str) -> list[np.ndarray]:
    import datasets

    place, image_column, label_column = HUGGING_FACE[name]
    arrays = []
    for part in datasets.load_dataset(place, split=["train", "test"]):
        images = np.stack([np.asarray(image) for image in part[image_column]])
        # Gray images come without a channel.
        images = images if images.ndim == 4 else images[..., None]
        arrays += [images, as_labels(part[label_column])]
    return arrays
