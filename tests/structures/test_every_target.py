"""Every structure with every criterion and scope against brute force."""

import chex
import jax
import ml_dtypes
import numpy as np
import pytest

import swd_jax
from tests.helpers import quickly
from tests.helpers.every_target import (
    EVERY,
    SOME,
    expected_masks,
    needed,
    random_case,
    target_of,
)

# The library's lines that it runs, other tests run too.
pytestmark = pytest.mark.no_cover


def check_masks(mask_of, structure, criterion, scope, seeds):
    """Compare masks with brute force; return the last weights and all about them."""
    target = target_of(structure, criterion, scope)
    for seed in seeds:
        dtype = ml_dtypes.bfloat16 if seed % 3 == 2 else np.float32
        params, extra_args = random_case(seed, dtype)
        extra_args = needed(target, extra_args)
        expected = expected_masks(structure, criterion, scope, params, extra_args)
        mask = mask_of(params, target, extra_args=extra_args)
        chex.assert_trees_all_equal(mask, expected)
    return params, target, extra_args, expected


def check_eager_masks_and_compiled_pruning(*case, seeds):
    params, target, extra_args, kept = check_masks(swd_jax.prune_mask, *case, seeds)
    prune = quickly.jit(lambda params, e: swd_jax.prune(params, target, extra_args=e))
    pruned = {
        name: np.where(kept[name], leaf, 0).astype(leaf.dtype)
        for name, leaf in params.items()
    }
    chex.assert_trees_all_equal(prune(params, extra_args), pruned)


def spread(cases):
    """Return every second case for the ordinary suite, and the others as slow ones."""
    return [
        pytest.param(case, id="-".join(case), marks=[pytest.mark.slow] if i % 2 else [])
        for i, case in enumerate(cases)
    ]


@pytest.mark.parametrize("case", spread(SOME[::2]))
def test_pruning_is_that_of_a_loop_over_groups(case):
    check_eager_masks_and_compiled_pruning(*case, seeds=[0, 1])


@pytest.mark.parametrize("case", spread(SOME[1::2]))
def test_masks_of_bfloat16_are_those_of_a_loop_over_groups(case):
    """With other criteria and scopes, in one compiled program for each case."""
    target = target_of(*case)
    mask_of = quickly.jit(
        lambda params, e: swd_jax.prune_mask(params, target, extra_args=e)
    )
    check_masks(
        lambda params, _, extra_args: mask_of(params, extra_args), *case, [2, 5]
    )


@pytest.fixture
def own_programs():
    """Forget what was compiled: a process cannot hold the programs of all cases."""
    yield
    jax.clear_caches()


@pytest.mark.slow
@pytest.mark.usefixtures("own_programs")
@pytest.mark.parametrize("case", EVERY, ids="-".join)
def test_all_of_them(case):
    check_eager_masks_and_compiled_pruning(*case, seeds=range(12))
