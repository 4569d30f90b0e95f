"""Tables of results: a row for each method, a column for each target."""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import rich.table

Result = dict[str, Any]

CHOICES = ("structure", "criterion", "scope")
"""Choices in which rows of one table may differ, written "scope=local"."""

MEASURES = {"test": "", "test_bits": "Bits per character, fewer are better"}
"""Measures before and after pruning, with the titles of their tables."""

DECIBELS = {"picture"}
"""Data on which "test" is a peak signal-to-noise ratio, and no accuracy."""


class Cell(NamedTuple):
    """Mean and spread over several seeds."""

    mean: float
    spread: float
    """Standard deviation over the seeds; 0 for a single one."""
    lost: float
    """Mean change of the accuracy (or what it is) at the moment of pruning."""
    seeds: int


def cells(
    results: Sequence[Result], measure: str = "test"
) -> dict[str, dict[str, Cell]]:
    """By row of the table, then by percent kept ("100" for dense training)."""
    return {
        row: {column: _cell(group, measure) for column, group in columns.items()}
        for row, columns in grouped(results).items()
    }


def grouped(results: Sequence[Result]) -> dict[str, dict[str, list[Result]]]:
    """The seeds that a cell has in common, by row and then by percent kept."""
    groups: dict[str, dict[str, list[Result]]] = {}
    for result in results:
        row, column = row_of(result), column_of(result)
        groups.setdefault(row, {}).setdefault(column, []).append(result)
    return groups


def row_of(result: Result) -> str:
    run = result["run"]
    if choice_of(run["variant"]):
        return run["variant"]
    return f"{run['method']} {run['variant']}".strip()


def choice_of(row: str) -> str:
    """Which choice is made in a row; "" where none is."""
    choice, equals, _ = row.partition("=")
    return choice if equals and choice in CHOICES else ""


def column_of(result: Result) -> str:
    return f"{round(100 * (1 - result['run']['sparsity']), 6):g}"


def columns_of(results: Sequence[Result]) -> list[str]:
    """Percents kept, the most first, without that of dense training."""
    kept = {column_of(result) for result in results if result["run"]["sparsity"] > 0}
    return sorted(kept, key=float, reverse=True)


def _cell(group: list[Result], measure: str) -> Cell:
    after = [result["final"][f"{measure}_after"] for result in group]
    before = [result["final"][f"{measure}_before"] for result in group]
    return Cell(
        mean=statistics.mean(after),
        spread=statistics.stdev(after) if len(after) > 1 else 0.0,
        lost=statistics.mean(before) - statistics.mean(after),
        seeds=len(group),
    )


def kept_of(results: Sequence[Result]) -> str:
    """Name the percentage of the columns: of all parameters where a row is thin."""
    whole = any(result["run"]["method"] == "thin" for result in results)
    return f"% of the {'parameters' if whole else 'weights'} kept"


