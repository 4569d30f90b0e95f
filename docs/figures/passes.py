"""docs/images/passes.png: passes in each step, from benchmarks/trajectory.py's results.

python docs/figures/passes.py
"""

import json
from pathlib import Path

from style import BLUE, GREY, INK, ORANGE, new_figure, plain, save

RESULTS = Path(__file__).parent.parent.parent / "benchmarks" / "results"
TITLES = {"adam": "swd + adam", "sgd": "swd + sgd, momentum 0.9"}

results = json.loads((RESULTS / "trajectory-cpu.json").read_text())
steps = results["config"]["steps"]
figure = new_figure(11, 2.8)
for axes, (name, run), colour in zip(
    figure.subplots(1, 2, sharey=True),
    ((name, results["runs"][name]) for name in TITLES),
    (BLUE, ORANGE),
    strict=True,
):
    plain(axes, TITLES[name], "optimizer step", "passes over the weights")
    axes.bar(range(steps), run["readings"], width=0.8, color=colour, label="exact")
    tolerance = results["config"]["tolerance"]
    tolerant = results["runs"][f"{name}, tolerance={tolerance:g}"]
    label = f"tolerance {tolerance:g}"
    axes.step(range(steps), tolerant["readings"], where="mid", color=INK, label=label)
    most = max(run["readings"])
    for drop in (steps // 3, 2 * steps // 3):
        axes.axvline(drop - 0.5, color=GREY, lw=1, ls=(0, (3, 2)))
    axes.text(
        steps // 3 + 1,
        most,
        "learning rate / 10",
        fontsize=9,
        color=INK,
        va="top",
    )
    axes.legend(frameon=False, loc="center right", fontsize=9)
    axes.set(xlim=(-1, steps), yticks=range(0, most + 1, 2))
    axes.yaxis.set_tick_params(labelleft=True)
save(figure, "passes")
