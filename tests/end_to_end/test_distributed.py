"""Several processes train one model: the same bits as in one, and by hand as well."""

import socket
from pathlib import Path

import pytest

from tests.helpers.programs import finish, start_program

PROGRAM = Path(__file__).parents[1] / "helpers" / "training_program.py"


@pytest.fixture(scope="module")
def result_of_one_process():
    return finish(start_program(PROGRAM, devices=8)).splitlines()[-1]


@pytest.mark.slow
def test_two_processes_have_the_bits_of_one(result_of_one_process):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [
        start_program(
            PROGRAM, f"--process={i}", "--processes=2", f"--port={port}", devices=4
        )
        for i in range(2)
    ]
    try:
        results = [finish(process).splitlines()[-1] for process in both]
    finally:
        for process in both:  # if one fails, the other waits for it
            process.kill()
            process.communicate()
    assert results == [result_of_one_process] * 2


@pytest.mark.slow
def test_the_shape_of_the_mesh_does_not_matter(result_of_one_process):
    program = start_program(PROGRAM, "--mesh", "8", "1", devices=8)
    assert finish(program).splitlines()[-1] == result_of_one_process
