"""Random models: shrunk, they compute what they do with zeros in place of channels.

SWD_FUZZ_SEED and SWD_FUZZ_COUNT choose the models of the long run (`make test-fuzz`). A
failure names the seed of its model: SWD_FUZZ_SEED=<seed> SWD_FUZZ_COUNT=1 repeats it.
"""

import logging
import os
import traceback

import jax
import numpy as np
import pytest

import swd_jax
from tests.fuzz.random_models import BATCH, RandomModel
from tests.helpers import quickly

SEED = int(os.environ.get("SWD_FUZZ_SEED", "0"))
COUNT = int(os.environ.get("SWD_FUZZ_COUNT", "500"))
FEW = 8

log = logging.getLogger(__name__)


def random_kept(groups, generator):
    """Return about half of the channels of each group, but at least one."""
    vectors = []
    for group in groups:
        vector = generator.random(group.size) < 0.5
        vector[generator.integers(group.size)] = True
        vectors.append(vector)
    return vectors


def with_zeros(params, groups, kept):
    """Return the parameters with zeros in all members of the channels that go."""
    arrays = {name: np.array(array) for name, array in params.items()}
    for group, vector in zip(groups, kept, strict=True):
        for member in group.members:
            removed = member.indices[~vector].ravel()
            np.moveaxis(arrays[member.path], member.axis, 0)[removed] = 0
    return arrays


def assert_close(output, expected):
    """Compare finite numbers to 1e-3 of the largest one, and others exactly."""
    output, expected = np.asarray(output), np.asarray(expected)
    assert output.shape == expected.shape
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.isfinite(output), finite)
    largest = np.abs(expected[finite]).max(initial=1.0)
    np.testing.assert_allclose(
        output[finite] / largest, expected[finite] / largest, atol=1e-3
    )


def check(seed):
    """Check one model, and return how many channels it has that can be removed."""
    generator = np.random.default_rng(seed)
    model = RandomModel(generator)
    try:
        return check_model(model, generator)
    except Exception:
        log.exception("seed %d\n%s", seed, model)
        raise


def check_model(model, generator):
    params, x = model.params(), model.inputs()
    groups = swd_jax.channels.channel_groups(model.apply, params, x)
    assert all(axis.reason for axis in groups.frozen)
    kept = random_kept(groups, generator)
    try:
        small = swd_jax.channels.shrink(model.apply, params, groups, kept, x)
    except ValueError as error:
        # Several groups along one axis may all be removed.
        assert "leaves nothing of" in str(error)  # noqa: PT017
        return 0
    whole = with_zeros(params, groups, kept)
    both = quickly.jit(lambda p, q, x: (small.apply(p, x), model.apply(q, x)))
    assert_close(*both(small.params, whole, x))
    sizes = sum(array.size for array in small.params.values())
    assert groups.parameters(kept) == sizes
    again = swd_jax.channels.channel_groups(small.apply, small.params, x)
    # The smaller program computes products of equal rows once.
    assert again.flops() <= groups.flops(kept)
    for batch in (1, BATCH + 1):
        x = model.inputs(batch)
        try:
            output = jax.eval_shape(small.apply, small.params, x)
        except ValueError as error:
            # A batch of 1 may be coupled to other axes.
            assert "does not take" in str(error)  # noqa: PT017
            continue
        assert output.shape == (batch, 2)
    return sum(group.size for group in groups)


def run(seeds):
    """Check many models, and report all that fail."""
    failures, channels = [], 0
    for seed in seeds:
        try:
            channels += check(seed)
        except Exception:
            failures.append(f"seed {seed}: {traceback.format_exc(limit=-1)}")
    assert not failures, "\n".join([f"{len(failures)} models:", *failures])
    assert channels > len(seeds)


def test_a_few_models_agree():
    run(range(FEW))


@pytest.mark.fuzz
def test_many_models_agree():
    run(range(SEED, SEED + COUNT))
