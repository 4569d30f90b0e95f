"""docs/images/study.png: methods less the best of each cell, from docs/results.

python docs/figures/study.py
"""

import sys
from pathlib import Path

from style import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, new_figure, plain, save

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "examples"))

from experiments import comparison, results, study  # noqa: E402

# Experiments and variants, in the order of the figure.
GROUPS = {
    ("digits", ""): "digits",
    ("mnist", ""): "MNIST",
    ("cora", ""): "Cora",
    ("study-text", ""): "text",
    ("study-text", "embeddings dense"): "text, embeddings\ndense",
    ("study-picture", ""): "picture",
}
METHODS = {
    "swd-rising": (GREY, "v"),
    "gradual": (BLUE, "s"),
    "straight-through": (GREEN, "D"),
    "feather": (PURPLE, "^"),
    "sparsify": (ORANGE, "o"),
}
LOWEST = -6

figure = new_figure(10, 3.6)
axes = figure.subplots()
plain(axes, "Behind the best method of each cell", "", "points, or dB")
labels: list[str] = []
places: list[float] = []
place = 0.0
for (name, variant), label in GROUPS.items():
    found = results.read(ROOT / "docs" / "results" / f"{name}.jsonl")
    cells = [
        cell
        for cell in comparison.cells(found, methods=study.STUDY_METHODS, most_kept=10)
        if cell.variant == variant
    ]
    for cell in cells:
        best = max(cell.means.values())
        for method, (colour, marker) in METHODS.items():
            if method in cell.means:
                behind = cell.means[method] - best
                axes.plot(
                    place,
                    max(behind, LOWEST),
                    linestyle="none",
                    marker=marker if behind > LOWEST else "$↓$",
                    color=colour,
                    markersize=8 if method == "sparsify" else 6,
                )
        labels.append(f"{cell.kept} %")
        places.append(place)
        place += 1
    middle = (places[-1] + places[-len(cells)]) / 2
    below = axes.get_xaxis_transform()
    axes.text(middle, -0.13, label, transform=below, ha="center", va="top", color=INK)
    place += 0.6
for method, (colour, marker) in METHODS.items():
    axes.plot([], [], linestyle="none", marker=marker, color=colour, label=method)
axes.axhline(0, color=GREY, linewidth=0.8, zorder=0)
axes.set_xticks(places, labels)
# Room for the names of the groups.
axes.set_xlabel("\n\n")
axes.set_ylim(LOWEST - 0.4, 0.4)
figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=5)
save(figure, "study")
