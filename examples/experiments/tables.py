"""Tables of results: a row for each method, a column for each target."""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import rich.table

Result = dict[str, Any]


class Cell(NamedTuple):
    """What several seeds have in common."""

    mean: float
    spread: float
    """Standard deviation over the seeds; 0 for a single one."""
    lost: float
    """Mean change of the accuracy at the moment of pruning, in points."""
    seeds: int


def cells(results: Sequence[Result]) -> dict[str, dict[str, Cell]]:
    """By row of the table, then by percent kept ("100" for dense training)."""
    grouped: dict[str, dict[str, list[Result]]] = {}
    for result in results:
        row, column = row_of(result), column_of(result)
        grouped.setdefault(row, {}).setdefault(column, []).append(result)
    return {
        row: {column: _cell(group) for column, group in columns.items()}
        for row, columns in grouped.items()
    }


def row_of(result: Result) -> str:
    run = result["run"]
    return f"{run['method']} {run['variant']}".strip()


def column_of(result: Result) -> str:
    return f"{round(100 * (1 - result['run']['sparsity']), 6):g}"


def columns_of(results: Sequence[Result]) -> list[str]:
    """Percents kept, the most first, without that of dense training."""
    kept = {column_of(result) for result in results if result["run"]["sparsity"] > 0}
    return sorted(kept, key=float, reverse=True)


def _cell(group: list[Result]) -> Cell:
    after = [result["final"]["test_after"] for result in group]
    before = [result["final"]["test_before"] for result in group]
    return Cell(
        mean=statistics.mean(after),
        spread=statistics.stdev(after) if len(after) > 1 else 0.0,
        lost=statistics.mean(before) - statistics.mean(after),
        seeds=len(group),
    )


def lines(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table, as text."""
    of_row = cells(results)
    columns = columns_of(results)
    heads = ["% of the weights kept", *columns]
    rows = [
        [row, *(_text(of_column.get(column)) for column in columns)]
        for row, of_column in of_row.items()
        if row != "dense"
    ]
    return heads, rows


def _text(cell: Cell | None) -> str:
    if cell is None:
        return ""
    text = f"{cell.mean:.1f}" + (f" ± {cell.spread:.1f}" if cell.seeds > 1 else "")
    # What pruning itself cost, where it did.
    return text if abs(cell.lost) < 0.05 else f"{text} ({-cell.lost:+.1f})"


def caption(results: Sequence[Result]) -> str:
    """What was trained, on what, for how long: read from the results."""
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
        parts.append(f"dense {dense.mean:.1f} ± {dense.spread:.1f}")
    return ", ".join(parts)


EXPLANATION = (
    "Test accuracy in percent after pruning, mean ± standard deviation over the seeds. "
    "In brackets: how much of it the moment of pruning changed, where it did."
)


def table(results: Sequence[Result]) -> rich.table.Table:
    """For the terminal."""
    heads, rows = lines(results)
    shown = rich.table.Table(
        title=caption(results), caption=EXPLANATION, title_justify="left"
    )
    shown.add_column(heads[0], no_wrap=True)
    for head in heads[1:]:
        shown.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    return shown


def markdown(results: Sequence[Result]) -> str:
    """For the docs."""
    heads, rows = lines(results)
    body = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    text = "".join("| " + " | ".join(row) + " |\n" for row in body)
    return f"{caption(results)}.\n\n{text}"
