"""A training that is killed goes on from its checkpoint to the same bits."""

import random
from pathlib import Path

import pytest

from tests.helpers.programs import finish, start_program

PROGRAM = Path(__file__).parents[1] / "helpers" / "training_program.py"


def train(*arguments, devices=8):
    return start_program(PROGRAM, *map(str, arguments), devices=devices)


def kill_at(process, step):
    """SIGKILL as soon as a step is made, whatever is being written then."""
    for line in process.stdout:
        if line == f"step {step}\n":
            break
    else:
        pytest.fail(process.stderr.read())
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def uninterrupted():
    return finish(train()).splitlines()[-1]


def check_a_killed_training(*options, expected):
    kill_at(train(*options), 13)
    out = finish(train(*options)).splitlines()
    assert out[-1] == expected
    assert 1 < int(out[0].removeprefix("step ")) <= 14  # not from the beginning


def test_a_killed_training_ends_with_the_same_bits(uninterrupted, tmp_path):
    check_a_killed_training("--folder", tmp_path, expected=uninterrupted)


@pytest.mark.slow
def test_latent_weights_are_in_the_checkpoint_too(tmp_path):
    expected = finish(train("--sparsify")).splitlines()[-1]
    check_a_killed_training("--folder", tmp_path, "--sparsify", expected=expected)


@pytest.mark.slow
def test_a_checkpoint_is_the_same_on_another_mesh(tmp_path):
    saved = finish(train("--folder", tmp_path, "--steps", 20)).splitlines()[-1]
    half = train("--folder", tmp_path, "--steps", 20, "--mesh", 4, 1, devices=4)
    # No step is made: the same state, mask and pruned weights. (Steps on
    # parts of another size may be compiled otherwise, and differ in their last bits.)
    assert finish(half).splitlines() == [saved]


@pytest.mark.slow
def test_ten_kills_at_random_steps(uninterrupted, tmp_path):
    chance = random.Random(0)
    for i in range(10):
        folder = tmp_path / str(i)
        kill_at(train("--folder", folder), chance.randrange(1, 40))
        assert finish(train("--folder", folder)).splitlines()[-1] == uninterrupted
