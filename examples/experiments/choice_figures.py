"""Figures of structures, criteria and scopes next to each other."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import tables
from experiments.plain import AMBER, BLUE, GREEN, INK, ORANGE, PINK, SKY, YELLOW, plain

# What the row that the others are compared with has chosen.
USUAL = {"structure": "unstructured", "criterion": "magnitude", "scope": "global"}
TITLES = {"structure": "Structures", "criterion": "Criteria", "scope": "Scopes"}
STYLES = [
    {"color": ORANGE, "marker": "s"},
    {"color": GREEN, "marker": "^"},
    {"color": SKY, "marker": "v"},
    {"color": AMBER, "marker": "D"},
    {"color": PINK, "marker": "P"},
    {"color": YELLOW, "marker": "X"},
    {"color": INK, "marker": "*"},
]
# Points below dense training at which panels end: what falls further is in the table.
_DEEP = 25


def draw(results: Sequence[tables.Result]) -> Figure:
    """A panel for each choice: accuracy after pruning over what was to be kept."""
    of_row, columns = tables.cells(results), tables.columns_of(results)
    figure = Figure(figsize=(11, 4.4), dpi=160, layout="constrained")
    dense = of_row.get("dense", {}).get("100")
    [usual] = {row for row in of_row if row != "dense" and not tables.choice_of(row)}
    shown = figure.subplots(1, len(TITLES), sharey=True)
    for axes, (choice, title) in zip(shown, TITLES.items(), strict=True):
        rows = [row for row in of_row if tables.choice_of(row) == choice]
        if dense is not None:
            axes.axhline(dense.mean, color=INK, linewidth=0.8)
        for row, style in zip(rows, STYLES, strict=False):
            _line(axes, of_row[row], row.partition("=")[2], {"linewidth": 1.3} | style)
        style = {"color": BLUE, "marker": "o", "linewidth": 2.4}
        _line(axes, of_row[usual], USUAL[choice], style)
        axes.set_xscale("log")
        axes.invert_xaxis()
        axes.set_xticks([float(column) for column in columns], columns)
        axes.minorticks_off()
        y = "test accuracy, %" if axes is shown[0] else ""
        plain(axes, title, "% of the weights kept", y)
        axes.legend(fontsize=8, frameon=False, loc="lower left")
    _bound(shown[0], of_row, dense)
    figure.suptitle(tables.caption(results), fontsize=9, color=INK, x=0.01, ha="left")
    return figure


def _line(axes: Axes, cells: dict[str, tables.Cell], label: str, style: dict) -> None:
    known = sorted(cells, key=float, reverse=True)
    axes.errorbar(
        [float(column) for column in known],
        [cells[column].mean for column in known],
        [cells[column].spread for column in known],
        label=label,
        capsize=2,
        **style,
    )


def _bound(
    axes: Axes, of_row: dict[str, dict[str, tables.Cell]], dense: tables.Cell | None
) -> None:
    """Show what is worth telling apart, though some rows fall to chance."""
    means = [cell.mean for columns in of_row.values() for cell in columns.values()]
    top = max(means)
    low = max(min(means), (dense.mean if dense else top) - _DEEP)
    axes.set_ylim(low - 0.1 * (top - low), top + 0.08 * (top - low))
