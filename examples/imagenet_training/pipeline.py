"""Batches of images, by Grain: each a function of the seed and its number alone.

So the position in the data is the number of the next batch. The same images are in
batch 1,000 after a restart, with another number of workers, and with another number of
processes, which only divide each batch differently.
"""

import dataclasses
import errno
import fcntl
import sys
from pathlib import Path

import grain
import numpy as np
from absl import flags

from imagenet_training.folder import ImageFolder
from imagenet_training.images import BadImage, evaluation_image, training_image

# A run of so many files that cannot be decoded ends the training with an error.
MOST_IN_A_ROW = 1000

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Share:
    """Which part of every batch is this process's: of `count`, number `index`."""

    index: int = 0
    count: int = 1


@dataclasses.dataclass(frozen=True)
class BadImageList:
    """A file with the images that could not be decoded: each is reported once."""

    file: Path

    def report(self, path: Path, problem: BadImage) -> None:
        with self.file.open("a+", encoding="utf-8") as stream:
            # Several workers may meet the same image.
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.seek(0)
            if any(line.split("\t")[0] == str(path) for line in stream):
                return
            stream.write(f"{path}\t{problem}\n")
        print(f"Skipped, as it cannot be decoded: {path}: {problem}", file=sys.stderr)


@dataclasses.dataclass(frozen=True)
class TrainingImage:
    """Reads, decodes, crops and mirrors one image, or the next that is not broken."""

    folder: ImageFolder
    resolution: int
    bad_images: BadImageList

    def __call__(self, index: int, generator: np.random.Generator) -> Batch:
        most = min(len(self.folder), MOST_IN_A_ROW)
        for tried in range(most):
            # The next one in the folder, mostly of the same class: batches keep their
            # size, and which images are in them is known without reading any.
            place = (index + tried) % len(self.folder)
            try:
                content = read(self.folder.path(place))
                pixels = training_image(content, self.resolution, generator)
            except BadImage as problem:
                self.bad_images.report(self.folder.path(place), problem)
                continue
            return {"images": pixels, "labels": np.int32(self.folder.labels[place])}
        raise BadImage(
            f"data: {most} images in a row cannot be decoded, the last of them "
            f"{self.folder.path(place)}. They are listed in {self.bad_images.file}"
        )


@dataclasses.dataclass(frozen=True)
class EvaluationImage:
    """Reads, decodes and crops one image; a broken one, or none, gets no weight."""

    folder: ImageFolder
    resolution: int
    bad_images: BadImageList

    def __call__(self, index: int) -> Batch:
        if index < len(self.folder):
            try:
                content = read(self.folder.path(index))
                pixels = evaluation_image(content, self.resolution)
            except BadImage as problem:
                self.bad_images.report(self.folder.path(index), problem)
            else:
                label = np.int32(self.folder.labels[index])
                return {"images": pixels, "labels": label, "weights": np.float32(1)}
        empty = np.zeros((self.resolution, self.resolution, 3), np.uint8)
        return {"images": empty, "labels": np.int32(0), "weights": np.float32(0)}


def read(path: Path) -> bytes:
    """The content of a file. One that cannot be read stops the run.

    It is not skipped: it may be read the next time, and then a run that was resumed
    would have seen other images.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        reason = errno.errorcode.get(error.errno or 0, "")
        raise OSError(
            f"data: {path} cannot be read: {error.strerror} ({reason}). Mend or remove "
            "it, and start the same command again"
        ) from error


def training_batches(
    folder: ImageFolder,
    *,
    resolution: int,
    batch_size: int,
    seed: int,
    bad_images: BadImageList,
    share: Share = Share(),
) -> grain.MapDataset[Batch]:
    """All batches there will ever be, each epoch in another order.

    An epoch need not be a whole number of batches: one batch may have images of two.

    Args:
      folder: the images.
      resolution: height and width.
      batch_size: images in a batch of all processes together.
      seed: of the order, the crops and the mirroring.
      bad_images: where broken images are reported.
      share: this process's part.
    """
    transform = TrainingImage(folder, resolution, bad_images)
    return (
        grain.MapDataset.range(len(folder))
        .seed(seed)
        .shuffle()
        .repeat()
        # Before the processes divide the batches, so that crops do not depend on it.
        .random_map(transform)
        .slice(slice(share.index, None, share.count))
        .batch(batch_size // share.count)
    )


def evaluation_batches(
    folder: ImageFolder,
    *,
    resolution: int,
    batch_size: int,
    bad_images: BadImageList,
    share: Share = Share(),
) -> grain.MapDataset[Batch]:
    """Every image once, in order. The last batch is filled up with weights of zero."""
    transform = EvaluationImage(folder, resolution, bad_images)
    batches = -(-len(folder) // batch_size)
    return (
        grain.MapDataset.range(batches * batch_size)
        .map(transform)
        .slice(slice(share.index, None, share.count))
        .batch(batch_size // share.count)
    )


def iterate(
    batches: grain.MapDataset[Batch], *, start: int, threads: int, workers: int
) -> grain.DatasetIterator[Batch]:
    """The batches from number `start` on, made ahead of time.

    Every thread makes a whole batch, so that many batches are in memory; with workers,
    as many in each.
    """
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    made = batches.slice(slice(start, None)).to_iter_dataset(options)
    if workers:
        # Grain asks absl for a flag when it starts them. This program has none.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        processes = grain.MultiprocessingOptions(num_workers=workers)
        made = made.mp_prefetch(processes)
    return iter(made)