def lines(
    results: Sequence[Result], measure: str = "test"
) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table, as text."""
    of_row = cells(results, measure)
    columns = columns_of(results)
    if any(row.startswith("dense ") for row in of_row):
        columns = ["100", *columns]  # each variant has dense training of its own
    heads = [kept_of(results), *columns]
    places = 1 if measure == "test" and unit_of(results) == "%" else 2
    rows = [
        [row, *(_text(of_column.get(column), places) for column in columns)]
        for row, of_column in sorted(of_row.items(), key=lambda item: place_of(item[0]))
        if row != "dense"
    ]
    return heads, rows


def place_of(row: str) -> int:
    """Return the rank of a row: first the one that all others are compared with."""
    choice = choice_of(row)
    return 1 + CHOICES.index(choice) if choice else 0


def _text(cell: Cell | None, places: int) -> str:
    if cell is None:
        return ""
    text = f"{cell.mean:.{places}f}"
    text += f" ± {cell.spread:.{places}f}" if cell.seeds > 1 else ""
    # The points that pruning itself cost, if it cost any.
    seen = abs(cell.lost) >= 0.5 * 10**-places
    return f"{text} ({-cell.lost:+.{places}f})" if seen else text


def remarks(results: Sequence[Result]) -> list[str]:
    """Report rows that were pruned less than asked, and leaves without a weight."""
    found = []
    for row, columns in sorted(grouped(results).items(), key=lambda i: place_of(i[0])):
        kept = [
            f"{100 * (1 - actual):.1f} % for {column}"
            for column in sorted(columns, key=float, reverse=True)
            for actual in [columns[column][0]["final"]["sparsity"]]
            if abs(100 * (1 - actual) - float(column)) >= 0.05
        ]
        if kept:
            found.append(f"{row} keeps {', '.join(kept)}.")
        for column in sorted(columns, key=float, reverse=True):
            group = columns[column]
            paths = [set(result["final"]["emptied"]) for result in group]
            names = sorted(set.union(*paths))
            if names:
                count = sum(map(bool, paths))
                found.append(
                    f"{row}, {column} % kept: nothing is left of {', '.join(names)} "
                    f"({count} of {len(group)} seeds)."
                )
    return found


def caption(results: Sequence[Result]) -> str:
    """Name the network, the data and the epochs of results."""
    run = results[0]["run"]
    epochs = sorted({result["run"]["epochs"] for result in results})
    seeds = len({result["run"]["seed"] for result in results})
    dense = cells(results).get("dense", {}).get("100")
    columns = columns_of(results)
    parts = [
        f"{run['model']} on {results[0]['data']}",
        f"{' or '.join(map(str, epochs))} epochs in all",
        f"{seeds} seeds" if seeds > 1 else "1 seed",
    ]
    if len(columns) == 1:
        parts.append(f"{columns[0]} % kept")
    if dense is not None:
        places = 1 if unit_of(results) == "%" else 2
        parts.append(f"dense {dense.mean:.{places}f} ± {dense.spread:.{places}f}")
    return ", ".join(parts)


def unit_of(results: Sequence[Result]) -> str:
    """The unit of the measure "test"."""
    return "dB" if results[0]["run"]["data"] in DECIBELS else "%"


def measured(results: Sequence[Result]) -> str:
    """What the measure "test" is, and on which data."""
    held_out = results[0]["run"].get("held_out", False)
    data = "held-out training data" if held_out else "test data"
    if unit_of(results) == "dB":
        return f"Peak signal-to-noise ratio on {data} in dB"
    return f"Accuracy on {data} in percent" if held_out else "Test accuracy in percent"


def explanation(results: Sequence[Result]) -> str:
    return (
        f"{measured(results)} after pruning, mean ± standard deviation over the seeds. "
        "In brackets: how much of it the moment of pruning changed, where it did."
    )


def measures(results: Sequence[Result]) -> list[str]:
    """Return the measures that results have, each of which has a table."""
    return [name for name in MEASURES if f"{name}_after" in results[0]["final"]]


def table(results: Sequence[Result], measure: str = "test") -> rich.table.Table:
    """For the terminal."""
    heads, rows = lines(results, measure)
    shown = rich.table.Table(
        title=MEASURES[measure] or caption(results),
        caption=explanation(results) if measure == "test" else None,
        title_justify="left",
    )
    shown.add_column(heads[0], no_wrap=True)
    for head in heads[1:]:
        shown.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    return shown


def markdown(results: Sequence[Result]) -> str:
    """For the docs."""
    parts = []
    for measure in measures(results):
        text = as_markdown(*lines(results, measure))
        parts.append(f"{MEASURES[measure] or caption(results)}.\n\n{text}")
    if any(choice_of(row_of(r)) or r["run"]["method"] == "thin" for r in results):
        parts.append("".join(f"- {remark}\n" for remark in remarks(results)))
    return "\n".join(part for part in parts if part)


def as_markdown(heads: list[str], rows: Sequence[list[str]], texts: int = 1) -> str:
    """A table of which the first columns are texts, and the others numbers."""
    rule = ["---"] * texts + ["---:"] * (len(heads) - texts)
    return "".join("| " + " | ".join(row) + " |\n" for row in [heads, rule, *rows])
