"""The figure of `digits.py`: accuracy and residual over training, and the weights."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from digits_report import ONE_SHOT, Run, by_method, mean_and_deviation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

# Colours that colour-blind readers can tell apart (Okabe & Ito).
_COLOURS = {"dense": "#5b6570", "SWD": "#0072b2", ONE_SHOT: "#c8500a"}
_INK = "#40474e"
_FAINT = "#9aa3ab"


def draw_figure(runs: Sequence[Run], path: Path) -> None:
    """Write the three panels as an image."""
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08, wspace=0.03)
    figure = Figure(figsize=(12, 3.6), dpi=150, layout=layout)
    groups = by_method(runs)
    accuracy, residual, weights = figure.subplots(1, 3)
    _draw_accuracy(accuracy, groups)
    _draw_residual(residual, groups)
    _draw_weights(weights, groups)
    for axes in (accuracy, residual, weights):
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_FAINT)
        axes.tick_params(which="both", color=_FAINT, labelcolor=_INK, labelsize=9)
    figure.savefig(path)


def _draw_accuracy(axes: Axes, groups: dict[str, list[Run]]) -> None:
    _label(axes, "Test accuracy (%)", "epoch")
    for name in ("dense", "SWD"):
        _draw_band(axes, name, [run.accuracies for run in groups[name]])
    # The first epochs start far below: show where the methods can be told apart.
    lowest = min(run.before.accuracy for run in groups["dense"] + groups["SWD"])
    bottom = max(0, min(90, 10 * (lowest // 10)))
    axes.set_ylim(bottom, 100)
    dense, _ = mean_and_deviation(groups["dense"], "accuracy_before")
    before, _ = mean_and_deviation(groups["SWD"], "accuracy_before")
    after, _ = mean_and_deviation(groups["SWD"], "accuracy_after")
    at_once, _ = mean_and_deviation(groups[ONE_SHOT], "accuracy_after")
    axes.plot(len(groups["SWD"][0].accuracies) - 1, after, "o", color=_COLOURS["SWD"])
    pruned = f"{100 * groups['SWD'][0].numbers()['sparsity']:.3g} % pruned"
    arrow = " ↓" if at_once < bottom else ""
    _text(axes, "dense", (0.97, 0.34), f"dense: {dense:.1f} %")
    _text(
        axes, "SWD", (0.97, 0.25), f"SWD: {before:.1f} %, with {pruned}: {after:.1f} %"
    )
    _text(
        axes, ONE_SHOT, (0.97, 0.05), f"dense, {pruned} at once: {at_once:.1f} %{arrow}"
    )


def _draw_residual(axes: Axes, groups: dict[str, list[Run]]) -> None:
    _label(axes, "Share of the norm outside the target", "epoch")
    axes.set_yscale("log")
    for name in ("dense", "SWD"):
        # Zero has no logarithm.
        residuals = [np.maximum(run.residuals, 1e-12) for run in groups[name]]
        _draw_band(axes, name, residuals)
    axes.set_ylim(top=2)
    _text(axes, "dense", (0.97, 0.84), "dense")
    _text(axes, "SWD", (0.80, 0.30), "SWD")
    _text(
        axes,
        None,
        (0.04, 0.05),
        "what pruning to the final sparsity\nwould take away",
        align="left",
    )


def _draw_weights(axes: Axes, groups: dict[str, list[Run]]) -> None:
    """The magnitudes in the last dense and the last SWD network."""
    _label(
        axes,
        "Number of weights by magnitude",
        "|weight| before pruning; the first bar: and smaller",
    )
    dense, sparse = groups["dense"][-1], groups["SWD"][-1]
    threshold = sparse.magnitudes_kept.min()
    # Five bins in every power of ten, the threshold where two of them meet. What is
    # still smaller, zeros too, counts in the first.
    bins = threshold * 10 ** (np.arange(-45, 8) / 5)
    for magnitudes, style in (
        (sparse.magnitudes, {"histtype": "stepfilled", "color": "#8fc1e0"}),
        (sparse.magnitudes_kept, {"histtype": "stepfilled", "color": _COLOURS["SWD"]}),
        (dense.magnitudes, {"histtype": "step", "color": _COLOURS["dense"], "lw": 1.4}),
    ):
        axes.hist(np.clip(magnitudes, bins[0], bins[-1]), bins, **style)
    axes.set(xscale="log", yscale="log", xlim=(bins[0], bins[-1]), ylim=(1, 3e5))
    axes.minorticks_off()
    axes.axvline(threshold, color=_INK, linewidth=1, linestyle=(0, (3, 2)))
    kept = sparse.magnitudes_kept.size
    pruned = sparse.magnitudes.size - kept
    _text(axes, "SWD", (0.25, 0.72), f"SWD: {pruned:,}\nwill be pruned", align="center")
    _text(axes, "SWD", (0.88, 0.64), f"{kept:,}\nkept", align="left")
    _text(axes, "dense", (0.72, 0.76), "dense")
    _text(axes, None, (0.84, 0.93), "threshold")


def _draw_band(axes: Axes, name: str, by_seed: Sequence[Sequence[float]]) -> None:
    """The mean over the seeds, in a band from the lowest to the highest."""
    values = np.array(by_seed)
    epochs = np.arange(values.shape[1])
    colour = _COLOURS[name]
    axes.fill_between(
        epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, lw=0
    )
    axes.plot(epochs, values.mean(axis=0), color=colour, lw=1.8)
    axes.set_xlim(0, 1.02 * epochs[-1])


def _label(axes: Axes, title: str, below: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=_INK, fontweight="bold", pad=9)
    axes.set_xlabel(below, fontsize=9.5, color=_INK)


def _text(
    axes: Axes,
    name: str | None,
    at: tuple[float, float],
    text: str,
    *,
    align: str = "right",
) -> None:
    """A label in its method's colour, in place of a legend; x and y from 0 to 1."""
    axes.text(
        *(*at, text),
        transform=axes.transAxes,
        horizontalalignment=align,
        fontsize=9.5,
        color=_COLOURS[name] if name else _INK,
    )
