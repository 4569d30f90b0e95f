"""The images of a folder: <class>/*.JPEG, labelled in the order of the class names."""

import dataclasses
import hashlib
import os
from pathlib import Path

ENDINGS = (".jpg", ".jpeg", ".png")


class BadFolder(FileNotFoundError):
    """The folder does not have the images that it should have."""


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """Which files there are. Nothing of them has been read."""

    root: Path
    classes: tuple[str, ...]
    names: tuple[str, ...]
    """File names in the order of their classes, with that of the class before them."""
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path:
        return self.root / self.names[index]

    def fingerprint(self) -> str:
        """Changes when a file is added, removed or renamed."""
        names = "\n".join(self.names).encode()
        return f"{len(self)} images, {hashlib.sha256(names).hexdigest()[:16]}"


def find_images(
    argument: str, root: Path, classes: tuple[str, ...] | None = None
) -> ImageFolder:
    """The images in the class folders of `root`.

    Args:
      argument: which argument the folder comes from, for error messages.
      root: the folder that has the class folders.
      classes: those that training knows, if their labels are to be used.

    Raises:
      BadFolder: there is no such folder, no class folder in it, one without images, or
        one that training does not know.
    """
    if not root.is_dir():
        raise BadFolder(
            f"{argument}: there is no folder {root}. It should hold one folder of "
            f"images for each class: {root}/<class>/*.JPEG"
        )
    found = sorted(
        entry.name
        for entry in os.scandir(root)
        if entry.is_dir() and not entry.name.startswith(".")
    )
    if not found:
        raise BadFolder(
            f"{argument}: {root} has no class folders. Images must lie in a folder for "
            f"each class: {root}/<class>/*.JPEG"
        )
    if classes is None:
        classes = tuple(found)
    unknown = [name for name in found if name not in set(classes)]
    if unknown:
        raise BadFolder(
            f"{argument}: {root} has {_some(unknown)}, a class that the training "
            "images do not have. Both need the same names of class folders"
        )
    label_of = {name: label for label, name in enumerate(classes)}
    names: list[str] = []
    labels: list[int] = []
    empty = []
    for name in found:
        files = sorted(
            entry.name
            for entry in os.scandir(root / name)
            if entry.name.lower().endswith(ENDINGS) and not entry.name.startswith(".")
        )
        if not files:
            empty.append(name)
        names += [f"{name}/{file}" for file in files]
        labels += [label_of[name]] * len(files)
    if empty:
        raise BadFolder(
            f"{argument}: no image ({', '.join(ENDINGS)}) in {_some(empty)} of {root}. "
            "Put the images of the class there, or remove the folder"
        )
    return ImageFolder(root, classes, tuple(names), tuple(labels))


def find_validation_images(
    data: Path, val_folder: Path | None, classes: tuple[str, ...]
) -> ImageFolder:
    """The images to evaluate on, or an error that says how to do without `val`."""
    if val_folder is not None:
        return find_images("val_folder", val_folder, classes)
    if not (data / "val").is_dir():
        raise BadFolder(
            f"data: {data} has no folder val to evaluate on. Name another one, with "
            f"the same classes: --val-folder DIR. (--val-folder {data / 'train'} "
            "evaluates on the training images.)"
        )
    return find_images("data", data / "val", classes)


def _some(names: list[str]) -> str:
    listed = ", ".join(names[:3])
    more = len(names) - 3
    return f"{listed} and {more} more" if more > 0 else listed
