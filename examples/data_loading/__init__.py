"""Data sets by name, from a folder in which you have them already.

```python
from data_loading import load

images = load("cifar10", data=Path("~/data").expanduser(), cache=Path("cache"))
small = images.head(train=5_000, test=1_000)
```

Each name is looked for in the formats in which people usually have it; the module of
each says which. What is not there is downloaded if tensorflow_datasets or Hugging
Face's datasets is installed, and otherwise the error says what was looked for and
where to get it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from data_loading import cifar, digits, mnist, picture, planetoid, text
from data_loading.dataset import Graph, Images, Picture, Text
from data_loading.download import Unavailable, download
from data_loading.errors import BadFile, MissingData
from data_loading.search import Search

__all__ = [
    "NAMES",
    "BadFile",
    "Dataset",
    "Graph",
    "Images",
    "MissingData",
    "Picture",
    "Text",
    "load",
]

Dataset = Images | Graph | Picture | Text


class _Reader(NamedTuple):
    """Reader of one data set; its `None` means that the search does not find it."""

    read: Callable[[str, Search, Path | None], Dataset | None]
    source: str  # where to get it
    takes_file: bool = False  # whether the folder may be a file


_READERS = {
    "digits": _Reader(digits.read, digits.SOURCE),
    "mnist": _Reader(mnist.read, mnist.SOURCE),
    "cifar10": _Reader(cifar.read, cifar.SOURCE),
    "cifar100": _Reader(cifar.read, cifar.SOURCE),
    "cora": _Reader(planetoid.read, planetoid.SOURCE),
    "citeseer": _Reader(planetoid.read, planetoid.SOURCE),
    "pubmed": _Reader(planetoid.read, planetoid.SOURCE),
    "picture": _Reader(picture.read, picture.SOURCE),
    "text": _Reader(text.read, text.SOURCE, takes_file=True),
}
NAMES = tuple(_READERS)


def load(
    name: str, data: Path | str | None, cache: Path | str | None = None
) -> Dataset:
    """The data set of that name.

    Args:
      name: one of `NAMES`.
      data: the folder to look in; nothing is written there. `None` if you have none.
        A text may be given as the file that it is.
      cache: a folder that keeps decoded image folders for the next time. `None`
        decodes them every time.

    Raises:
      ValueError: no data set has that name.
      MissingData: it is not in the folder and could not be downloaded.
      BadFile: it is there, but a file is not what its name promises.
    """
    if name not in _READERS:
        raise ValueError(f"no data set {name!r}; there are {', '.join(NAMES)}")
    reader, folder = _READERS[name], None if data is None else Path(data)
    # Not a reason to download: the name is probably misspelt.
    is_file = reader.takes_file and folder is not None and folder.is_file()
    if folder is not None and not (folder.is_dir() or is_file):
        raise MissingData(f"{name}: there is no folder {folder}")
    search = Search(folder)
    found = reader.read(name, search, None if cache is None else Path(cache))
    if found is not None:
        return found
    try:
        return download(name)
    except Unavailable as error:
        raise MissingData(search.report(name, reader.source, str(error))) from error
