"""The experiments by name: which runs each of them consists of."""

import dataclasses
from collections.abc import Callable, Iterable

from experiments import study
from experiments.bases import (
    adam_base,
    cora_base,
    digits_base,
    mnist_base,
    sgd_base,
    text_base,
)
from experiments.grids import choices_grid, grid
from experiments.methods import check_method
from experiments.run import Run

BASELINES = (
    "one-shot",
    "stronger-decay",
    "fine-tuned",
    "fine-tuned-normalized",
    "rewound",
    "iterative",
    "gradual",
    "gradual-normalized",
    "gradual-layers",
    "soft",
    "straight-through",
    "straight-through-soft",
    "feather",
    "rigl",
    "rigl-erk",
    "set",
)
SWD = (
    "sparsify",
    "sparsify-normalized",
    "swd",
    "swd-normalized",
    "swd-rising",
    "swd-rising-normalized",
    "swd-proximal",
)


def cora() -> list[Run]:
    """GCN on Cora: the Planetoid split, all methods, 50 % to 0.5 % kept, 10 seeds."""
    kept = (50, 20, 10, 5, 2, 1, 0.5)
    methods = (*SWD, "sparsify-chained", *BASELINES)
    return grid(cora_base("cora"), methods, kept, seeds=10)


def digits() -> list[Run]:
    """LeNet-300-100 on scikit-learn's digits: all methods, 10 % to 0.5 %, 5 seeds."""
    return grid(digits_base("digits"), (*SWD, *BASELINES), (10, 5, 2, 1, 0.5), seeds=5)


def digits_grid() -> list[Run]:
    """The grid over a_min and a_max at 2 % kept, 3 seeds: a heat map."""
    base = dataclasses.replace(
        digits_base("digits-grid"), method="swd-rising", sparsity=0.98
    )
    return [
        dataclasses.replace(
            base,
            a_min=a_min,
            a_max=a_max,
            seed=seed,
            variant=f"a_min={a_min:g} a_max={a_max:g}",
        )
        for a_min in (1e-1, 1e0, 1e1, 1e2, 1e3)
        for a_max in (1e3, 1e4, 1e5, 1e6, 1e7, 1e8)
        for seed in range(3)
        if a_min <= a_max
    ]


def digits_ablations() -> list[Run]:
    """The effect of each part of SWD: one of them left out, 5 seeds."""
    base = digits_base("digits-ablations")
    rows = [
        ("swd-rising", {}),
        ("swd", {}),
        ("fixed-multiplier", {"a_max": 1e3, "variant": "a=1e3"}),
        ("fixed-multiplier", {"a_max": 1e5, "variant": "a=1e5"}),
        ("fixed-multiplier", {"a_max": 1e7, "variant": "a=1e7"}),
        ("not-selective", {}),
        ("frozen-selection", {}),
        ("swd-rising", {"update_every": 10, "variant": "update_every=10"}),
        ("swd-rising", {"update_every": 100, "variant": "update_every=100"}),
        ("swd-rising", {"tolerance": 1e-3, "variant": "tolerance=1e-3"}),
        ("swd-rising", {"tolerance": 1e-2, "variant": "tolerance=1e-2"}),
    ]
    return [
        dataclasses.replace(
            base,
            method=method,
            sparsity=round(1 - percent / 100, 9),
            seed=seed,
            **changes,
        )
        for method, changes in rows
        for percent in (5, 2, 1)
        for seed in range(5)
    ]


def mnist() -> list[Run]:
    """LeNet-5 on MNIST: all methods, 5 % to 0.5 % kept, 5 seeds."""
    return grid(mnist_base("mnist"), (*SWD, *BASELINES), (5, 2, 1, 0.5), seeds=5)


def cifar10_small() -> list[Run]:
    """ResNet-20 with 16 maps on a part of CIFAR-10: what a CPU can do, 2 seeds."""
    base = adam_base(
        "cifar10-small",
        "cifar10",
        "resnet-20x16",
        epochs=6,
        batch_size=128,
        learning_rate=3e-3,
        weight_decay=5e-4,
        rise=0.5,
        train_images=10_000,
        test_images=2_000,
    )
    methods = ("swd", "swd-rising", "fine-tuned", "gradual")
    return grid(base, methods, (5,), seeds=2)


def paper_cifar10(width: int) -> list[Run]:
    """The paper's own recipe: ResNet-20, 300 epochs of SGD, its targets, 3 seeds."""
    base = sgd_base(
        f"cifar10-resnet20x{width}",
        "cifar10",
        f"resnet-20x{width}",
        epochs=300,
        learning_rate=0.1,
        decay="steps",
    )
    methods = (*SWD, "fine-tuned", "rewound", "gradual", "one-shot")
    kept = (50, 20, 10, 5, 2.5, 1, 0.5, 0.1)
    return grid(base, methods, kept, seeds=3)


def cifar10_scales() -> list[Run]:
    """Structured, in its first form: channels by the scales of batch norm."""
    base = dataclasses.replace(
        paper_cifar10(64)[0], experiment="cifar10-scales", mu=1e-4
    )
    return grid(base, ("swd-scales", "slimming"), (50, 20, 10, 5, 2.5), seeds=3)


