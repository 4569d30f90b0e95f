"""The report of `digits.py`: a run, the table, and the numbers as JSON."""

import dataclasses
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import rich.box
import rich.table
from digits_training import Measure, Trained, magnitudes

DENSE = "dense"
SPARSIFY = "sparsify"
SWD = "swd"
GRADUAL = "gradual pruning"
ONE_SHOT = "one-shot pruning"


@dataclasses.dataclass(frozen=True)
class Run:
    """One row's worth: a network, how it was trained, and what pruning did to it."""

    method: str
    seed: int
    seconds: float  # of training
    before: Measure
    after: Measure | None  # None if it was not pruned
    accuracies: list[float]  # before training and after every epoch
    residuals: list[float]  # the same
    returned: list[int]  # the same
    weights: int
    zeros_before: int
    zeros_after: int

    @classmethod
    def of(
        cls,
        method: str,
        seed: int,
        trained: Trained,
        pruned: Any | None,
        test: Callable[[Any], Measure],
    ) -> "Run":
        """The run of a trained network, and of its pruned weights if there are any."""
        final = trained.params if pruned is None else pruned
        return cls(
            method,
            seed,
            trained.seconds,
            before=test(trained.params),
            after=None if pruned is None else test(pruned),
            accuracies=trained.accuracies,
            residuals=trained.residuals,
            returned=trained.returned,
            weights=magnitudes(final).size,
            zeros_before=int((magnitudes(trained.params) == 0).sum()),
            zeros_after=int((magnitudes(final) == 0).sum()),
        )

    def numbers(self) -> dict[str, float | None]:
        """Return the numbers of the table by name."""
        after = self.after
        return {
            "sparsity_before": self.zeros_before / self.weights,
            "sparsity_after": self.zeros_after / self.weights if after else None,
            "accuracy_before": self.before.accuracy,
            "accuracy_after": after.accuracy if after else None,
            "accuracy_change": after.accuracy - self.before.accuracy if after else None,
            "loss_before": self.before.loss,
            "loss_after": after.loss if after else None,
            "weights_kept": self.weights - self.zeros_after,
            "weights": self.weights,
            "weights_returned": self.returned[-1],
            "seconds": self.seconds,
        }


def by_method(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs of each method, in the order in which they come."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.method, []).append(run)
    return groups


def table(runs: Sequence[Run]) -> rich.table.Table:
    """A row for each method: means over the seeds, accuracies with their spread."""
    groups = by_method(runs)
    seeds = len(groups[DENSE])
    result = rich.table.Table(
        box=rich.box.SIMPLE_HEAD,
        padding=0,  # with the next two: fits into 80 columns
        pad_edge=False,
        show_edge=False,
        caption=(
            f"Means of {seeds} seeds, ± their standard deviation. "
            if seeds > 1
            else "One seed. "
        )
        + "Sparsity of the prunable weights; accuracy in % and loss on the test "
        "images; seconds: training one network, without compiling.",
        caption_justify="left",
    )
    result.add_column("")
    for header in (
        "sparsity\nbefore",
        "after\npruning",
        "accuracy\nbefore",
        "after\npruning",
        "loss\nbefore",
        "after\npruning",
        f"kept of\n{runs[0].weights:,}",
        "seconds",
    ):
        result.add_column(header, justify="right")
    for name, group in groups.items():
        result.add_row(
            name.replace(" ", "\n"),
            _mean(group, "sparsity_before", ".2%"),
            _mean(group, "sparsity_after", ".2%"),
            _mean(group, "accuracy_before", ".2f", spread=True),
            _mean(group, "accuracy_after", ".2f", spread=True),
            _mean(group, "loss_before", ".3f"),
            _mean(group, "loss_after", ".3f"),
            _mean(group, "weights_kept", ",.0f"),
            _mean(group, "seconds", ".1f"),
            style="bold" if name == SPARSIFY else None,
        )
    return result


def _mean(group: Sequence[Run], name: str, form: str, spread: bool = False) -> str:
    mean, deviation = mean_and_deviation(group, name)
    if mean is None:
        return "–"
    text = f"{mean:{form}}"
    return f"{text}±{deviation:{form}}" if spread and deviation is not None else text


def mean_and_deviation(
    group: Sequence[Run], name: str
) -> tuple[float | None, float | None]:
    """Over the seeds; None without a value, and no deviation of a single one."""
    values = [value for run in group if (value := run.numbers()[name]) is not None]
    mean = float(np.mean(values)) if values else None
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else None


def as_dict(runs: Sequence[Run]) -> dict[str, Any]:
    """All numbers, ready for JSON: the means, every run, and where they come from."""
    means, deviations = {}, {}
    for method, group in by_method(runs).items():
        both = {name: mean_and_deviation(group, name) for name in group[0].numbers()}
        means[method] = {name: mean for name, (mean, _) in both.items()}
        deviations[method] = {name: deviation for name, (_, deviation) in both.items()}
    return {
        "means": means,
        "standard_deviations": deviations,
        "runs": [
            {"method": run.method, "seed": run.seed}
            | run.numbers()
            | {
                "accuracy_by_epoch": run.accuracies,
                "residual_by_epoch": run.residuals,
                "returned_by_epoch": run.returned,
            }
            for run in runs
        ],
        "hardware": {
            "system": platform.system(),
            "machine": platform.machine(),
            "processors": os.cpu_count(),
            "jax_device": jax.devices()[0].device_kind,
        },
        "commit": _commit(),
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in _PACKAGES},
    }


def _commit() -> str | None:
    """The commit of this checkout, None where it is none."""
    folder = str(Path(__file__).parent)
    command = ["git", "-C", folder, "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        described = subprocess.run(  # noqa: S603, the command is the one above
            command, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


_PACKAGES = ("swd-jax", "jax", "jaxlib", "optax", "flax", "numpy", "scikit-learn")
