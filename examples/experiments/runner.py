"""Train the runs of an experiment that have no result yet."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import rich.console
import rich.progress

import swd_jax
from experiments import results
from experiments.environment import environment
from experiments.methods import static
from experiments.run import Run
from experiments.tasks import Task, make_task
from experiments.training import Program, Trained, prunable_leaves
from models import macs


def run_all(
    runs: list[Run],
    *,
    data: Path | None,
    folder: Path,
    cache: Path | None,
    together: int,
    console: rich.console.Console,
) -> int:
    """Train every run without a result and write its result as soon as it is there.

    Args:
      runs: of one experiment, all of the same task.
      data: the folder with the data.
      folder: where results are written.
      cache: a folder for decoded images; None for none.
      together: how many seeds are trained side by side by one program. If this is
        killed, what they have learnt is lost; finished runs never are.
      console: where to show progress.

    Returns:
      How many were trained.
    """
    done = results.finished(folder, runs)
    left = [run for run in runs if run.name not in done]
    if done:
        console.print(f"{len(done)} of {len(runs)} runs have results in {folder}.")
    if not left:
        return 0
    with console.status("Loading"):
        wide = make_task(left[0], data, cache)
    about = environment()
    with _progress(console) as progress:
        bar = progress.add_task("", total=sum(run.epochs for run in left))
        for program_run, group in _by_program(left):
            task = _task(wide, program_run)
            program = Program(task, program_run)
            for part in _side_by_side(group, together):
                progress.update(bar, description=_described(part))
                started = time.perf_counter()
                for news in program.train([run.seed for run in part], part[0].sparsity):
                    if isinstance(news, int):
                        progress.advance(bar, news * len(part))
                        continue
                    seconds = (time.perf_counter() - started) / len(part)
                    for i, run in enumerate(part):
                        result = _result(task, program, run, news, i)
                        about_run = {"environment": about, "seconds": seconds}
                        results.write(folder, run, result | about_run)
    return len(left)


def _task(wide: Task, run: Run) -> Task:
    """The task of a program, on the data that are there already."""
    if run.method != "thin":
        return wide
    if wide.thin is None:
        raise ValueError(
            "method thin needs a network that there is in all widths, such as "
            f"resnet-20x16; got {run.model!r}"
        )
    return wide.thin(run.sparsity)._replace(data=wide.data)


def _by_program(runs: list[Run]) -> Iterator[tuple[Run, list[Run]]]:
    """The runs by what has to be compiled for them."""
    groups: dict[Run, list[Run]] = {}
    for run in runs:
        groups.setdefault(static(run), []).append(run)
    yield from groups.items()


def _side_by_side(runs: list[Run], together: int) -> Iterator[list[Run]]:
    """Runs that differ in their seed only, so many at a time."""
    by_sparsity: dict[float, list[Run]] = {}
    for run in runs:
        by_sparsity.setdefault(run.sparsity, []).append(run)
    for same in by_sparsity.values():
        for start in range(0, len(same), together):
            yield same[start : start + together]


def _described(runs: list[Run]) -> str:
    seeds = ", ".join(str(run.seed) for run in runs)
    return f"{runs[0].row}, {runs[0].kept_percent} % kept, seed {seeds}"


@contextlib.contextmanager
def _progress(console: rich.console.Console) -> Iterator[rich.progress.Progress]:
    with rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(bar_width=20),
        rich.progress.TaskProgressColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn("left:"),
        rich.progress.TimeRemainingColumn(),
        console=console,
        speed_estimate_period=600,
    ) as progress:
        yield progress


def _result(
    task: Task,
    program: Program,
    run: Run,
    trained: Trained,
    position: int,
) -> dict[str, Any]:
    """Return the result of one of the networks that were trained together."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf[position]), trained.params)
    final = {key: float(values[position]) for key, values in trained.final.items()}
    target = program.method(run.sparsity).target
    leaves = prunable_leaves(params, target)
    weights = sum(leaf.size for _, _, leaf in leaves)
    kept = sum(int(np.count_nonzero(leaf)) for _, _, leaf in leaves)
    parameters, uses = task.parameters, task.uses()
    parameters_left = sum(leaf.size for leaf in jax.tree.leaves(params))
    structure, whole = target.structure, run.method == "thin"
    if isinstance(structure, swd_jax.CoupledChannels):
        left = swd_jax.channels.kept_channels(params, target, step=program.steps)
        parameters_left, whole = structure.groups.parameters(left), True
    else:
        parameters_left -= weights - kept
    # The kept fraction of what the target counts: all parameters, or weights.
    part = parameters_left / parameters if whole else kept / max(weights, 1)
    curves = {
        # A local target has a threshold for each leaf, which are not drawn as a curve.
        key: values[:, position].tolist()
        for key, values in trained.curves.items()
        if values.ndim == 2
    }
    return {
        "data": task.data_name,
        "curves": curves,
        "final": final
        | {
            "prunable": weights,
            "kept": kept,
            "sparsity": 1 - part,
            "parameters": parameters,
            "parameters_left": parameters_left,
            "multiply_adds": macs.multiply_adds(
                uses, jax.tree.map(np.ones_like, params)
            ),
            "multiply_adds_left": macs.multiply_adds(uses, params),
            "emptied": [path for _, path, leaf in leaves if not leaf.any()],
        },
    }
