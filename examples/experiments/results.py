"""Results of runs: one JSON file each, written whole or not at all."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import whole_files
from experiments.run import Run

FORMAT = 1
"""Version of the files. Files of other versions are refused."""

_DIGITS = 6


class BadResult(ValueError):
    """A result file that cannot be used, and what to do about it."""


def write(folder: Path, run: Run, result: dict[str, Any]) -> Path:
    """Write the result of a run. A kill leaves the old file, or none."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run.name}.json"
    content = {"format": FORMAT, "run": run.as_dict()} | _rounded(result)
    # Strictly: NaN is no JSON.
    text = json.dumps(content, allow_nan=False) + "\n"
    whole_files.write(path, text)
    return path


def finished(folder: Path, runs: Iterable[Run]) -> set[str]:
    """The names of those runs that have a result in the folder already.

    Raises:
      BadResult: if one is broken, or was made with other settings.
    """
    done = set()
    for run in runs:
        path = folder / f"{run.name}.json"
        if not path.exists():
            continue
        before = Run.defaults() | read_file(path)["run"]
        wanted = json.loads(json.dumps(run.as_dict()))
        for key in wanted:
            if before.get(key) != wanted[key]:
                raise BadResult(
                    f"{path} was made with {key}={before.get(key)!r}, and now {key} is "
                    f"{wanted[key]!r}. Give another folder (--results), or delete it."
                )
        done.add(run.name)
    return done


def read(place: Path) -> list[dict[str, Any]]:
    """All results in a folder, or in a file with one on each line.

    Raises:
      BadResult: if there are none, or one cannot be used.
    """
    if place.is_dir():
        results = [read_file(path) for path in sorted(place.glob("*.json"))]
    elif place.exists():
        lines = place.read_bytes().splitlines()
        results = [_checked(line, f"{place}:{i + 1}") for i, line in enumerate(lines)]
    else:
        results = []
    if not results:
        raise BadResult(f"no results in {place}: make some with paper.py run")
    return results


def read_file(path: Path) -> dict[str, Any]:
    """One result."""
    return _checked(path.read_bytes(), str(path))


def collect(folder: Path, target: Path) -> int:
    """Write the results of a folder to one file, a line each. Returns how many it has.

    Results that the file has already stay, unless the folder has newer ones of the same
    runs.
    """
    found = read(folder)
    if target.exists():
        found = read(target) + found
    by_name = {_name(result): result for result in found}
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(by_name[name]) + "\n" for name in sorted(by_name)]
    whole_files.write(target, "".join(lines))
    return len(by_name)


def _name(result: dict[str, Any]) -> str:
    """The name of a result's run, whichever settings there were when it was made."""
    return Run(**{**Run.defaults(), **result["run"]}).name


def _checked(text: bytes, where: str) -> dict[str, Any]:
    try:
        result = json.loads(text)
    except ValueError as error:  # no JSON, or no UTF-8
        raise BadResult(
            f"{where} is not a whole result ({error}). Delete it and run again."
        ) from error
    known = result.get("format") if isinstance(result, dict) else None
    if known != FORMAT:
        raise BadResult(
            f"{where} has format {known!r}, written by another version; this one reads "
            f"format {FORMAT}. Give another folder (--results), or run again."
        )
    missing = {"run", "curves", "final"} - result.keys()
    if missing:
        raise BadResult(
            f"{where} has no {sorted(missing)[0]!r}. Delete it and run again."
        )
    return result


def _rounded(value: Any) -> Any:
    """Floats with as many digits as say something; None for what is not finite."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value
