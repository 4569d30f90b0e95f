"""docs/images/step_cost.png: times and passes, from benchmarks/results/.

python docs/figures/step_cost.py
"""

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from style import BLUE, GREY, INK, ORANGE, PALE, new_figure, plain, save

RESULTS = Path(__file__).parent.parent.parent / "benchmarks" / "results"
BASELINES = ("adam", "sgd, momentum 0.9")
TEXT = {"va": "center", "fontsize": 9.5, "color": INK}


def entries(benchmark: str) -> list[dict[str, Any]]:
    results = json.loads((RESULTS / f"{benchmark}-cpu-4.3M.json").read_text())
    return [entry for entry in results["entries"] if not entry["failure"]]


def colour(name: str) -> str:
    if name in BASELINES or name.startswith("read:"):
        return GREY
    return ORANGE if "swd" in name else BLUE


def label(axes: Axes, entry: dict[str, Any], offset: int) -> None:
    """Write the milliseconds and the number of passes beside a bar or a point."""
    t, passes = entry["median_ms"], entry.get("readings")
    text = f"{t:,.0f}" if t >= 100 else f"{t:.3g}"
    if passes is not None:
        text += f"   {passes} pass{'es' if passes > 1 else ''}"
    at = (t, entry["name"])
    axes.annotate(text, at, (offset, 0), textcoords="offset points", **TEXT)


figure = new_figure(12, 3.6)
steps, alone = figure.subplots(1, 2)
plain(steps, "An optimizer step", "milliseconds", "")
plain(alone, "The threshold alone", "milliseconds, logarithmic", "")
for axes, benchmark, offset in (
    (steps, "optimizer_step", 5),
    (alone, "selection", 10),
):
    measured = entries(benchmark)
    names = [entry["name"] for entry in measured]
    times = [entry["median_ms"] for entry in measured]
    colours = [colour(name) for name in names]
    if axes is alone:  # bars start at zero, which a logarithmic axis cannot show
        axes.scatter(times, names, s=70, c=colours)
        axes.set(xscale="log", xlim=(min(times) / 3, 8 * max(times)))
        axes.margins(y=0.08)
        axes.minorticks_off()
        axes.grid(axis="x", color=PALE)
        axes.set_axisbelow(True)
    else:
        axes.barh(names, times, color=colours, height=0.62)
        axes.margins(x=0.35)
    for entry in measured:
        label(axes, entry, offset)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
save(figure, "step_cost")
