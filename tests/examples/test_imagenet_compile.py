"""`examples/imagenet.py compile`: what is said of a step that is compiled, not run."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from imagenet_training import compile_for, placement
from imagenet_training.compile_for import CompileFor, Step
from imagenet_training.config import Config

PROGRAM = Path(__file__).parents[2] / "examples" / "imagenet.py"
RUN = Config(depth=8, width=4, resolution=16, batch_size=8, bfloat16=False)
STEP = Step(
    memory_bytes=4_000_000_000,
    operations=2e12,
    moved_bytes=10_000_000_000,
    collectives={"all-reduce": {"count": 3, "bytes": 50_000_000}},
    seconds=1.0,
)


def test_what_the_compiler_says_of_a_step_that_is_run_here():
    mesh = jax.make_mesh((1,), (placement.AXIS,))
    dense = compile_for.compile_step(dataclasses.replace(RUN, sparsity=0.0), mesh)
    sparse = compile_for.compile_step(RUN, mesh)
    # Of the weights and the momentum, forward and backward.
    stages = [(3, 3, 3, 4), (3, 3, 4, 4), (3, 3, 4, 4), (3, 3, 4, 8), (3, 3, 8, 8)]
    stages += [(1, 1, 4, 8), (3, 3, 8, 16), (3, 3, 16, 16), (1, 1, 8, 16), (16, 1000)]
    weights = sum(map(math.prod, stages))
    assert dense.memory_bytes > 2 * 4 * weights
    assert dense.collectives == sparse.collectives == {}
    # An image has 16 x 16 pixels: each weight of the first stage is used on all.
    assert dense.operations > 3 * 2 * 8 * 256 * (9 * 3 * 4 + 2 * 9 * 4 * 4)
    assert dense.operations < sparse.operations < 1.2 * dense.operations
    assert dense.moved_bytes < sparse.moved_bytes


class TestVerdict:
    def test_says_what_fits_and_what_is_added(self):
        sparse = dataclasses.replace(
            STEP,
            memory_bytes=4_004_000_000,
            operations=2.0002e12,
            moved_bytes=10_100_000_000,
            collectives={"all-reduce": {"count": 4, "bytes": 50_000_096}},
        )
        lines = compile_for.verdict({"dense": STEP, "swd": sparse}, 16e9)
        assert lines == [
            "The dense step fits: 25 % of the 16 GB of a chip.",
            "The swd step fits: 25 % of the 16 GB of a chip.",
            "SWD adds 0.100 % of memory, 0.010 % of operations, 1.000 % of bytes moved "
            "with one reading of the weights, and 96 bytes that cross between chips.",
        ]

    @pytest.mark.parametrize(
        "large", [None, dataclasses.replace(STEP, memory_bytes=17_000_000_000)]
    )
    def test_says_what_does_not_fit_and_the_way_out(self, large):
        [line] = compile_for.verdict({"dense": large}, 16e9)
        assert line == (
            "The dense step does not fit into the 16 GB of a chip: use more chips, "
            "smaller batches, or --mesh fsdp."
        )


def test_an_unknown_kind_of_tpu_is_named():
    with pytest.raises(ValueError, match=r"begin with one of v4, v5e.* got 'v9:2x2'"):
        compile_for.run(CompileFor("v9:2x2"), RUN)


def test_the_batch_must_fit_the_chips():
    with pytest.raises(ValueError, match=r"16 .*got 100: try --batch-size 96 or 112"):
        placement.check_batch_size(100, 16)


def test_a_missing_compiler_or_an_impossible_arrangement_is_an_error():
    """No TPU has chips in such an arrangement; and most have no compiler for any."""
    found = subprocess.run(
        [sys.executable, PROGRAM, "compile", "v5e:1x3", "epochs-90-sparsity-90"],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 1
    assert "no compiler for 'v5e:1x3'" in found.stderr
    assert "pip install 'jax[tpu]', and JAX_PLATFORMS=cpu" in found.stderr
    assert "Traceback" not in found.stderr
