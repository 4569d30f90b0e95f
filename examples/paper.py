"""The experiments of the paper, and its neighbours under the same budget.

    python examples/paper.py list
    python examples/paper.py run digits
    python examples/paper.py run cora --data DIR
    python examples/paper.py table cora
    python examples/paper.py plot cora
    python examples/paper.py compare digits cora

A run that has a result is not repeated, so `run` goes on where it was stopped. The
committed results are in docs/results; `table` and `plot` look there as well.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax
import rich.console
import tyro

from experiments import comparison, figures, registry, results, study, tables
from experiments.runner import run_all

COMMITTED = Path(__file__).parent.parent / "docs" / "results"

Name = Annotated[str, tyro.conf.Positional]
Results = Annotated[Path, tyro.conf.arg(name="results")]


def new_console() -> rich.console.Console:
    console = rich.console.Console(highlight=False)
    if not console.is_terminal:
        console.width = 140  # a file or a pipe has no width of its own
    return console


def list_experiments() -> None:
    """Name the experiments, with how many runs each has."""
    console = new_console()
    for name, make in registry.EXPERIMENTS.items():
        runs = make()
        about = (make.__doc__ or "").splitlines()
        console.print(f"{name:22}{len(runs):5} runs  {about[0] if about else ''}")


def run(
    name: Name,
    /,
    data: Path | None = None,
    results_folder: Results = Path("results"),
    methods: tuple[str, ...] = (),
    kept: tuple[float, ...] = (),
    seeds: int | None = None,
    epochs: int | None = None,
    together: int | None = None,
    cache: Path | None = None,
    held_out: bool = False,
) -> None:
    """Train what has no result yet, and print the table.

    Args:
      name: of the experiment.
      data: folder with the data set, in the form in which people have it. The digits
        need none.
      results_folder: results are written to a folder of the experiment's name in it.
      methods: only these.
      kept: only these parts of the weights kept, in percent.
      seeds: only the first so many.
      epochs: another budget, which the results will say.
      together: seeds trained side by side. By default one on a CPU, all elsewhere.
      cache: folder in which decoded images are kept for the next time.
      held_out: measure on a part of the training data that is kept out of training, to
        choose settings. Its results have a name of their own, NAME-held-out, which the
        other commands know as well.
    """
    console = new_console()
    if held_out:
        name = f"{name.removesuffix(registry.HELD_OUT)}{registry.HELD_OUT}"
    runs = registry.chosen(
        registry.runs_of(name), methods=methods, kept=kept, seeds=seeds, epochs=epochs
    )
    if together is None:
        alone = jax.default_backend() == "cpu"
        together = 1 if alone else len({run.seed for run in runs})
    if together < 1:
        raise ValueError(f"together must be at least 1, got {together}")
    folder = results_folder / name
    run_all(
        runs,
        data=data,
        folder=folder,
        cache=cache,
        together=together,
        console=console,
    )
    show(results.read(folder), console)


def place_of(name: str, folder: Path) -> Path:
    """Return the place of an experiment's results: newly made, or committed."""
    registry.runs_of(name)  # or say what the names are
    made = folder / name
    committed = COMMITTED / f"{name}.jsonl"
    return made if made.is_dir() or not committed.exists() else committed


def table(
    name: Name,
    /,
    results_folder: Results = Path("results"),
    markdown: bool = False,
) -> None:
    """Print the table of an experiment.

    Args:
      name: of the experiment.
      results_folder: where to look first; then among the committed results.
      markdown: as it stands in the docs.
    """
    found = results.read(place_of(name, results_folder))
    if markdown:
        print(tables.markdown(found), end="")
    else:
        show(found, new_console())


def show(found: list[tables.Result], console: rich.console.Console) -> None:
    """Print the tables of results, and what is to be said of them."""
    for measure in tables.measures(found):
        console.print(tables.table(found, measure))
    for remark in tables.remarks(found):
        console.print(remark)


def plot(
    name: Name,
    /,
    results_folder: Results = Path("results"),
    output: Path = Path("results"),
) -> None:
    """Draw the figures of an experiment.

    Args:
      name: of the experiment.
      results_folder: where to look first; then among the committed results.
      output: folder to write them to.
    """
    place = place_of(name, results_folder)
    for path in figures.draw(name, results.read(place), output):
        print(f"Written: {path}")


def compare(
    names: Annotated[tuple[str, ...], tyro.conf.Positional],
    /,
    results_folder: Results = Path("results"),
    method: str = comparison.METHOD,
    methods: tuple[str, ...] = study.STUDY_METHODS,
    most_kept: float = 10.0,
    markdown: bool = False,
) -> None:
    """Compare a method with the others over the cells of experiments, seed by seed.

    Args:
      names: of the experiments.
      results_folder: where to look first; then among the committed results.
      method: the one that is compared with the others.
      methods: only these.
      most_kept: only targets with at most so many percent of the weights kept: easier
        ones tell methods apart by less than the spread of their seeds.
      markdown: as it stands in the docs.
    """
    if not names:
        raise ValueError("compare needs the name of an experiment")
    found = [
        result
        for name in names
        for result in results.read(place_of(name, results_folder))
    ]
    cells = comparison.cells(found, methods=methods, most_kept=most_kept)
    if markdown:
        print(comparison.markdown(cells, method), end="")
        return
    console = new_console()
    for shown in comparison.shown(cells, method):
        console.print(shown)


def collect(
    name: Name,
    /,
    results_folder: Results = Path("results"),
    output: Path = COMMITTED,
) -> None:
    """Add the results of an experiment to its file, a line each, to commit it.

    Args:
      name: of the experiment.
      results_folder: where its folder is.
      output: folder to write NAME.jsonl to.
    """
    registry.runs_of(name)
    target = output / f"{name}.jsonl"
    count = results.collect(results_folder / name, target)
    print(f"Written: {target}, {count} results")


COMMANDS = {
    "run": run,
    "table": table,
    "plot": plot,
    "compare": compare,
    "collect": collect,
    "list": list_experiments,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; errors of use end it with one line."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS, args=arguments, description=__doc__
        )
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        sys.stderr.flush()
        os._exit(130)
    except (OSError, ValueError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")


if __name__ == "__main__":
    main()