PARAMETERS_KEPT = (50, 25, 10, 5, 2.5)
CHANNELS = ("swd-channels", "swd-channels-rising", "gradual-channels", "slimming-tuned")


def digits_channels() -> list[Run]:
    """ResNet-20 on the digits: channels, slimming, thin networks, 3 seeds."""
    base = adam_base(
        "digits-channels",
        "digits",
        "resnet-20x16",
        epochs=20,
        batch_size=64,
        learning_rate=3e-3,
        weight_decay=5e-4,
        rise=0.5,
    )
    # Where a ranking across layers may leave a layer with a single channel.
    floor = {"min_channels": 0.125, "variant": "min_channels=0.125"}
    floored = grid(base, CHANNELS, PARAMETERS_KEPT[2:], seeds=3)
    methods = ("sparsify-channels", *CHANNELS, "thin")
    return grid(base, methods, PARAMETERS_KEPT, seeds=3) + [
        dataclasses.replace(run, **floor) for run in floored if run.method != "dense"
    ]


def cifar10_channels_small() -> list[Run]:
    """The same on a part of CIFAR-10: what a CPU can do, 1 seed."""
    base = dataclasses.replace(
        digits_channels()[0],
        experiment="cifar10-channels-small",
        data="cifar10",
        epochs=6,
        train_images=5_000,
        test_images=2_000,
    )
    methods = ("sparsify-channels", "swd-channels", "slimming-tuned", "thin")
    return grid(base, methods, PARAMETERS_KEPT, seeds=1)


def cifar10_channels() -> list[Run]:
    """The paper's recipe with coupled channels, its targets, 3 seeds."""
    base = dataclasses.replace(paper_cifar10(64)[0], experiment="cifar10-channels")
    methods = ("sparsify-channels", *CHANNELS, "thin")
    return grid(base, methods, PARAMETERS_KEPT, seeds=3)


def digits_structures() -> list[Run]:
    """Structures, criteria and scopes on the digits: 20 % to 2 % kept, 3 seeds."""
    return choices_grid(digits_base("digits-structures"), output="dense3/", seeds=3)


def mnist_structures() -> list[Run]:
    """The same with LeNet-5 on 4,000 images of MNIST, 248 steps: a CPU's budget."""
    base = adam_base(
        "mnist-structures",
        "mnist",
        "lenet-5",
        epochs=4,
        batch_size=64,
        learning_rate=3e-3,
        rise=0.5,
        train_images=4_000,
        test_images=2_000,
    )
    return choices_grid(base, output="dense3/", seeds=3)


def text_structures() -> list[Run]:
    """The same with a transformer on a text, 1,200 steps: the next character."""
    base = text_base("text-structures")
    return choices_grid(base, output="head/", embeddings="embedding$", seeds=3)


EXPERIMENTS: dict[str, Callable[[], list[Run]]] = {
    "cora": cora,
    "digits": digits,
    "digits-grid": digits_grid,
    "digits-ablations": digits_ablations,
    "digits-structures": digits_structures,
    "mnist": mnist,
    "mnist-structures": mnist_structures,
    "text-structures": text_structures,
    "cifar10-small": cifar10_small,
    "cifar10-resnet20x64": lambda: paper_cifar10(64),
    "cifar10-resnet20x16": lambda: paper_cifar10(16),
    "cifar10-scales": cifar10_scales,
    "digits-channels": digits_channels,
    "cifar10-channels-small": cifar10_channels_small,
    "cifar10-channels": cifar10_channels,
    **study.EXPERIMENTS,
}


HELD_OUT = "-held-out"
"""Ending of the names of folders with results on data kept out of training."""


def runs_of(name: str) -> list[Run]:
    """The runs of an experiment.

    Args:
      name: of the experiment; with the ending "-held-out", its runs are measured on
        training data that they do not learn from.

    Raises:
      ValueError: for a name that is none.
    """
    if name.endswith(HELD_OUT):
        runs = runs_of(name.removesuffix(HELD_OUT))
        return [dataclasses.replace(run, held_out=True) for run in runs]
    if name not in EXPERIMENTS:
        raise ValueError(
            f"experiment must be one of {', '.join(EXPERIMENTS)}; got {name!r}"
        )
    return EXPERIMENTS[name]()


def chosen(
    runs: list[Run],
    *,
    methods: Iterable[str] = (),
    kept: Iterable[float] = (),
    seeds: int | None = None,
    epochs: int | None = None,
) -> list[Run]:
    """A part of an experiment, or the same with another budget.

    Raises:
      ValueError: for a method that is unknown, or if nothing is left.
    """
    methods, kept = list(methods), [f"{percent:g}" for percent in kept]
    for method in methods:
        check_method(method)
    part = [
        run if epochs is None else dataclasses.replace(run, epochs=epochs)
        for run in runs
        if (not methods or run.method in methods)
        and (not kept or run.kept_percent in kept or run.method == "dense")
        and (seeds is None or run.seed < seeds)
    ]
    if not part:
        there = sorted({run.method for run in runs})
        raise ValueError(
            f"the experiment has no such runs. Its methods are {', '.join(there)}; "
            f"kept, in percent: {', '.join(sorted({run.kept_percent for run in runs}))}"
        )
    return part
