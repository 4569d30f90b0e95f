"""Arrays that took long to make, kept in a file for the next time."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

import whole_files
from data_loading.errors import DAMAGE

KEY = "key"


def cached(
    file: Path | None, key: str, make: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays in the file if it has that key, otherwise made and kept there."""
    if file is None:
        return make()
    arrays = _read(file, key)
    if arrays is None:
        arrays = make()
        _write(file, key, arrays)
    return arrays


def _read(file: Path, key: str) -> dict[str, np.ndarray] | None:
    try:
        # Opened here, because np.load forgets to close one that is damaged.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            if archive[KEY].item() != key:
                return None
            return {name: archive[name] for name in archive.files if name != KEY}
    except DAMAGE:  # or not there
        return None


def _write(file: Path, key: str, arrays: dict[str, np.ndarray]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_files.writing(file) as stream:
        np.savez(stream, **{KEY: np.array(key)}, **arrays)
