"""docs/images/chain_forms.png: where each form stands in an optax chain.

python docs/figures/chain_forms.py
"""

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from style import BLUE, GREEN, GREY, INK, ORANGE, PALE, PURPLE, new_figure, save

ROWS = [
    (
        "Last: sparsify",
        "Replaces the final update, so that what is pruned becomes exactly zero.",
        PURPLE,
        [("adam(lr)  or  sgd(lr)", False), ("sparsify", True)],
    ),
    (
        "Before the optimizer: swd",
        "The optimizer sees the penalty as a part of the gradient.",
        BLUE,
        [("swd", True), ("adam(lr)  or  sgd(lr)", False)],
    ),
    (
        "In the middle: swd",
        "Past Adam's normalisation, and still times the learning rate.",
        ORANGE,
        [("scale_by_adam", False), ("swd", True), ("scale_by_learning_rate", False)],
    ),
    (
        "After the optimizer",
        "A change of the final update; the learning rate is an argument.",
        GREEN,
        [("adam(lr)  or  sgd(lr)", False), ("decoupled_swd  or  proximal_swd", True)],
    ),
]
LEFT, RIGHT, HEIGHT = 1.75, 11.1, 0.56


def draw_row(axes: Axes, y: float, row: tuple) -> None:
    title, note, colour, boxes = row
    axes.text(0, y + 0.62, title, fontsize=11.5, fontweight="bold", color=colour)
    axes.text(3.1, y + 0.62, note, fontsize=10, color=INK)
    axes.text(0, y, "gradient", va="center", fontsize=10.5, color=INK)
    axes.text(RIGHT + 0.12, y, "update", va="center", fontsize=10.5, color=INK)
    widths = [0.35 + 0.118 * len(text) for text, _ in boxes]
    gap = (RIGHT - LEFT - sum(widths)) / len(boxes)
    x, before = LEFT, 0.95
    for (text, ours), width in zip(boxes, widths, strict=True):
        arrow(axes, before, x, y)
        box = FancyBboxPatch(
            (x, y - HEIGHT / 2),
            width,
            HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.1",
            facecolor=colour if ours else PALE,
            edgecolor=colour if ours else GREY,
        )
        axes.add_patch(box)
        axes.text(
            x + width / 2,
            y - 0.01,
            text,
            ha="center",
            va="center",
            fontsize=10.5,
            family="monospace",
            color="white" if ours else INK,
        )
        before, x = x + width, x + width + gap
    arrow(axes, before, RIGHT, y)


def arrow(axes: Axes, start: float, end: float, y: float) -> None:
    patch = FancyArrowPatch(
        (start + 0.05, y),
        (end - 0.03, y),
        arrowstyle="-|>",
        mutation_scale=12,
        color=GREY,
        shrinkA=0,
        shrinkB=0,
    )
    axes.add_patch(patch)


figure = new_figure(10, 5.3)
axes = figure.subplots()
axes.set(xlim=(-0.1, 12.1), ylim=(-0.5, 6.15))
axes.axis("off")
for position, row in enumerate(ROWS):
    draw_row(axes, 5.1 - 1.65 * position, row)
save(figure, "chain_forms")
