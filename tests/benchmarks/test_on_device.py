"""The driver of all benchmarks: what it runs, and what it does not run again."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import on_device
from on_device import Config, Part


def test_every_part_is_a_program_that_is_there(tmp_path):
    for quick in (True, False):
        for part in on_device.parts(Config(tmp_path, cifar=tmp_path, quick=quick)):
            program = part.command[0]
            assert program == "-m" or (on_device.ROOT / program).is_file()


def test_all_parts_fit_into_a_quarter_of_an_hour_but_for_the_trainings(tmp_path):
    """At most: a limit is there for the part that fails."""
    limits = [part.seconds for part in on_device.parts(Config(tmp_path))]
    assert max(limits) <= 150


def test_a_part_says_how_it_ended():
    printing = on_device.run(Part("a", ["-c", "print('x'); raise SystemExit(3)"], 30))
    assert (printing["ended"], printing["printed"]) == ("3", ["x"])
    slow = on_device.run(Part("b", ["-c", "import time; time.sleep(60)"], 1))
    assert slow["ended"] == "stopped after 1 s"


def test_what_has_succeeded_is_not_repeated(tmp_path, monkeypatch):
    started = tmp_path / "started"
    program = "import sys; open(sys.argv[1], 'a').write(sys.argv[2])"
    known = [
        Part("good", ["-c", program, str(started), "g"], 30),
        Part("bad", ["-c", f"{program}; raise SystemExit(1)", str(started), "b"], 30),
    ]
    monkeypatch.setattr(on_device, "parts", lambda config: known)
    for _ in range(2):
        with pytest.raises(SystemExit, match="True"):
            on_device.main(Config(tmp_path))
    assert started.read_text() == "gbb"
    found = json.loads((tmp_path / "on_device.json").read_text())["parts"]
    assert {name: part["ended"] for name, part in found.items()} == {
        "good": "0",
        "bad": "1",
    }


def test_an_unknown_part_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match="only must be among tests, .*; got sorting"):
        on_device.main(Config(tmp_path, only=("sorting",)))
