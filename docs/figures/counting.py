"""docs/images/counting.png: two readings that find one of 400 keys by its rank.

python docs/figures/counting.py
"""

import math

import numpy as np
from matplotlib.axes import Axes
from style import BLUE, GREEN, GREY, INK, ORANGE, PALE, new_figure, plain, save

RANK = 296
DEVIATIONS = (-1.5, -0.5, 0.5, 1.5)
keys = np.unique(np.random.default_rng(1).normal(5000, 1500, 400).astype(int))


def draw(axes: Axes, candidates: list[int], low: int, high: int, title: str) -> None:
    plain(axes, title, "key", "keys below")
    inside = keys[(keys >= low) & (keys < high)]
    axes.plot(keys, np.arange(keys.size), color=GREY, lw=1, drawstyle="steps-post")
    axes.plot(inside, np.searchsorted(keys, inside), ".", color=BLUE, ms=4)
    axes.axhline(RANK, color=GREEN, lw=1)
    for candidate in candidates:
        count = int(np.searchsorted(keys, candidate))
        fits = count <= RANK
        axes.axvline(candidate, color=ORANGE if fits else GREY, lw=1)
        axes.annotate(
            str(count),
            (candidate, count),
            (3, -9 if fits else 5),
            textcoords="offset points",
            fontsize=9,
            color=INK,
        )
    axes.set_facecolor(PALE)
    margin = 0.08 * (high - low)
    axes.set_xlim(low - margin, high + margin)
    counts = np.searchsorted(keys, [low - margin, high + margin])
    axes.set_ylim(counts[0] - 1, counts[1] + 1)


def interpolated(low: int, high: int) -> list[int]:
    below, above = np.searchsorted(keys, [low, high])
    share = (RANK - below + 0.5) / (above - below)
    error = math.sqrt(share * (1 - share) / (above - below))
    return [round(low + (high - low) * (share + d * error)) for d in DEVIATIONS]


figure = new_figure(11, 3.4)
left, right = figure.subplots(1, 2)
first = [4700, 5700, 6050, 7100]
draw(left, first, 4600, 7200, "First reading: four guesses, four counts")
low = max(c for c in first if np.searchsorted(keys, c) <= RANK)
high = min(c for c in first if np.searchsorted(keys, c) > RANK)
second = interpolated(low, high)
draw(right, second, low, high, "Second: four in the gap, by interpolation")
save(figure, "counting")
