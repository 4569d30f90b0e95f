"""Looking for files in the user's folder, and telling what was looked for."""

from collections.abc import Sequence
from pathlib import Path


class Search:
    """Remembers all that was not found, for the error that may be needed."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._looked_for: list[str] = []

    def given_file(self) -> Path | None:
        """The user's folder, if it is a file."""
        if self._folder is None or not self._folder.is_file():
            return None
        return self._folder

    def files(
        self,
        places: Sequence[str],
        names: Sequence[str],
        endings: Sequence[str] = ("",),
    ) -> dict[str, Path] | None:
        """These files, all of them in one of these subfolders."""
        line = f"{', '.join(names)}{_alternatives(endings)}{_inside(places)}"
        for place in self._existing(places):
            found = {}
            for name in names:
                candidates = (place / f"{name}{ending}" for ending in endings)
                first = next((path for path in candidates if path.is_file()), None)
                if first is not None:
                    found[name] = first
            if len(found) == len(names):
                return found
            if found:
                missing = [name for name in names if name not in found]
                line += f"\n    {place} has some, but lacks {', '.join(missing)}"
        self._looked_for.append(line)
        return None

    def folder_with(self, places: Sequence[str], names: Sequence[str]) -> Path | None:
        """The first of these subfolders that contains folders of all these names."""
        for place in self._existing(places):
            if all((place / name).is_dir() for name in names):
                return place
        self._looked_for.append(f"folders {' and '.join(names)}{_inside(places)}")
        return None

    def matching(
        self,
        places: Sequence[str],
        patterns: Sequence[str],
        endings: Sequence[str] = ("",),
    ) -> Path | None:
        """The first file, in alphabetical order, that one of the patterns fits."""
        for place in self._existing(places):
            for pattern in patterns:
                for path in sorted(place.glob(pattern)):
                    if path.is_file() and path.name.endswith(tuple(endings)):
                        return path
        wanted = f"{' or '.join(patterns)}{_alternatives(endings)}"
        self._looked_for.append(f"{wanted}{_inside(places)}")
        return None

    def report(self, name: str, source: str, download: str) -> str:
        """Say which files were looked for and where to get them."""
        if self._folder is None:
            where = "no folder was given to look in for"
        else:
            where = f"it is not in {self._folder}, where these were looked for:"
        lines = [f"  {line}" for line in self._looked_for]
        return "\n".join(
            [f"{name}: {where}", *lines, f"Get it from {source}", f"({download})"]
        )

    def _existing(self, places: Sequence[str]) -> list[Path]:
        if self._folder is None:
            return []
        return [self._folder / place for place in places]


def _alternatives(endings: Sequence[str]) -> str:
    named = [ending for ending in endings if ending]
    if not named:
        return ""
    return f" ({'or ' if '' in endings else 'ending in '}{', '.join(named)})"


def _inside(places: Sequence[str]) -> str:
    return f" in {', '.join(place or 'the folder itself' for place in places)}"
