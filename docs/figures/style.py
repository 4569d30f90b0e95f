"""Style of the figures: colours for colour-blind readers too, and plain axes."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

IMAGES = Path(__file__).parent.parent / "images"
# Okabe & Ito, in an order that also differs in lightness.
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#8a4f7d"
INK, GREY, PALE = "#33393f", "#8a939b", "#eef1f3"


def new_figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=160, layout="constrained")


def plain(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.set_xlabel(x, fontsize=9.5, color=INK)
    axes.set_ylabel(y, fontsize=9.5, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(which="both", color=GREY, labelcolor=INK, labelsize=9)


def save(figure: Figure, name: str) -> None:
    IMAGES.mkdir(exist_ok=True)
    # Without matplotlib's version in the metadata, equal pictures are equal files.
    figure.savefig(IMAGES / f"{name}.png", metadata={"Software": None})
