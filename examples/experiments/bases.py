"""The dense runs that experiments start from, each used by more than one of them."""

from typing import Any

from experiments.run import Run


def cora_base(experiment: str) -> Run:
    return adam_base(
        experiment,
        "cora",
        "gcn",
        epochs=300,
        learning_rate=0.01,
        decay="constant",
        weight_decay=5e-4,
    )


def digits_base(experiment: str) -> Run:
    return adam_base(
        experiment,
        "digits",
        "lenet-300-100",
        epochs=60,
        batch_size=64,
        learning_rate=3e-3,
        strong_decay=1e-2,
        rise=0.5,
    )


def mnist_base(experiment: str) -> Run:
    return adam_base(
        experiment,
        "mnist",
        "lenet-5",
        epochs=10,
        batch_size=128,
        learning_rate=3e-3,
        strong_decay=1e-2,
        rise=0.5,
    )


def picture_base(experiment: str) -> Run:
    """1,600 steps."""
    return adam_base(
        experiment,
        "picture",
        "coordinates-128",
        epochs=100,
        batch_size=512,
        learning_rate=1e-2,
        rise=0.5,
    )


def text_base(experiment: str) -> Run:
    """1,200 steps."""
    return adam_base(
        experiment,
        "text",
        "transformer-2x64",
        epochs=6,
        batch_size=8,
        learning_rate=5e-3,
        rise=0.5,
        train_images=1_600,
        test_images=300,
    )


def adam_base(experiment: str, data: str, model: str, **settings: Any) -> Run:
    """A dense run with Adam, whose steps ask for a larger multiplier than SGD's."""
    return _dense(experiment, data, model, a_min=10.0, a_max=1e8, **settings)


def sgd_base(experiment: str, data: str, model: str, **settings: Any) -> Run:
    """A dense run with SGD, and the multiplier that the paper has with it."""
    return _dense(
        experiment,
        data,
        model,
        batch_size=128,
        optimizer="sgd",
        weight_decay=5e-4,
        a_max=1e5,
        **settings,
    )


def _dense(experiment: str, data: str, model: str, **settings: Any) -> Run:
    return Run(
        experiment=experiment,
        data=data,
        model=model,
        method="dense",
        sparsity=0.0,
        seed=0,
        **settings,
    )
