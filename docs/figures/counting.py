"""docs/images/counting.png: the example of selection.md, two bits at a time.

python docs/figures/counting.py
"""

import numpy as np
from matplotlib.axes import Axes
from style import BLUE, GREY, INK, ORANGE, new_figure, save

KEYS = np.array([1, 2, 2, 3, 5, 6, 7, 7, 9, 10, 12, 14])
TOP = 0.66  # of the axes: where the counts are written
RANK = 7  # k = 7 are to be selected: look for the 8th smallest


def draw_pass(axes: Axes, low: int, width: int, title: str) -> int:
    """One reading: three candidates are counted. Returns where the next one starts."""
    heights = [np.sum(KEYS[:i] == key) for i, key in enumerate(KEYS)]
    inside = (low <= KEYS) & (low + 4 * width > KEYS)
    colours = np.where(inside, BLUE, "#c3cad0")
    candidates = low + width * np.arange(1, 4)
    counts = [int(np.sum(candidate > KEYS)) for candidate in candidates]
    fitting = [low, *(c for c, n in zip(candidates, counts, strict=True) if n <= RANK)]
    found = int(fitting[-1])
    axes.axvspan(found - 0.5, found + width - 0.5, 0, TOP, color="#f8dcc8", lw=0)
    axes.scatter(KEYS, 0.32 + 0.62 * np.array(heights), s=120, c=colours, zorder=3)
    for candidate, count in zip(candidates, counts, strict=True):
        fits = count <= RANK
        colour = ORANGE if candidate == found else INK if fits else GREY
        axes.axvline(candidate - 0.5, 0, TOP, color=colour, lw=1.4)
        axes.text(
            candidate - 0.5,
            1.85,
            f"v = {candidate}\n{count} {'≤' if fits else '>'} {RANK}",
            ha="center",
            fontsize=9.5,
            color=colour,
            fontweight="bold" if candidate == found else "normal",
        )
    axes.set_title(
        title, loc="left", fontsize=10.5, color=INK, fontweight="bold", pad=8
    )
    axes.set(xlim=(-0.6, 15.6), ylim=(0, 2.7), xticks=range(16), yticks=[])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.tick_params(color=GREY, labelcolor=INK, labelsize=9)
    return found


figure = new_figure(8.5, 5)
figure.get_layout_engine().set(hspace=0.12)
first, second = figure.subplots(2, 1)
start = draw_pass(
    first, 0, 4, "First reading: the upper two bits. How many keys are below v?"
)
threshold = draw_pass(
    second, start, 1, "Second reading: the lower two bits, among 4 to 7."
)
second.set_xlabel("key", fontsize=9.5, color=INK)
second.text(
    *(8.3, 1.9),
    f"The threshold is {threshold}: the 6 keys below it are selected,\n"
    "the two that tie with it are not.",
    fontsize=9.5,
    color=ORANGE,
)
if threshold != np.sort(KEYS)[RANK]:
    raise AssertionError("the picture does not show the order statistic")
save(figure, "counting")
