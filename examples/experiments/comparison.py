"""One method against the others, seed by seed, over the cells of experiments.

A cell is an experiment, a variant and a part of the weights kept. Only seeds that all
methods of a cell have are compared: in each of them, the methods start from the same
weights and see the same batches.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import rich.table

from experiments import tables

METHOD = "sparsify"
RIVALS = ("gradual", "straight-through", "feather")
"""Those of which the difference is averaged over all cells."""

Seed = tuple[str, str, int]
"""Data, model and seed: what is the same start in other cells too."""


class Cell(NamedTuple):
    """Results of methods under the same conditions."""

    experiment: str
    variant: str
    kept: str
    """In percent: "0.5"."""
    unit: str
    scores: dict[str, dict[Seed, float]]
    """By method; the same seeds for all of them."""

    @property
    def means(self) -> dict[str, float]:
        return {
            method: statistics.mean(scores.values())
            for method, scores in self.scores.items()
        }

    @property
    def seeds(self) -> int:
        return len(next(iter(self.scores.values())))

    def differences(self, method: str, other: str) -> dict[Seed, float]:
        scores, others = self.scores[method], self.scores[other]
        return {seed: scores[seed] - others[seed] for seed in scores}


class Difference(NamedTuple):
    """A mean difference of paired seeds: above 0 where the first method is better."""

    mean: float
    error: float | None
    """Standard error; None if it is of a single seed."""

    @property
    def verdict(self) -> str:
        """Which method is better, if the difference is more than two errors."""
        if self.error is None:
            return "one seed"
        if abs(self.mean) <= 2 * self.error:
            return "within 2 errors"
        return "better" if self.mean > 0 else "worse"

    def __str__(self) -> str:
        error = "" if self.error is None else f" ± {self.error:.2f}"
        return f"{self.mean:+.2f}{error}"


def cells(
    results: Sequence[tables.Result],
    *,
    methods: Sequence[str] = (),
    most_kept: float = 100.0,
) -> list[Cell]:
    """The cells of results, of any number of experiments; without dense training.

    Args:
      results: of the experiments.
      methods: only these; all if there are none.
      most_kept: only cells with at most so many percent of the weights kept.
    """
    found: dict[tuple[str, str, str], dict[str, dict[Seed, float]]] = {}
    units: dict[str, str] = {}
    for result in results:
        run = result["run"]
        if run["sparsity"] == 0 or (methods and run["method"] not in methods):
            continue
        if float(tables.column_of(result)) > most_kept:
            continue
        key = (run["experiment"], run["variant"], tables.column_of(result))
        scores = found.setdefault(key, {}).setdefault(run["method"], {})
        seed = (run["data"], run["model"], run["seed"])
        scores[seed] = result["final"]["test_after"]
        units[run["experiment"]] = tables.unit_of([result])
    # The most that is kept first, and variants in the order in which they were found.
    order: dict[tuple[str, str], int] = {}
    for key in found:
        order.setdefault(key[:2], len(order))
    compared = []
    for key in sorted(found, key=lambda key: (order[key[:2]], -float(key[2]))):
        common = set.intersection(*map(set, found[key].values()))
        if common:
            scores = {
                method: {seed: scores[seed] for seed in sorted(common)}
                for method, scores in found[key].items()
            }
            compared.append(Cell(*key, units[key[0]], scores))
    return compared


def difference(cells: Sequence[Cell], method: str, other: str) -> Difference | None:
    """The mean over cells of the mean difference of paired seeds.

    The cells are taken as they are: the standard error is that of drawing other seeds
    for them. A seed of the same data and model is the same draw in every cell, so that
    its differences are added before they are squared.

    Args:
      cells: of one unit. Those without one of the methods are left out.
      method: is better where the difference is above 0.
      other: is compared with.

    Returns:
      None if no cell has both methods.
    """
    both = [cell for cell in cells if {method, other} <= cell.scores.keys()]
    if not both:
        return None
    means, deviations = [], {}
    single = any(cell.seeds == 1 for cell in both)
    for cell in both:
        differences = cell.differences(method, other)
        mean, count = statistics.mean(differences.values()), len(differences)
        means.append(mean)
        for seed, value in differences.items():
            part = 0.0 if single else (value - mean) / math.sqrt(count * (count - 1))
            deviations[seed] = deviations.get(seed, 0.0) + part
    squares = sum(deviation**2 for deviation in deviations.values())
    error = None if single else math.sqrt(squares) / len(both)
    return Difference(statistics.mean(means), error)


def best(cell: Cell, *, without: str = "") -> str:
    """The method of the highest mean, of those besides `without`."""
    means = {method: mean for method, mean in cell.means.items() if method != without}
    return max(means, key=lambda method: means[method])


def ranks(cells: Sequence[Cell]) -> dict[str, list[float]]:
    """The rank of each method in the cells that have it: 1 is best, ties share."""
    found: dict[str, list[float]] = {}
    for cell in cells:
        means = cell.means
        for method, mean in means.items():
            better = sum(each > mean for each in means.values())
            equal = sum(each == mean for each in means.values())
            found.setdefault(method, []).append(better + (equal + 1) / 2)
    return found


class Part(NamedTuple):
    """A table of the comparison, as text."""

    title: str
    heads: list[str]
    rows: list[list[str]]
    texts: int
    """So many columns are words, the others are numbers."""

    def markdown(self) -> str:
        """For the docs."""
        table = tables.as_markdown(self.heads, self.rows, self.texts)
        return f"{self.title}.\n\n{table}"


def parts(cells: Sequence[Cell], method: str = METHOD) -> Iterator[Part]:
    """All tables of the comparison.

    Raises:
      ValueError: if no cell has the method.
    """
    if not any(method in cell.scores for cell in cells):
        there = sorted({name for cell in cells for name in cell.scores})
        raise ValueError(f"no results of {method}: there are {', '.join(there)}")
    for experiment in dict.fromkeys(cell.experiment for cell in cells):
        yield _means([cell for cell in cells if cell.experiment == experiment])
    yield _against_the_best(cells, method)
    yield _ranks(cells)
    yield _over_cells(cells, method)


def _means(cells: Sequence[Cell]) -> Part:
    columns = sorted({cell.kept for cell in cells}, key=float, reverse=True)
    texts: dict[tuple[str, str], dict[str, str]] = {}
    for cell in cells:
        first = best(cell)
        for method, mean in cell.means.items():
            text = f"{mean:.2f}{' *' if method == first else ''}"
            texts.setdefault((cell.variant, method), {})[cell.kept] = text
    rows = [
        [*row, *(of_column.get(column, "") for column in columns)]
        for row, of_column in texts.items()
    ]
    if not any(cell.variant for cell in cells):
        rows = [row[1:] for row in rows]
        heads = ["method"]
    else:
        heads = ["variant", "method"]
    title = f"{cells[0].experiment}: means over the paired seeds, {cells[0].unit}"
    return Part(
        f"{title}, by % of the weights kept; * is the best",
        [*heads, *columns],
        rows,
        len(heads),
    )


def _against_the_best(cells: Sequence[Cell], method: str) -> Part:
    rows = []
    for cell in cells:
        if method not in cell.scores or len(cell.scores) == 1:
            continue
        rival = best(cell, without=method)
        found = difference([cell], method, rival)
        assert found is not None  # the cell has both
        names = [cell.experiment, cell.variant, best(cell), rival, found.verdict]
        rows.append([*names, cell.kept, str(cell.seeds), str(found)])
    return Part(
        f"{method} less the best other method, ± standard error of the paired "
        "difference",
        [
            *("experiment", "variant", "best", "best other", f"{method} is"),
            *("% kept", "seeds", "difference"),
        ],
        rows,
        5,
    )


def of_two(cells: Sequence[Cell], method: str, other: str) -> Part:
    """The cells that have both of two methods, a row each."""
    rows = []
    for cell in cells:
        found = difference([cell], method, other)
        if found is not None:
            means = (f"{cell.means[name]:.2f}" for name in (method, other))
            names = [cell.experiment, cell.variant, found.verdict, cell.kept]
            rows.append([*names, *means, str(cell.seeds), str(found)])
    return Part(
        f"{method} less {other}, ± standard error of the paired difference",
        [
            *("experiment", "variant", f"{method} is", "% kept", method, other),
            *("seeds", "difference"),
        ],
        rows,
        3,
    )


def _ranks(cells: Sequence[Cell]) -> Part:
    found = ranks(cells)
    means = {method: statistics.mean(places) for method, places in found.items()}
    rows = [
        [method, f"{means[method]:.2f}", str(len(found[method]))]
        for method in sorted(found, key=lambda method: means[method])
    ]
    return Part("Mean rank over the cells", ["method", "rank", "cells"], rows, 1)


def _over_cells(cells: Sequence[Cell], method: str) -> Part:
    rows = []
    for unit in dict.fromkeys(cell.unit for cell in cells):
        same = [cell for cell in cells if cell.unit == unit]
        for rival in RIVALS:
            found = difference(same, method, rival)
            if found is not None and rival != method:
                both = [c for c in same if {method, rival} <= c.scores.keys()]
                names = [f"{method} − {rival}", unit, found.verdict]
                rows.append([*names, str(len(both)), str(found)])
    return Part(
        "Mean difference over the cells, ± standard error",
        ["methods", "unit", f"{method} is", "cells", "difference"],
        rows,
        3,
    )


def markdown(cells: Sequence[Cell], method: str = METHOD) -> str:
    """For the docs."""
    return "\n".join(part.markdown() for part in parts(cells, method))


def shown(cells: Sequence[Cell], method: str = METHOD) -> Iterator[rich.table.Table]:
    """For the terminal."""
    for part in parts(cells, method):
        table = rich.table.Table(title=part.title, title_justify="left")
        for place, head in enumerate(part.heads):
            justify = "left" if place < part.texts else "right"
            table.add_column(head, justify=justify, no_wrap=True)
        for row in part.rows:
            table.add_row(*row)
        yield table
