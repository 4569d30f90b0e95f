"""The figure of structures, criteria and scopes next to each other."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure

from experiments import tables
from experiments.plain import INK

USUAL = "unstructured, by magnitude, global"
"""Choices of the row that all others are compared with."""

# Characters in a line of a label, of which two fit.
_LABEL = 48

# A point is within many spreads; 30 points are as bad as more.
_COLOURS = SymLogNorm(linthresh=1, vmin=0, vmax=30)


def draw(experiments: Mapping[str, Sequence[tables.Result]]) -> Figure:
    """A panel for each experiment: points lost against dense training, as colours."""
    rows = _rows(experiments.values())
    figure = Figure(
        figsize=(3.4 + 2.6 * len(experiments), 0.8 + 0.3 * len(rows)),
        dpi=160,
        layout="constrained",
    )
    panels = figure.subplots(1, len(experiments), sharey=True, squeeze=False)[0]
    for axes, results in zip(panels, experiments.values(), strict=True):
        image = _panel(axes, results, rows)
    panels[0].set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=8)
    bar = figure.colorbar(image, ax=panels, ticks=[0, 1, 3, 10, 30], pad=0.01)
    bar.ax.set_yticklabels(["0", "1", "3", "10", "30 or more"], fontsize=8)
    bar.set_label("points below dense training", fontsize=8.5, color=INK)
    bar.ax.minorticks_off()
    bar.ax.invert_yaxis()
    return figure


def _rows(experiments: Sequence[Sequence[tables.Result]]) -> list[str]:
    """All rows that any of the experiments has, in the order of the tables."""
    found = {row[0] for results in experiments for row in tables.lines(results)[1]}
    return sorted(found, key=lambda row: (tables.place_of(row), row))


def _label(row: str) -> str:
    label = row.replace("=", ": ", 1) if tables.choice_of(row) else USUAL
    return textwrap.fill(label, _LABEL)


def _panel(axes: Axes, results: Sequence[tables.Result], rows: Sequence[str]):
    of_row, columns = tables.cells(results), tables.columns_of(results)
    dense = of_row["dense"]["100"].mean
    means = np.full((len(rows), len(columns)), np.nan)
    for row, column in np.ndindex(means.shape):
        cell = of_row.get(rows[row], {}).get(columns[column])
        means[row, column] = np.nan if cell is None else cell.mean
    lost = np.clip(dense - means, 0, 30)
    image = axes.imshow(lost, norm=_COLOURS, cmap="cividis_r", aspect="auto")
    for (row, column), mean in np.ndenumerate(means):
        if np.isfinite(mean):
            color = "white" if _COLOURS(lost[row, column]) > 0.55 else "black"
            axes.text(
                *(column, row, f"{mean:.1f}"),
                ha="center",
                va="center",
                color=color,
                fontsize=8,
            )
    starts = [tables.place_of(row) for row in rows]
    for i in range(1, len(rows)):
        if starts[i] != starts[i - 1]:
            axes.axhline(i - 0.5, color="white", linewidth=4)
    run = results[0]["run"]
    title = f"{run['model']} on {run['data']}\ndense {dense:.1f} %"
    axes.set_title(title, loc="left", fontsize=9, color=INK)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_xlabel("% of the weights kept", fontsize=9, color=INK)
    axes.tick_params(length=0, labelcolor=INK, labelsize=8)
    axes.spines[:].set_visible(False)
    return image
