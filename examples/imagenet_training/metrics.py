"""Output of metrics: a progress bar, lines of JSON, and TensorBoard."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import rich.console
import rich.progress

import whole_files
from imagenet_training.config import Config


class MissingTensorBoard(ImportError):
    """tensorboardX is not installed."""


class Speed:
    """Images per second since the last time it was asked."""

    def __init__(self) -> None:
        self.restart(0)

    def restart(self, step: int) -> None:
        """Begin to count here: compiling and evaluating are no training."""
        self._step, self._time = step, time.perf_counter()

    def images_per_second(self, step: int, batch_size: int) -> float:
        elapsed = time.perf_counter() - self._time
        speed = (step - self._step) * batch_size / max(elapsed, 1e-9)
        self.restart(step)
        return speed


class Metrics:
    """Writes for the first process; those of the others say nothing.

    Args:
      config: the run; its output folder gets metrics.jsonl.
      step: from which the run goes on. What was written after it is taken back, so
        that no step is there twice.
      steps: in all.
    """

    def __init__(self, config: Config, step: int, steps: int) -> None:
        self.first = jax.process_index() == 0
        self.console = rich.console.Console(highlight=False, quiet=not self.first)
        if not self.console.is_terminal:
            self.console.width = 100  # a file or a pipe has no width of its own
        self.file = config.output / "metrics.jsonl"
        self.board = self._open_board(config, step) if config.tensorboard else None
        if self.first:
            _keep_until(self.file, step)
        self.progress = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(bar_width=12),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[status]}"),
            rich.progress.TimeRemainingColumn(),
            console=self.console,
        )
        self.task = self.progress.add_task(
            "Training", total=steps, completed=step, status=""
        )

    def _open_board(self, config: Config, step: int) -> Any:
        try:
            import tensorboardX
        except ImportError as error:
            raise MissingTensorBoard(
                "tensorboard: tensorboardX is not installed: pip install tensorboardX, "
                "or leave --tensorboard out; metrics.jsonl has the same numbers"
            ) from error
        if not self.first:
            return None
        folder = str(config.output / "tensorboard")
        return tensorboardX.SummaryWriter(folder, purge_step=step + 1)

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """One line of the file, and one point in each curve."""
        if not self.first:
            return
        values = {name: float(value) for name, value in values.items()}
        line = {"step": step, "kind": kind} | values
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(f"{kind}/{name}", value, step)

    def show(self, step: int, values: Mapping[str, float] | None = None) -> None:
        """Move the progress bar."""
        if values is None:
            self.progress.update(self.task, completed=step)
            return
        status = f"loss {values['loss']:.3f}  {values['images_per_second']:,.0f} img/s"
        if "multiplier" in values:
            status += f"  a {values['multiplier']:.0e}"
        self.progress.update(self.task, completed=step, status=status)

    def say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def _keep_until(file: Path, step: int) -> None:
    """Drop the lines of later steps, and one that a kill cut off."""
    if not file.exists():
        return
    kept = []
    for line in file.read_bytes().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line.decode() + "\n")
        except ValueError:
            continue
    whole_files.write(file, "".join(kept))
