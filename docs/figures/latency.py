"""docs/images/latency.png: latency of shrunk networks, from benchmarks/results/.

python docs/figures/latency.py
"""

import numpy as np
from cost_table import latencies
from style import BLUE, GREY, INK, ORANGE, new_figure, plain, save

entries = latencies()
labels = [
    f"{e['name']}, {e['removed']:.0%} fewer operations\nsizes: {e['sizes']}"
    for e in entries
]
figure = new_figure(8, 0.62 * len(entries) + 1)
axes = figure.subplots()
plain(axes, "Times less than the whole network, 32 images on a CPU", "", "")
places = np.arange(len(entries))[::-1]
for quantity, label, colour, shift in (
    ("flops", "operations", BLUE, 0.2),
    ("milliseconds", "time", ORANGE, -0.2),
):
    ratios = [e[f"before/{quantity}"] / e[f"after/{quantity}"] for e in entries]
    bars = axes.barh(places + shift, ratios, 0.36, color=colour, label=label)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=9, color=INK)
axes.axvline(1, color=GREY, linewidth=0.8)
axes.set_yticks(places, labels)
axes.legend(frameon=False, fontsize=9, loc="upper right")
axes.set_xlim(0, 4.6)
save(figure, "latency")
