"""Every structure with every criterion and scope against brute force."""

import jax
import ml_dtypes
import numpy as np
import pytest

import swd_jax
from tests.helpers import quickly
from tests.helpers.every_target import (
    EVERY,
    SHAPES,
    SOME,
    expected_masks,
    needed,
    random_case,
    target_of,
)

# The library's lines that it runs, other tests run too.
pytestmark = [pytest.mark.no_cover, pytest.mark.usefixtures("compiled_quickly")]


def check(structure, criterion, scope, seeds):
    target = target_of(structure, criterion, scope)
    for seed in seeds:
        dtype = ml_dtypes.bfloat16 if seed % 3 == 2 else np.float32
        params, extra_args = random_case(seed, dtype)
        extra_args = needed(target, extra_args)
        found = swd_jax.prune_mask(params, target, extra_args=extra_args)
        expected = expected_masks(structure, criterion, scope, params, extra_args)
        for name in SHAPES:
            np.testing.assert_array_equal(found[name], expected[name], str(seed))
    prune = quickly.jit(lambda params, e: swd_jax.prune(params, target, extra_args=e))
    for name, leaf in prune(params, extra_args).items():
        kept = np.where(expected[name], params[name], 0)
        np.testing.assert_array_equal(leaf, kept.astype(dtype))


@pytest.mark.parametrize(("structure", "criterion", "scope"), SOME)
def test_pruning_is_that_of_a_loop_over_groups(structure, criterion, scope):
    # In float32 and bfloat16 by turns: each has programs of its own.
    second = SOME.index((structure, criterion, scope)) % 2
    check(structure, criterion, scope, seeds=[2, 5] if second else [0, 1])


@pytest.fixture
def own_programs():
    """Forget what was compiled: a process cannot hold the programs of all cases."""
    yield
    jax.clear_caches()


@pytest.mark.slow
@pytest.mark.usefixtures("own_programs")
@pytest.mark.parametrize(("structure", "criterion", "scope"), EVERY)
def test_all_of_them(structure, criterion, scope):
    check(structure, criterion, scope, seeds=range(12))
