"""Everything that only a GPU or a TPU can show, in the order of what it is worth.

    python benchmarks/on_device.py --cifar DIR --out DIR
    JAX_PLATFORMS=cpu python benchmarks/on_device.py --quick --out DIR

Each part is a program of its own, with a limit of its time. What has succeeded is not
repeated: the same command goes on where it was stopped. The parts write their results
to the folder, and on_device.json there says what ran, how long, and how it ended.
"""

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

try:
    import rich.console
    import rich.table
    import tyro
except ImportError as error:
    sys.exit(f"{error}. Install the extra that has it: pip install 'swd-jax[examples]'")

ROOT = Path(__file__).parents[1]
# Of benchmarks/optimizer_step.py, each of which has to be compiled.
STEPS = ("adam", "swd + adam", "swd + adam, update_every=10", "adam + sparsify")
# The end of what a part printed that is kept.
LINES = 40


@dataclasses.dataclass(frozen=True)
class Config:
    """What to run, and where its results go."""

    out: Path
    """Folder for all results."""
    cifar: Path | None = None
    """Folder with CIFAR-10. Without one its trainings are left out."""
    only: tuple[str, ...] = ()
    """Only these parts."""
    quick: bool = False
    """Each part as small as it can be: to see that all of them run."""


class Part(NamedTuple):
    """One program."""

    name: str
    command: list[str]
    seconds: float
    """After which it is stopped."""


def parts(config: Config) -> list[Part]:
    """Return the parts, the most important first."""
    out = ["--out", str(config.out)]
    quick = config.quick
    pytest = ["-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    tests = ["tests/selection/test_order_statistics.py"]
    marked = [] if quick else ["-m", "not slow"]
    found = [
        Part(
            "tests",
            [*pytest, *marked, *(tests if quick else [*tests, "tests/pruning"])],
            150,
        )
    ]
    steps = "benchmarks/optimizer_step.py", "benchmarks/selection.py"
    cases = (
        [("4.3M", "f32")]
        if quick
        else [("25.6M", "f32"), ("1G", "f32"), ("25.6M", "bf16"), ("1G", "bf16")]
    )
    repeats = ["--repeats", "2" if quick else "21", "--seconds-per-entry", "3"]
    for size, dtype in cases:
        for program in steps:
            name = f"{Path(program).stem} {size} {dtype}"
            options = ["--size", size, "--dtype", dtype, *repeats]
            if "optimizer_step" in program:
                options += ["--only", *STEPS]
            found.append(Part(name, [program, *options, *out], 120))
    images = ["--depth", "8", "--resolution", "16", "--batch-size", "4"]
    if not quick:
        images = ["--resolution", "224", "--batch-size", "128", "--bfloat16"]
    images += ["--repeats", "2" if quick else "15"]
    found.append(Part("imagenet step", ["benchmarks/imagenet.py", *images, *out], 150))
    if config.cifar is not None:
        data = ["--data", str(config.cifar), "--results", str(config.out)]
        data += ["--cache", str(config.out / "cache")]
        command = ["examples/paper.py", "run", "study-cifar10-resnet20", *data]
        budget = ["--epochs", "1", "--seeds", "1", "--methods", "dense"]
        found.append(
            Part(
                "cifar10", [*command, *(budget if quick else ["--together", "2"])], 420
            )
        )
    return found


def run(part: Part) -> dict[str, object]:
    """Run a part to its end or its limit."""
    started = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, *part.command],
            cwd=ROOT,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=part.seconds,
        )
        ended, printed = str(done.returncode), done.stdout
    except subprocess.TimeoutExpired as error:
        ended = f"stopped after {part.seconds:g} s"
        printed = (error.stdout or b"").decode(errors="replace")
    return {
        "command": " ".join(["python", *part.command]),
        "ended": ended,
        "seconds": round(time.perf_counter() - started, 1),
        "printed": printed.splitlines()[-LINES:],
    }


def main(config: Config) -> None:
    config.out.mkdir(parents=True, exist_ok=True)
    path = config.out / "on_device.json"
    found = json.loads(path.read_text())["parts"] if path.exists() else {}
    known = parts(config)
    if unknown := set(config.only) - {part.name for part in known}:
        sys.exit(
            f"only must be among {', '.join(part.name for part in known)}; got "
            f"{', '.join(sorted(unknown))}"
        )
    console = rich.console.Console(highlight=False)
    for part in known:
        is_done = found.get(part.name, {}).get("ended") == "0"
        if is_done or (config.only and part.name not in config.only):
            continue
        console.print(f"{part.name}: python {' '.join(part.command)}")
        found[part.name] = run(part)
        # After each part: what there is stays if this is stopped. The hardware and the
        # versions are in the results of the parts: to ask jax for them here would take
        # the device's memory from the parts.
        path.write_text(json.dumps({"parts": found}, indent=2) + "\n")
    table = rich.table.Table()
    for column in ("part", "seconds", "ended"):
        table.add_column(column)
    for name, part in found.items():
        table.add_row(name, str(part["seconds"]), part["ended"])
    console.print(table)
    sys.exit(any(part["ended"] != "0" for part in found.values()))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
