"""The comparison of `sparsify` with other methods, on more tasks than the registry's.

All methods get the same epochs, batches and optimizer, and the same seeds, so that
`paper.py compare` can compare them seed by seed.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from experiments.ablations import PARTS_OF_SPARSIFY
from experiments.bases import (
    cora_base,
    digits_base,
    picture_base,
    sgd_base,
    text_base,
)
from experiments.grids import grid
from experiments.run import Run

STUDY_METHODS = (
    "sparsify",
    "swd-rising",
    "gradual",
    "gradual-normalized",
    "gradual-layers",
    "straight-through",
    "straight-through-soft",
    "feather",
    "rigl-erk",
)
FEW_METHODS = ("sparsify", "gradual", "straight-through", "feather", "swd-rising")
"""Those of the experiments in which a run takes long, or of which there are many."""


def study_picture() -> list[Run]:
    """A network that is a picture: all methods, 10 % to 2 %, 6 seeds; in decibels."""
    methods = (*STUDY_METHODS, "sparsify-normalized")
    return grid(picture_base("study-picture"), methods, (10, 5, 2), seeds=6)


def study_text() -> list[Run]:
    """A transformer on a text: a few methods, also with embeddings dense, 3 seeds."""
    base = text_base("study-text")
    spared = dataclasses.replace(base, spared="embedding$", variant="embeddings dense")
    runs = grid(base, FEW_METHODS, (10, 5, 2), seeds=3)
    # Dense training is the same with embeddings spared.
    others = grid(spared, FEW_METHODS, (10, 5, 2), seeds=3)
    return runs + [run for run in others if run.method != "dense"]


def study_cifar10() -> list[Run]:
    """ResNet-8 on CIFAR-10, all of it: a few methods, 10 % to 2 %, 2 seeds."""
    base = sgd_base(
        "study-cifar10",
        "cifar10",
        "half-resnet-8x32",
        epochs=20,
        learning_rate=0.3,
        decay="one-cycle",
        label_smoothing=0.1,
        shift=2,
        rise=0.5,
    )
    return grid(base, FEW_METHODS, (10, 5, 2), seeds=2)


def study_cifar10_resnet20() -> list[Run]:
    """ResNet-20 on CIFAR-10, for a GPU: a few methods, 10 % to 1 %, 2 seeds."""
    base = dataclasses.replace(
        study_cifar10()[0],
        experiment="study-cifar10-resnet20",
        model="resnet-20x16",
        epochs=30,
    )
    return grid(base, FEW_METHODS, (5, 1, 10, 2), seeds=2)


# The learning rates of other optimizers: of a grid of factors of about 3, that with the
# best dense training on held-out data, the mean of three seeds.
DIGITS_RATES = {"sgd": 0.1, "lion": 1e-4, "muon": 3e-3, "lamb": 1e-2}
CORA_RATES = {"sgd": 0.3, "lion": 1e-2, "muon": 3e-2, "lamb": 1e-2}


def conditions(base: Run, rates: dict[str, float]) -> list[Run]:
    """A few methods under other conditions than those of a base, 5 seeds.

    Args:
      base: a dense run.
      rates: learning rates of other optimizers, by their names.
    """
    changes: list[dict[str, Any]] = [
        {"variant": "lr x0.1", "learning_rate": 0.1 * base.learning_rate},
        {"variant": "lr x10", "learning_rate": 10 * base.learning_rate},
        {"variant": "steps x0.5", "epochs": base.epochs // 2},
        {"variant": "steps x2", "epochs": 2 * base.epochs},
    ]
    # SGD's steps ask for a smaller multiplier: the paper's.
    multiplier = {"sgd": {"a_min": 0.1, "a_max": 1e5}}
    for optimizer, rate in rates.items():
        change = {"variant": optimizer, "optimizer": optimizer, "learning_rate": rate}
        changes.append(change | multiplier.get(optimizer, {}))
    runs = []
    for change in changes:
        changed = dataclasses.replace(base, **change)
        methods = FEW_METHODS
        if changed.optimizer_reads_weights:
            methods = (*methods, "sparsify-chained")
        runs += grid(changed, methods, (5, 2, 1), seeds=5)
    return runs


def study_digits_conditions() -> list[Run]:
    """The digits with other learning rates, epochs and optimizers, 5 seeds."""
    return conditions(digits_base("study-digits-conditions"), DIGITS_RATES)


def study_cora_conditions() -> list[Run]:
    """The same on Cora."""
    return conditions(cora_base("study-cora-conditions"), CORA_RATES)


FINE_TUNED = ("sparsify-fine-tuned", "gradual-fine-tuned", "fine-tuned")
"""Methods that begin with a dense network, after two thirds of the epochs."""


def study_digits_fine_tuned() -> list[Run]:
    """The digits: a dense network that is made sparse in the last third, 5 seeds."""
    base = digits_base("study-digits-fine-tuned")
    return grid(base, FINE_TUNED, (10, 5, 2, 1), seeds=5)


def study_cora_fine_tuned() -> list[Run]:
    """The same on Cora, 10 seeds."""
    return grid(cora_base("study-cora-fine-tuned"), FINE_TUNED, (10, 5, 2, 1), seeds=10)


PARTS = ("sparsify", *PARTS_OF_SPARSIFY)


def study_digits_parts() -> list[Run]:
    """What each constant of `sparsify` is good for, on the digits, 5 seeds."""
    return grid(digits_base("study-digits-parts"), PARTS, (5, 2, 1, 0.5), seeds=5)


def study_cora_parts() -> list[Run]:
    """The same on Cora, also with the optimizer before `sparsify`, 10 seeds."""
    methods = (*PARTS, "sparsify-chained", "sparsify-chained-no-forgetting")
    return grid(cora_base("study-cora-parts"), methods, (5, 2, 1, 0.5), seeds=10)


def study_picture_parts() -> list[Run]:
    """The same on a picture, 3 seeds."""
    return grid(picture_base("study-picture-parts"), PARTS, (10, 2), seeds=3)


EXPERIMENTS: dict[str, Callable[[], list[Run]]] = {
    "study-picture": study_picture,
    "study-text": study_text,
    "study-cifar10": study_cifar10,
    "study-cifar10-resnet20": study_cifar10_resnet20,
    "study-digits-conditions": study_digits_conditions,
    "study-cora-conditions": study_cora_conditions,
    "study-digits-fine-tuned": study_digits_fine_tuned,
    "study-cora-fine-tuned": study_cora_fine_tuned,
    "study-digits-parts": study_digits_parts,
    "study-cora-parts": study_cora_parts,
    "study-picture-parts": study_picture_parts,
}
