"""The figure of `digits.py`: accuracy and residual over training, and the weights."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from digits_report import ONE_SHOT, Run, by_method
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Colours that colour-blind readers can tell apart (Okabe & Ito).
_COLOURS = {"dense": "#5b6570", "SWD": "#0072b2", ONE_SHOT: "#c8500a"}
_INK = "#40474e"


def draw_figure(runs: Sequence[Run], path: Path) -> None:
    """Accuracy and residual over training, and the weights at its end."""
    figure = Figure(figsize=(12, 3.6), dpi=150, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12)  # inches between the panels
    accuracy, residual, weights = figure.subplots(1, 3)
    groups = by_method(runs)
    _draw_accuracy(accuracy, groups)
    _draw_residual(residual, groups)
    _draw_weights(weights, groups)
    for axes in (accuracy, residual, weights):
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("#9aa3ab")
        axes.tick_params(color="#9aa3ab", labelcolor=_INK, labelsize=9)
    figure.savefig(path)


def _draw_accuracy(axes: Axes, groups: dict[str, list[Run]]) -> None:
    _label(axes, "Test accuracy (%)", "epoch")
    for name in ("dense", "SWD"):
        _draw_band(axes, name, [run.accuracies for run in groups[name]])
    # The first epochs are far below: the axis shows where the two can be told apart.
    settled = [run.accuracies[-1] for name in ("dense", "SWD") for run in groups[name]]
    bottom = max(0, min(90, 5 * np.floor(min(settled) / 5 - 1)))
    axes.set_ylim(bottom, 100)
    last = len(groups["SWD"][0].accuracies) - 1
    pruned = np.mean([run.after.accuracy for run in groups["SWD"] if run.after])
    axes.plot(last, pruned, "o", color=_COLOURS["SWD"])
    sparsity = _sparsity(groups["SWD"])
    _text(axes, "SWD", 0.97, 0.40, f"SWD, {sparsity} pruned: {pruned:.1f} %")
    dense = np.mean([run.before.accuracy for run in groups["dense"]])
    _text(axes, "dense", 0.97, 0.52, f"dense: {dense:.1f} %")
    one_shot = np.mean(
        [run.after.accuracy for run in groups[ONE_SHOT] if run.after]
    )
    arrow = " ↓" if one_shot < bottom else ""
    _text(
        axes,
        ONE_SHOT,
        *(0.97, 0.05),
        f"dense, {sparsity} pruned at once: {one_shot:.1f} %{arrow}",
    )


def _draw_residual(axes: Axes, groups: dict[str, list[Run]]) -> None:
    _label(axes, "Share of the norm that pruning would take", "epoch")
    axes.set_yscale("log")
    for name in ("dense", "SWD"):
        _draw_band(axes, name, [run.residuals for run in groups[name]])
    axes.set_ylim(top=2)
    _text(axes, "dense", 0.97, 0.83, "dense")
    _text(axes, "SWD", 0.60, 0.30, "SWD")


def _draw_weights(axes: Axes, groups: dict[str, list[Run]]) -> None:
    dense, sparse = groups["dense"][-1], groups["SWD"][-1]
    _label(axes, "Number of weights, by magnitude", "|weight|")
    # Ten bins in every power of ten, down to where nearly all weights are. Exact zeros
    # have no logarithm: they go with the smallest.
    together = np.concatenate([dense.magnitudes, sparse.magnitudes])
    lowest = np.floor(np.log10(max(np.quantile(together, 0.01), 1e-12)))
    bins = np.logspace(lowest, 1, int(10 * (1 - lowest)) + 1)
    for run, filled in ((dense, False), (sparse, True)):
        axes.hist(
            np.clip(run.magnitudes, bins[0], bins[-1]),
            bins,
            histtype="stepfilled" if filled else "step",
            color=_COLOURS[run.method],
            alpha=0.55 if filled else 1,
            linewidth=0 if filled else 1.2,
        )
    axes.hist(sparse.magnitudes_kept, bins, color=_COLOURS["SWD"])
    axes.set_xscale("log")
    threshold = sparse.magnitudes_kept.min()
    axes.axvline(threshold, color=_INK, linewidth=1, linestyle=(0, (3, 2)))


def _draw_band(axes: Axes, name: str, by_seed: Sequence[Sequence[float]]) -> None:
    """The mean over the seeds, in a band from the lowest to the highest."""
    values = np.array(by_seed)
    epochs = np.arange(values.shape[1])
    axes.fill_between(
        epochs, values.min(0), values.max(0), color=_COLOURS[name], alpha=0.2, lw=0
    )
    axes.plot(epochs, values.mean(0), color=_COLOURS[name], lw=1.8)
    axes.set_xlim(0, 1.02 * epochs[-1])


def _label(axes: Axes, title: str, below: str) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, color="#20262b")
    axes.set_xlabel(below, fontsize=9.5, color=_INK)


def _text(axes: Axes, name: str, x: float, y: float, text: str) -> None:
    """A label in a method's colour, in place of a legend; x and y from 0 to 1."""
    axes.text(
        *(x, y, text),
        transform=axes.transAxes,
        ha="right",
        fontsize=9.5,
        color=_COLOURS[name],
    )


def _sparsity(group: Sequence[Run]) -> str:
    return f"{group[0].numbers()['sparsity']:.3%}"
