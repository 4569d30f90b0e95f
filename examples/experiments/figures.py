"""Figures of results."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import whole_files
from experiments import choice_figures, tables
from experiments.plain import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, plain

STYLES = {
    "sparsify": {"color": PURPLE, "marker": "D", "linewidth": 2.2},
    "swd": {"color": SKY, "marker": "o", "linestyle": "--"},
    "swd-normalized": {"color": SKY, "marker": "s", "linestyle": ":"},
    "swd-rising": {"color": BLUE, "marker": "o", "linewidth": 2.2},
    "swd-rising-normalized": {"color": BLUE, "marker": "s", "linestyle": ":"},
    "gradual": {"color": ORANGE, "marker": "^", "linewidth": 2.2},
    "fine-tuned": {"color": GREEN, "marker": "v"},
}
# Channels look like the single weights of the same method; with a floor, dotted.
_CHANNELS = {
    "sparsify-channels": STYLES["sparsify"],
    "swd-channels": STYLES["swd"],
    "swd-channels-rising": STYLES["swd-rising"],
    "gradual-channels": STYLES["gradual"],
    "slimming-tuned": STYLES["fine-tuned"],
}
STYLES |= _CHANNELS | {"thin": {"color": INK, "marker": "x", "linewidth": 1.2}}
STYLES |= {
    f"{row} min_channels=0.125": style | {"linestyle": ":", "linewidth": 1.2}
    for row, style in _CHANNELS.items()
}


def draw(name: str, results: Sequence[tables.Result], folder: Path) -> list[Path]:
    """All figures that the results are good for."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    columns = tables.columns_of(results)
    if "a_min=" in results[0]["run"]["variant"]:
        made[f"paper-{name}"] = heat_map(results)
    elif any(tables.choice_of(tables.row_of(result)) for result in results):
        made[f"paper-{name}"] = choice_figures.draw({name: results})
    else:
        if len(columns) > 1:
            made[f"paper-{name}"] = accuracy_figure(results)
        if columns:
            made[f"paper-{name}-curves"] = curves_figure(results)
    paths = []
    for stem, figure in made.items():
        path = folder / f"{stem}.png"
        # No date or version inside: the same picture is the same file.
        with whole_files.writing(path) as stream:
            figure.savefig(stream, format="png", metadata={"Software": None})
        paths.append(path)
    return paths


def accuracy_figure(results: Sequence[tables.Result]) -> Figure:
    """Accuracy after pruning over what is kept, a line for each method."""
    of_row, columns = tables.cells(results), tables.columns_of(results)
    figure = Figure(figsize=(9, 5.2), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    dense = of_row.get("dense", {}).get("100")
    if dense is not None:
        axes.axhline(dense.mean, color=INK, linewidth=0.8)
        axes.annotate(
            "dense", (1, dense.mean), xycoords=("axes fraction", "data"), va="bottom"
        )
    others = {}
    for row in sorted(of_row, key=lambda row: row in STYLES):
        known = [column for column in columns if column in of_row[row]]
        if row == "dense" or not known:
            continue
        style = STYLES.get(row, {"color": GREY, "alpha": 0.75, "linewidth": 0.9})
        cells = [of_row[row][column] for column in known]
        axes.errorbar(
            [float(column) for column in known],
            [cell.mean for cell in cells],
            [cell.spread for cell in cells],
            label=row if row in STYLES else None,
            capsize=2,
            **style,
        )
        if row not in STYLES:
            others[row] = cells[-1].mean
    _label_at_the_right(axes, others)
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_xticks([float(c) for c in columns], columns)
    axes.minorticks_off()
    plain(axes, tables.caption(results), tables.kept_of(results), _measured(results))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False, loc="lower left")
    return figure


def _measured(results: Sequence[tables.Result]) -> str:
    unit = tables.unit_of(results)
    return f"{'test accuracy' if unit == '%' else 'signal-to-noise ratio'}, {unit}"


