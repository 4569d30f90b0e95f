"""docs/images/step_cost.png: what the results in benchmarks/results/ say.

python docs/figures/step_cost.py
"""

import json
from pathlib import Path
from typing import Any

from style import BLUE, GREY, INK, ORANGE, PALE, new_figure, plain, save

RESULTS = Path(__file__).parent.parent.parent / "benchmarks" / "results"
BASELINES = ("adam", "sgd, momentum 0.9", "fixed threshold + adam")
TEXT = {"va": "center", "fontsize": 9.5, "color": INK}


def entries(benchmark: str) -> list[dict[str, Any]]:
    results = json.loads((RESULTS / f"{benchmark}-cpu-4.3M.json").read_text())
    return [entry for entry in results["entries"] if not entry["failure"]]


figure = new_figure(12, 3.6)
for axes, title, group, colour in zip(
    figure.subplots(1, 2),
    ("An optimizer step", "The threshold alone"),
    (entries("optimizer_step"), entries("selection")),
    (BLUE, ORANGE),
    strict=True,
):
    plain(axes, title, "milliseconds", "")
    names = [entry["name"] for entry in group]
    times = [entry["median_ms"] for entry in group]
    colours = [
        GREY if name in BASELINES or name.startswith("read") else colour
        for name in names
    ]
    wide = max(times) > 50 * min(times)
    if wide:  # bars need a zero, which a logarithmic axis has not
        axes.scatter(times, names, s=70, c=colours)
        axes.set(xscale="log", xlim=(min(times) / 3, 6 * max(times)))
        axes.margins(y=0.12)
        axes.minorticks_off()
        axes.grid(axis="x", color=PALE)
        axes.set_axisbelow(True)
    else:
        axes.barh(names, times, color=colours, height=0.62)
        axes.margins(x=0.14)
    for name, t in zip(names, times, strict=True):
        text = f"{t:,.0f}" if t >= 100 else f"{t:.3g}"
        offset = (10 if wide else 5, 0)
        axes.annotate(text, (t, name), offset, textcoords="offset points", **TEXT)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
save(figure, "step_cost")
