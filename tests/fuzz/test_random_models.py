"""Random models: shrunk, they compute what they do with zeros in place of channels."""

from typing import NamedTuple

import jax
import numpy as np
import pytest

import swd_jax
from tests.fuzz import many_cases
from tests.fuzz.random_models import BATCH, RandomModel
from tests.helpers import quickly

FEW = 8


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


class Case(NamedTuple):
    """A model, and the generator of its parameters and of the channels kept."""

    model: RandomModel
    generator: np.random.Generator

    def __str__(self):
        return str(self.model)


def draw(seed):
    generator = np.random.default_rng(seed)
    return Case(RandomModel(generator), generator)


def check_model(case):
    """Check one model, and return how many channels it has that can be removed."""
    model, generator = case
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
    """Check many models, of which some have channels that can be removed."""
    channels = many_cases.check_all(draw, check_model, seeds)
    assert sum(channels) > len(seeds)


def test_a_few_models_agree():
    run(range(FEW))


@pytest.mark.fuzz
def test_many_models_agree():
    run(many_cases.seeds(500))
