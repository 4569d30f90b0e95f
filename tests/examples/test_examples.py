"""The examples, run as their users run them."""

import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers import quickly

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(arguments, folder):
    """A program's output, run with warnings as errors from a folder of its own."""
    environment = os.environ | {"PYTHONWARNINGS": "error", "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, str(EXAMPLES / arguments[0]), *arguments[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_digits_prints_a_table_and_writes_a_figure_and_its_numbers(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("XLA_FLAGS", quickly.flags())
    done = run(["digits.py", "--seeds", "1", "--epochs", "2"], tmp_path)
    assert done.returncode == 0, done.stderr
    for expected in ("one-shot", "2,210", "44,190", "target sparsity 0.95"):
        assert expected in done.stdout
    results = json.loads((tmp_path / "results/digits/digits.json").read_text())
    methods = {"dense", "sparsify", "swd", "gradual pruning", "one-shot pruning"}
    assert set(results["means"]) == methods
    assert results["config"]["sparsity"] == 0.95
    figure = (tmp_path / "results/digits/digits.png").read_bytes()
    assert figure.startswith(b"\x89PNG")


def run_here(arguments, folder, monkeypatch):
    """Run a program that ends before it trains in this process; return how it ended.

    A process of its own would spend seconds on imports alone.
    """
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [str(EXAMPLES / arguments[0]), *arguments[1:]])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(sys.argv[0], run_name="__main__")
    return end.value.code


def test_digits_explains_its_options(tmp_path, monkeypatch, capsys):
    assert run_here(["digits.py", "--help"], tmp_path, monkeypatch) == 0
    shown = capsys.readouterr().out
    for option in ("--sparsity", "--epochs", "--a-max", "--seeds", "--output"):
        assert option in shown


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("--sparsity", "1.0", "sparsity"),
        ("--epochs", "0", "epochs"),
        ("--a-min", "0", "a_min"),
    ],
)
def test_digits_names_a_bad_option(option, value, word, tmp_path, monkeypatch, capsys):
    code = run_here(["digits.py", option, value], tmp_path, monkeypatch)
    assert code not in (0, None)
    shown = capsys.readouterr()
    # A string as the exit code is printed by Python itself, and the status is 1.
    assert word in shown.out + shown.err + str(code)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_digits_loses_nothing_at_95_percent(tmp_path):
    """The main job at its defaults, three seeds: what the README shows.

    The bounds leave room for another machine's rounding: the standard deviation of a
    mean is about 0.4 points.
    """
    done = run(["digits.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results/digits/digits.json").read_text())
    means = results["means"]
    dense = means["dense"]["accuracy_before"]
    for method in ("sparsify", "swd", "gradual pruning"):
        of_method = means[method]
        assert of_method["accuracy_after"] >= dense - 1.0
        assert of_method["accuracy_after"] >= of_method["accuracy_before"] - 0.1
        # 41,980 of 44,190 weights, which is 0.95 rounded down.
        is_sparse_before = of_method["sparsity_before"] == pytest.approx(0.95, abs=1e-4)
        assert is_sparse_before == (method != "swd")
    assert means["sparsify"]["accuracy_change"] == 0
    assert means["sparsify"]["weights_returned"] > 0
    assert means["gradual pruning"]["weights_returned"] == 0
    assert means["one-shot pruning"]["accuracy_after"] < dense - 20


@pytest.mark.slow
def test_an_experiment_that_is_killed_goes_on_with_the_runs_it_has(tmp_path):
    arguments = "paper.py run digits --methods dense gradual --kept 5 --seeds 4".split()
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(EXAMPLES / arguments[0]), *arguments[1:]]
    folder = tmp_path / "results" / "digits"
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL
    ) as process:
        while len(list(folder.glob("*.json"))) < 6 and process.poll() is None:
            time.sleep(0.05)
        process.kill()
    before = {p.name: p.read_text() for p in folder.glob("*.json")}
    assert 6 <= len(before) < 8
    assert all(json.loads(text)["final"] for text in before.values())
    done = run(arguments, tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{len(before)} of 8 runs have results" in done.stdout
    assert len(list(folder.glob("*.json"))) == 8
    assert all((folder / name).read_text() == text for name, text in before.items())


def test_paper_says_in_one_line_what_is_wrong(tmp_path):
    done = run(["paper.py", "run", "cora", "--data", "nowhere"], tmp_path)
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_shrink_prunes_and_cuts(tmp_path):
    arguments = ["--epochs", "1", "--width", "8", "--sparsities", "0.5", "--export"]
    done = run(["shrink.py", *arguments], tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "shrink"
    results = json.loads((folder / "shrink.json").read_text())
    assert [entry["method"] for entry in results["runs"]] == ["SWD", "pruned at once"]
    for entry in results["runs"]:
        assert entry["after/flops"] / entry["before/flops"] > 0.4
        assert entry["largest_difference"] < 1e-4
    # The program gives the same answers where there is neither flax nor this library.
    alone = tmp_path / "alone.py"
    alone.write_text(
        "import runpy, sys\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "assert not {'flax', 'swd_jax'} & sys.modules.keys()\n"
    )
    files = [EXAMPLES / "serve.py", folder / "swd-50.bin", folder / "test.npz"]
    served = run([alone, *map(str, files)], tmp_path)
    assert served.returncode == 0, served.stderr
    right = results["runs"][0]["accuracy_shrunk"]
    assert f"{right:.2f} % right" in served.stdout
