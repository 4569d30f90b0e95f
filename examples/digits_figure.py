"""The figure of `digits.py`: what happens over training, for each method."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from digits_report import (
    DENSE,
    GRADUAL,
    ONE_SHOT,
    SPARSIFY,
    SWD,
    Run,
    by_method,
    mean_and_deviation,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

import whole_files

# Colours that colour-blind readers can tell apart (Okabe & Ito).
_COLOURS = {
    DENSE: "#5b6570",
    SPARSIFY: "#0072b2",
    SWD: "#009e73",
    GRADUAL: "#8a4f7d",
    ONE_SHOT: "#c8500a",
}
_INK = "#40474e"
_FAINT = "#9aa3ab"
# Where the axis of the residual ends, since zero has no logarithm.
_FLOOR = 1e-6

Groups = dict[str, list[Run]]


def draw_figure(runs: Sequence[Run], path: Path) -> None:
    """Write the three panels as an image."""
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08, wspace=0.03)
    figure = Figure(figsize=(12, 3.8), dpi=150, layout=layout)
    groups = by_method(runs)
    accuracy, residual, returned = figure.subplots(1, 3)
    _draw_accuracy(accuracy, groups)
    _draw_residual(residual, groups)
    _draw_returned(returned, groups)
    for axes in (accuracy, residual, returned):
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_FAINT)
        axes.tick_params(which="both", color=_FAINT, labelcolor=_INK, labelsize=9)
    with whole_files.writing(path) as stream:
        figure.savefig(stream, format="png")


def _draw_accuracy(axes: Axes, groups: Groups) -> None:
    _label(axes, "Test accuracy (%)")
    for name in (DENSE, GRADUAL, SWD, SPARSIFY):
        _draw_band(axes, name, [run.accuracies for run in groups[name]])
    # The first epochs start far below: show where the methods can be told apart.
    trained = [run for name in groups if name != ONE_SHOT for run in groups[name]]
    lowest = min(run.before.accuracy for run in trained)
    bottom = max(0, min(90, 10 * (lowest // 10)))
    axes.set_ylim(bottom, 100)
    sparsity = f"{100 * groups[SPARSIFY][0].numbers()['sparsity_after']:.3g} %"
    dense, _ = mean_and_deviation(groups[DENSE], "accuracy_before")
    _text(axes, DENSE, (0.97, 0.40), f"dense: {dense:.1f}")
    _text(axes, None, (0.97, 0.32), f"with {sparsity} of the weights pruned:")
    for i, name in enumerate((SPARSIFY, SWD, GRADUAL, ONE_SHOT)):
        after, _ = mean_and_deviation(groups[name], "accuracy_after")
        arrow = " ↓" if after < bottom else ""
        _text(axes, name, (0.97, 0.25 - 0.07 * i), f"{name}: {after:.1f}{arrow}")


def _draw_residual(axes: Axes, groups: Groups) -> None:
    _label(axes, "Share of the norm that pruning takes")
    axes.set_yscale("log")
    for name in (DENSE, SWD, GRADUAL, SPARSIFY):
        residuals = [np.maximum(run.residuals, 0.5 * _FLOOR) for run in groups[name]]
        _draw_band(axes, name, residuals, dashed=name == SPARSIFY)
    axes.set_ylim(_FLOOR, 2)
    _text(axes, DENSE, (0.97, 0.86), DENSE)
    _text(axes, SWD, (0.98, 0.45), SWD)
    is_zero = np.all([np.equal(run.residuals, 0) for run in groups[SPARSIFY]], axis=0)
    if is_zero[-1]:
        start = 1 + max(np.flatnonzero(~is_zero), default=-1)
        _text(axes, SPARSIFY, (0.62, 0.30), f"{SPARSIFY} and")
        _text(axes, GRADUAL, (0.62, 0.23), GRADUAL)
        _text(axes, None, (0.62, 0.16), f"0 from epoch {start} on")


def _draw_returned(axes: Axes, groups: Groups) -> None:
    _label(axes, "Weights back after having been zero")
    for name in (GRADUAL, SPARSIFY):
        _draw_band(axes, name, [run.returned for run in groups[name]])
    final, _ = mean_and_deviation(groups[SPARSIFY], "weights_returned")
    kept, _ = mean_and_deviation(groups[SPARSIFY], "weights_kept")
    axes.set_ylim(bottom=0)
    share = f"{SPARSIFY}: {final:,.0f} of the {kept:,.0f} kept"
    _text(axes, SPARSIFY, (0.97, 0.90), share)
    _text(axes, GRADUAL, (0.97, 0.05), f"{GRADUAL}: none")


def _draw_band(
    axes: Axes, name: str, by_seed: Sequence[Sequence[float]], dashed: bool = False
) -> None:
    """The mean over the seeds, in a band from the lowest to the highest."""
    values = np.array(by_seed)
    epochs = np.arange(values.shape[1])
    colour = _COLOURS[name]
    axes.fill_between(
        epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, lw=0
    )
    line = (0, (4, 2)) if dashed else "-"
    axes.plot(epochs, values.mean(axis=0), color=colour, lw=1.8, ls=line)
    axes.set_xlim(0, 1.02 * epochs[-1])


def _label(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=_INK, fontweight="bold", pad=9)
    axes.set_xlabel("epoch", fontsize=9.5, color=_INK)


def _text(axes: Axes, name: str | None, at: tuple[float, float], text: str) -> None:
    """A label in its method's colour, in place of a legend; x and y from 0 to 1."""
    axes.text(
        *(*at, text),
        transform=axes.transAxes,
        horizontalalignment="right",
        fontsize=9.5,
        color=_COLOURS[name] if name else _INK,
    )
