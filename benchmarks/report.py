"""Report of timings, as a table and as JSON."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import rich.console
import rich.table
from environment import environment
from timing import Config, Entry


def new_console() -> rich.console.Console:
    console = rich.console.Console(highlight=False)
    if not console.is_terminal:
        console.width = 130  # a file or a pipe has no width of its own
    return console


def as_row(entry: Entry, others: Sequence[Entry], weight_bytes: int) -> dict[str, Any]:
    """Return the report of an entry."""
    if entry.failure:
        return {"name": entry.name, "failure": entry.failure}
    known = [e for e in others if e.name in entry.compared_with and not e.failure]
    base = min(known, key=Entry.median, default=None)
    return {
        "name": entry.name,
        "failure": None,
        "median_ms": 1e3 * entry.median(),
        "quartiles_ms": (1e3 * np.quantile(entry.times(), [0.25, 0.75])).tolist(),
        "samples": len(entry.samples),
        "steps_per_sample": entry.steps,
        "baseline": base and base.name,
        "times_baseline": base and entry.median() / base.median(),
        "compile_seconds": entry.compile_seconds,
        "compile_seconds_extra": base and entry.compile_seconds - base.compile_seconds,
        "temp_bytes": entry.temp_bytes,
        "temp_percent_of_weights": 100 * entry.temp_bytes / weight_bytes,
        **entry.extra,
    }


def table(rows: Sequence[dict[str, Any]], title: str) -> rich.table.Table:
    shown = rich.table.Table(title=title, title_justify="left")
    shown.add_column("", no_wrap=True)
    columns = {
        "ms": lambda row: f"{row['median_ms']:.4g}",
        "quartiles": lambda row: " - ".join(f"{q:.4g}" for q in row["quartiles_ms"]),
        "ratio": lambda row: _text(row["times_baseline"], ".2f"),
        "passes": lambda row: _text(row.get("readings"), "d"),
        "compile s": lambda row: f"{row['compile_seconds']:.2f}",
        "more": lambda row: _text(row["compile_seconds_extra"], "+.2f"),
        "temporary": lambda row: f"{row['temp_percent_of_weights']:.2f} %",
        "exact": lambda row: {None: "", True: "yes", False: "NO"}[row.get("exact")],
    }
    if not any("exact" in row for row in rows):
        del columns["exact"]
    for column in columns:
        shown.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        known = columns.values() if row["failure"] is None else ()
        shown.add_row(row["name"], *(cell(row) for cell in known))
    return shown


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def report(
    program: str,
    config: Config,
    entries: Sequence[Entry],
    *,
    weights: Sequence[jax.Array],
    console: rich.console.Console,
    notes: dict[str, Any],
) -> None:
    """Print the table, and write everything as JSON.

    Args:
      program: what the file is named after.
      config: the options.
      entries: what was timed.
      weights: the leaves, or others of their shapes and type.
      console: where to print.
      notes: what a reader of the JSON must know.
    """
    about = environment()
    device = about["hardware"]["device_kind"].lower().replace(" ", "-")
    total = sum(leaf.size for leaf in weights)
    weight_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in weights)
    rows = [as_row(entry, entries, weight_bytes) for entry in entries]
    title = f"{program}: {total:,} {config.dtype} weights in {len(weights)} leaves, "
    console.print(table(rows, title + device))
    console.print(f"ratio: {notes['ratio']}")
    for entry in rows:
        if entry["failure"]:
            console.print(f"left out: {entry['name']}: {entry['failure']}")
    options = dataclasses.asdict(config)
    del options["out"]
    results = {"config": options, "weights": total, "leaves": len(weights)}
    results |= {"weight_bytes": weight_bytes, "notes": notes, **about}
    results["entries"] = rows
    suffix = "" if config.dtype == "f32" else f"-{config.dtype}"
    name = f"{program}-{device}-{config.size}{suffix}.json"
    write(config.out / name, results, console)


def write(path: Path, results: dict[str, Any], console: rich.console.Console) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
    console.print(f"Written: {path}")
