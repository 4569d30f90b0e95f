"""Which entries of a benchmark are timed."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from timing import Config, Entry, chosen

ENTRIES = [
    Entry("adam", abs, compared_with=("adam",)),
    Entry("swd", abs, compared_with=("adam",)),
    Entry("sgd", abs),
]


def names(*only):
    return [entry.name for entry in chosen(ENTRIES, Config(only=only))]


def test_all_are_timed_if_none_is_named():
    assert names() == ["adam", "swd", "sgd"]


def test_those_that_are_named_are_timed_with_what_they_are_compared_with():
    assert names("swd") == ["adam", "swd"]
    assert names("sgd") == ["sgd"]


def test_an_unknown_name_is_an_error():
    with pytest.raises(ValueError, match=r"'adam', 'swd', 'sgd'\]; got \['lion'\]"):
        names("lion")
