"""docs/images/channels.png: accuracy and cost, from docs/results/shrink.json.

python examples/shrink.py --width 16 --epochs 20
python docs/figures/channels.py
"""

import json
from pathlib import Path

from style import BLUE, GREY, ORANGE, new_figure, plain, save

RESULTS = Path(__file__).parent.parent / "results" / "shrink.json"

runs = json.loads(RESULTS.read_text())["runs"]
figure = new_figure(9, 3.2)
accuracies, costs = figure.subplots(1, 2)
removed = "operations removed, %"
plain(accuracies, "After pruning", removed, "test accuracy, %")
for method, colour in (("SWD", ORANGE), ("pruned at once", GREY)):
    of_method = [run for run in runs if run["method"] == method]
    targets = [100 * run["sparsity"] for run in of_method]
    after = [run["accuracy_shrunk"] for run in of_method]
    accuracies.plot(targets, after, "o-", color=colour, label=method)
accuracies.set_ylim(0, 100)
accuracies.legend(frameon=False, fontsize=9)

plain(costs, "What is left with SWD", removed, "of the dense network, %")
of_swd = [run for run in runs if run["method"] == "SWD"]
targets = [100 * run["sparsity"] for run in of_swd]
for quantity, label, colour in (
    ("parameters", "parameters", BLUE),
    ("flops", "operations", ORANGE),
    ("milliseconds", "time for 32 images", GREY),
):
    percent = [100 * r[f"after/{quantity}"] / r[f"before/{quantity}"] for r in of_swd]
    costs.plot(targets, percent, "o-", color=colour, label=label)
costs.set_ylim(0, 100)
costs.legend(frameon=False, fontsize=9)
save(figure, "channels")
