"""docs/images/counting.png: two passes that find one of 400 keys by its rank.

python docs/figures/counting.py
"""

import math

import numpy as np
from matplotlib.axes import Axes
from style import BLUE, GREEN, GREY, INK, ORANGE, PALE, new_figure, plain, save

RANK = 296
DEVIATIONS = (-1.5, -0.5, 0.5, 1.5)
FIRST_CANDIDATES = [4700, 5700, 6050, 7100]
TEXT = {"fontsize": 9, "textcoords": "offset points"}
keys = np.unique(np.random.default_rng(1).normal(5000, 1500, 400).astype(int))


def below(value: float) -> int:
    return int(np.searchsorted(keys, value))


def interpolated(low: int, high: int) -> list[int]:
    """The next candidates in a bracket."""
    in_bracket = below(high) - below(low)
    share = (RANK + 0.5 - below(low)) / in_bracket
    error = math.sqrt(share * (1 - share) / in_bracket)
    return [round(low + (high - low) * (share + d * error)) for d in DEVIATIONS]


def draw(axes: Axes, candidates: list[int], low: int, high: int, title: str) -> None:
    """Draw the keys from low to high, and the counts of one pass."""
    plain(axes, title, "key", "keys below")
    margin = 0.08 * (high - low)
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(
        below(low - margin) - 1, 1.08 * below(high + margin) - 0.08 * below(low)
    )
    axes.plot(keys, np.arange(keys.size), color=GREY, lw=1, drawstyle="steps-pre")
    axes.plot(keys, np.arange(keys.size), ".", color=BLUE, ms=4)
    axes.axhline(RANK, color=GREEN, lw=1)
    axes.annotate(
        f"k = {RANK}",
        (low - margin, RANK),
        (4, 4),
        color=GREEN,
        fontweight="bold",
        **TEXT,
    )
    for candidate in candidates:
        fits = below(candidate) <= RANK
        axes.axvline(candidate, color=ORANGE if fits else GREY, lw=1)
        axes.text(
            *(candidate, 0.96),
            str(below(candidate)),
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="center",
            fontsize=9,
            color=INK,
            bbox={"fc": "white", "ec": "none", "pad": 1.5},
        )


figure = new_figure(11, 3.6)
left, right = figure.subplots(1, 2)
draw(left, FIRST_CANDIDATES, 4400, 7200, "First pass: four candidates, four counts")
bracket = (
    max(key for key in FIRST_CANDIDATES if below(key) <= RANK),
    min(key for key in FIRST_CANDIDATES if below(key) > RANK),
)
left.axvspan(*bracket, color=PALE, zorder=0)
left.annotate("the bracket", (bracket[1], 200), (6, 0), color=INK, va="center", **TEXT)

candidates = interpolated(*bracket)
draw(right, candidates, *bracket, "Second: four in the bracket, by interpolation")
right.axvspan(*bracket, color=PALE, zorder=0)
ends = [below(end) for end in bracket]
right.plot(bracket, ends, color=INK, lw=1, ls=(0, (3, 2)))
[hit] = [candidate for candidate in candidates if below(candidate) == RANK]
threshold = int(keys[below(hit)])
right.plot(threshold, RANK, "o", color=GREEN, ms=8, mfc="none", mew=1.8)
right.annotate(
    f"{RANK} below this one:\nthe key that comes next\nis the threshold",
    (threshold, RANK),
    (26, -60),
    color=GREEN,
    arrowprops={"arrowstyle": "-|>", "color": GREEN, "shrinkB": 7},
    **TEXT,
)
if threshold != keys[RANK]:
    raise AssertionError("the picture does not show the order statistic")
save(figure, "counting")
