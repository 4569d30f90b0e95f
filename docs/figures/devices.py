"""docs/images/devices.png: bytes that eight devices exchange for a threshold.

python docs/figures/devices.py
"""

import json
from pathlib import Path

from style import BLUE, GREEN, INK, ORANGE, new_figure, plain, save

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "devices-cpu.json"
SHOWN = {
    "jnp.sort": (ORANGE, "sorting all weights"),
    "swd under jit": (BLUE, "swd under jit"),
    "swd in shard_map, axis_name": (GREEN, "swd in shard_map"),
}
HEIGHTS = {"jnp.sort": -34, "swd under jit": 8, "swd in shard_map, axis_name": -16}

entries = json.loads(RESULTS.read_text())["entries"]
figure = new_figure(7, 3.4)
axes = figure.subplots()
plain(axes, "Bytes that eight devices exchange", "weights in 5 leaves", "bytes")
axes.set_xscale("log")
axes.set_yscale("log")
for name, (color, label) in SHOWN.items():
    points = [
        (entry["weights"], entry["total_bytes"])
        for entry in entries
        if entry["name"] == name and entry["leaves"] == 5
    ]
    axes.plot(*zip(*points, strict=True), ".-", color=color, ms=9)
    last, height = points[-1]
    axes.annotate(
        f"{label}: {height:,}",
        (last, height),
        (-4, HEIGHTS[name]),
        textcoords="offset points",
        ha="right",
        color=color,
        fontsize=9,
    )
axes.set_ylim(8, 3e9)
axes.tick_params(colors=INK)
save(figure, "devices")
