"""The channels that `CoupledChannels` keeps of every group unless told otherwise."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swd_jax
from swd_jax._allocation import sparsity_values

# 64 + 256 + 32 weights. A channel of the first group takes 20 of them while all of the
# second are kept, and has the lower scores.
RANDOM = np.random.default_rng(0)
PARAMS = {
    "first": jnp.asarray(0.01 * RANDOM.normal(size=(4, 16)), jnp.float32),
    "second": jnp.asarray(0.1 * RANDOM.normal(size=(16, 16)), jnp.float32),
    "third": jnp.asarray(10 * RANDOM.normal(size=(16, 2)), jnp.float32),
}


def model(params, x):
    hidden = jax.nn.relu(x @ params["first"])
    return jax.nn.relu(hidden @ params["second"]) @ params["third"]


GROUPS = swd_jax.channels.channel_groups(model, PARAMS, jnp.ones((1, 4)))


def num_kept(sparsity, scope="global", **options):
    structure = swd_jax.CoupledChannels(GROUPS, **options)
    target = swd_jax.Target(sparsity, structure=structure, scope=scope)
    kept = swd_jax.channels.kept_channels(PARAMS, target)
    return sorted(int(np.sum(channels)) for channels in kept.values())


def test_an_eighth_of_a_group_is_kept_that_a_ranking_across_groups_would_empty():
    assert num_kept(0.86, min_channels=1)[0] == 1
    assert num_kept(0.86)[0] == 2


def test_less_is_kept_where_the_target_needs_it():
    """Of 352 weights 16 are left with 2 of 16 channels in both groups, 7 with 1."""
    assert num_kept(0.95)[0] == 2
    assert num_kept(0.97) == num_kept(0.97, min_channels=1)


def test_a_local_scope_has_no_floor():
    assert num_kept(0.97, "local") == num_kept(0.97, "local", min_channels=1)


@pytest.mark.parametrize("sparsity", [0.86, swd_jax.cubic_sparsity(0.86, 0, 10)])
def test_the_floor_is_the_same_under_jit(sparsity):
    """A schedule's final value is known there too."""
    structure = swd_jax.CoupledChannels(GROUPS)
    target = swd_jax.Target(sparsity, structure=structure)
    pruned = jax.jit(lambda params: swd_jax.prune(params, target))(PARAMS)
    for found, expected in zip(
        jax.tree.leaves(pruned),
        jax.tree.leaves(swd_jax.prune(PARAMS, target)),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)
    assert np.sum(np.any(pruned["first"], axis=0)) == 2


def test_the_final_value_of_a_schedule_is_known_while_a_caller_is_traced():
    schedule = swd_jax.cubic_sparsity(0.9, 0, 10)
    found = []

    def trace(x):
        found.append(sparsity_values.sparsity_at(schedule, None))
        found.append(sparsity_values.sparsity_at(schedule, 10))
        return x

    jax.jit(trace)(1.0)
    assert found == [Fraction(9, 10)] * 2
