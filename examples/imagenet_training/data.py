"""Data of a run: a folder of images, or noise."""

from typing import NamedTuple

import grain
import jax

from imagenet_training import pipeline
from imagenet_training.config import IMAGENET_CLASSES, IMAGENET_IMAGES, Config
from imagenet_training.folder import BadFolder, find_images, find_validation_images


class Data(NamedTuple):
    """Sizes of a data set, and its batches; None for noise."""

    images: int
    classes: int
    fingerprint: str
    train: grain.MapDataset[pipeline.Batch] | None
    validation: grain.MapDataset[pipeline.Batch] | None


def find_data(config: Config) -> Data:
    """Return the data to train and to evaluate on."""
    if config.synthetic:
        return Data(IMAGENET_IMAGES, IMAGENET_CLASSES, "noise", None, None)
    if config.data is None:
        raise BadFolder(
            "data: no folder is given. Name the one with train/<class>/*.JPEG, "
            "--data DIR, or train on noise: --synthetic"
        )
    if not config.data.is_dir():
        raise BadFolder(
            f"data: there is no folder {config.data}. Name the one with "
            "train/<class>/*.JPEG: --data DIR"
        )
    train = find_images("data", config.data / "train")
    validation = find_validation_images(config.data, config.val_folder, train.classes)
    index, count = jax.process_index(), jax.process_count()
    if len(train) < config.batch_size:
        raise ValueError(
            f"batch_size must be at most the {len(train):,} images of "
            f"{train.root}, got {config.batch_size}: give a smaller --batch-size"
        )
    common = {
        "resolution": config.resolution,
        "batch_size": config.batch_size,
        "bad_images": pipeline.BadImageList(
            config.output.resolve() / f"bad_images-{index}.txt"
        ),
        "share": pipeline.Share(index, count),
    }
    return Data(
        len(train),
        len(train.classes),
        train.fingerprint(),
        pipeline.training_batches(train, seed=config.seed, **common),
        pipeline.evaluation_batches(validation, **common),
    )