def _label_at_the_right(axes: Axes, ends: dict[str, float]) -> None:
    """Name lines where they end, each name a little below the last."""
    low, high = axes.get_ylim()
    last = float("inf")
    for row, end in sorted(ends.items(), key=lambda item: -item[1]):
        last = min(end, last - 0.033 * (high - low))
        axes.annotate(
            row,
            (1.0, last),
            xycoords=("axes fraction", "data"),
            color=GREY,
            fontsize=8,
            va="center",
        )


def curves_figure(results: Sequence[tables.Result]) -> Figure:
    """Draw the training of one network: one seed, the hardest target."""
    column = tables.columns_of(results)[-1]
    shown = {row for row in STYLES if not re.search("normalized|min_channels", row)}
    chosen = [
        result
        for result in results
        if tables.column_of(result) == column
        and tables.row_of(result) in shown
        and result["run"]["seed"] == min(r["run"]["seed"] for r in results)
    ]
    panels = {
        "test": f"{_measured(results)} before pruning",
        "residual": "share of the norm to be pruned",
        "migrated_in": "weights that became selected",
        "multiplier": "multiplier a",
    }
    figure = Figure(figsize=(9, 5.6), dpi=160, layout="constrained")
    axes = figure.subplots(2, 2).ravel()
    for one, (key, label) in zip(axes, panels.items(), strict=True):
        for result in chosen:
            curve = result["curves"].get(key)
            if curve is None:
                continue
            points = len(curve)
            epochs = result["run"]["epochs"] / points * np.arange(1, points + 1)
            row = tables.row_of(result)
            style = {k: v for k, v in STYLES[row].items() if k != "marker"}
            values = np.array([np.nan if v is None else v for v in curve], float)
            one.plot(epochs, values, label=row, **style)
        if key in ("multiplier",):
            one.set_yscale("log")
        plain(one, "", "epoch", label)
    axes[0].set_title(f"{column} % kept, one seed", loc="left", fontsize=10, color=INK)
    if axes[0].get_legend_handles_labels()[0]:
        axes[0].legend(fontsize=8, frameon=False)
    return figure


def heat_map(results: Sequence[tables.Result]) -> Figure:
    """Accuracy after pruning, and what pruning cost, over a_min and a_max."""
    of_row = tables.cells(results)
    numbers: dict[tuple[float, float], tables.Cell] = {}
    for row, columns in of_row.items():
        found = re.search(r"a_min=(\S+) a_max=(\S+)", row)
        if found:
            [cell] = columns.values()
            numbers[float(found[1]), float(found[2])] = cell
    lows = sorted({low for low, _ in numbers})
    highs = sorted({high for _, high in numbers})
    figure = Figure(figsize=(10, 4.2), dpi=160, layout="constrained")
    panels: list[tuple[str, Any]] = [
        ("test accuracy after pruning, %", lambda cell: cell.mean),
        ("points lost by pruning", lambda cell: cell.lost),
    ]
    for axes, (title, value) in zip(figure.subplots(1, 2), panels, strict=True):
        grid = np.full((len(lows), len(highs)), np.nan)
        for (low, high), cell in numbers.items():
            grid[lows.index(low), highs.index(high)] = value(cell)
        axes.imshow(grid, origin="lower", aspect="auto", cmap="cividis")
        for (y, x), number in np.ndenumerate(grid):
            if np.isfinite(number):
                middle = np.nanmean([np.nanmin(grid), np.nanmax(grid)])
                color = "black" if number > middle else "white"
                text = f"{number:.1f}"
                axes.text(x, y, text, ha="center", va="center", color=color, fontsize=8)
        axes.set_xticks(range(len(highs)), [f"{high:g}" for high in highs])
        axes.set_yticks(range(len(lows)), [f"{low:g}" for low in lows])
        plain(axes, title, "a_max", "a_min")
    figure.suptitle(tables.caption(results), fontsize=9, color=INK, x=0.01, ha="left")
    return figure
