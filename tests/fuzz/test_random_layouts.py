"""Random layouts on a mesh: what is pruned and selected is the same on one device."""

from pathlib import Path

import pytest

from tests.fuzz import many_cases
from tests.helpers.programs import finish, start_program

PROGRAM = Path(__file__).parent / "sharded_program.py"


@pytest.mark.fuzz
def test_many_layouts_agree():
    seeds = many_cases.seeds(100)
    process = start_program(PROGRAM, str(seeds.start), str(len(seeds)), devices=8)
    finish(process, seconds=3600)
