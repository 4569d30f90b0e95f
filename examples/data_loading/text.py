"""A plain text: a file, or the first `*.txt` of a folder.

People have tinyshakespeare (`input.txt` of char-rnn and nanoGPT), but any text will do.
"""

from pathlib import Path

import numpy as np

from data_loading.dataset import Text
from data_loading.errors import reading
from data_loading.search import Search

SOURCE = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/"
    "input.txt, or take any other plain text"
)


def read(name: str, search: Search, cache: Path | None) -> Text | None:
    """The last tenth of the characters is held out."""
    del name, cache
    path = search.given_file() or search.matching(["", "tinyshakespeare"], ["*.txt"])
    if path is None:
        return None
    with reading(path):
        text = path.read_text("utf-8")
        vocabulary = "".join(sorted(set(text)))
        # By code point: a dictionary would have to be asked a million times.
        points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        known = np.array([ord(character) for character in vocabulary], np.uint32)
        numbers = np.searchsorted(known, points).astype(np.int32)
        train = len(numbers) * 9 // 10
        return Text(
            f"{path.stem} ({train:,}/{len(numbers) - train:,} characters)",
            numbers[:train],
            numbers[train:],
            vocabulary,
        )
