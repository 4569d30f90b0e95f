"""Grids of runs: what varies in an experiment, at each target and for each seed."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from experiments.run import Run

OF_METHOD: dict[str, dict[str, Any]] = {
    # After Adam nothing normalises the decay: it takes a larger multiplier.
    "swd-proximal": {"a_min": 1e2, "a_max": 1e10},
    # Its paper's penalty, and on held-out data the best at hard targets.
    "slimming-tuned": {"mu": 1e-4},
}
"""Settings that a method has instead of those of the grid."""


def grid(
    base: Run, methods: Iterable[str], kept: Iterable[float], seeds: int
) -> list[Run]:
    """Every method at every part of the weights kept, in percent; and a dense one."""
    dense = dataclasses.replace(base, method="dense", sparsity=0.0)
    runs = [dataclasses.replace(dense, seed=seed) for seed in range(seeds)]
    for method in methods:
        runs += [
            dataclasses.replace(
                base,
                method=method,
                sparsity=round(1 - percent / 100, 9),
                seed=seed,
                **OF_METHOD.get(method, {}),
            )
            for percent in kept
            for seed in range(seeds)
        ]
    return runs


def choices_grid(
    base: Run, *, output: str, embeddings: str = "", seeds: int
) -> list[Run]:
    """SWD with one choice of its target changed, at 20, 10, 5 and 2 % kept; and dense.

    Args:
      base: the dense run.
      output: pattern of the paths of the output layer.
      embeddings: that of embeddings, if there are any.
      seeds: how many.
    """
    kept = (20, 10, 5, 2)
    runs = grid(base, ["swd-rising"], kept, seeds)
    spared = {output: "output dense", embeddings: "embeddings dense"}
    for changes in _changes(output, embeddings):
        for percent in kept:
            changed = {
                # 1 of 5 is 20 % kept.
                key: f"1-of-{100 // percent}" if value == "1-of-m" else value
                for key, value in changes.items()
            }
            runs += [
                dataclasses.replace(
                    base,
                    method="swd-rising",
                    sparsity=round(1 - percent / 100, 9),
                    seed=seed,
                    variant=_variant(changes, spared),
                    **changed,
                )
                for seed in range(seeds)
            ]
    return runs


def _changes(output: str, embeddings: str) -> Iterator[dict[str, Any]]:
    """The rows, those first that a reader with little time wants."""
    yield {"structure": "block-4x4"}
    yield {"criterion": "normalized_magnitude"}
    yield {"criterion": "movement"}
    yield {"scope": "erk"}
    # A channel of the last layer is a class.
    yield {"structure": "channels", "spared": output, "scope": "local"}
    yield {"criterion": "mean_saliency"}
    # Groups average out what weights of a layer differ by: scales of layers decide.
    yield {"structure": "block-4x4", "criterion": "normalized_magnitude"}
    if embeddings:
        yield {
            "structure": "block-4x4",
            "criterion": "normalized_magnitude",
            "spared": embeddings,
        }
    yield {"structure": "block-4x4", "scope": "local"}
    yield {"structure": "1-of-m"}
    yield {"criterion": "random"}
    yield {"scope": "local"}
    yield {"structure": "channels", "spared": output}
    yield {"structure": "block-1x4"}
    yield {"structure": "channels"}
    yield {"criterion": "lamp"}
    yield {"criterion": "rms_normalized_magnitude"}
    yield {"criterion": "saliency"}
    yield {"criterion": "fisher"}


def _variant(changes: dict[str, Any], spared: dict[str, str]) -> str:
    parts = [
        spared[value] if key == "spared" else f"{key}={value}"
        for key, value in changes.items()
    ]
    return ", ".join(parts)
