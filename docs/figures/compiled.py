"""docs/images/compiled.png: what a compiled step moves, from benchmarks/results/.

python docs/figures/compiled.py
"""

import json
from pathlib import Path

from style import BLUE, GREY, INK, ORANGE, PALE, PURPLE, new_figure, plain, save

RESULTS = Path(__file__).parent.parent.parent / "benchmarks" / "results"
ROWS = {
    "adam": "Adam",
    "swd": "swd",
    "swd, local": "swd, local",
    "swd, normalized_magnitude": "swd, normalized_magnitude",
    "swd, NM(2, 4)": "swd, NM(2, 4)",
    "swd, Block((4, 4))": "swd, Block((4, 4))",
    "swd, Channel(-1), local": "swd, Channel(-1), local",
    "magnitude_pruning": "magnitude_pruning",
    "sparsify": "sparsify",
    "rigl": "rigl",
}

figure = new_figure(11, 3.6)
panels = figure.subplots(1, 2, sharey=True)
for axes, (name, title) in zip(
    panels,
    (("v5e", "TPU v5e"), ("h100", "H100")),
    strict=True,
):
    found = json.loads((RESULTS / f"compiled-{name}-7B-layer.json").read_text())
    by_name = {row["name"]: row for row in found["rows"]}
    rows = [by_name[row] for row in ROWS]
    places = range(len(rows))[::-1]
    plain(axes, title, "multiples of the weights", "")
    left = [0.0] * len(rows)
    for field, label, colour in (
        ("read", "read", BLUE),
        ("written", "written", ORANGE),
        ("reading", "one reading of the search", PURPLE),
    ):
        widths = [row[field] for row in rows]
        axes.barh(places, widths, left=left, color=colour, height=0.6, label=label)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    temporary = [row["temporary"] for row in rows]
    axes.plot(
        temporary, places, "|", color=INK, markersize=12, label="temporary memory"
    )
    axes.set_yticks(places, ROWS.values())
    axes.axvline(left[0], color=GREY, linewidth=0.8, zorder=0)
    axes.grid(axis="x", color=PALE)
    axes.set_axisbelow(True)
    axes.set_xlim(0, 24)
panels[0].legend(frameon=False, fontsize=9, loc="upper right")
save(figure, "compiled")
