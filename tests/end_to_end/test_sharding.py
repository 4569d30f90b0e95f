"""Weights spread over eight devices: the same bits, and no weight crosses."""

import math
from pathlib import Path

import jax
import numpy as np
import pytest

import swd_jax
from tests.helpers.every_target import STRUCTURES
from tests.helpers.programs import finish, start_program

# Ways of sharding that one process runs one after the other: starting a process takes
# as long as one of them.
WAYS = [
    "automatic",
    "by_hand",
    "explicit structures latents channels many_leaves",
    *(
        pytest.param(way, marks=pytest.mark.slow)
        for way in (
            "training",
            "each_for_itself exported structures_by_hand structures_for_tpus",
            "explicit_structures more_structures more_explicit_structures",
        )
    ),
    *(pytest.param(name, marks=pytest.mark.slow) for name in STRUCTURES),
]


@pytest.mark.parametrize("ways", WAYS)
def test_eight_devices_agree_with_one_and_exchange_counts_only(ways):
    program = Path(__file__).parents[1] / "helpers" / "sharded_program.py"
    # The compiler's own optimizations are on where the library runs as most use it.
    is_optimized = ways == "automatic"
    process = start_program(
        program, *ways.split(), devices=8, is_optimized=is_optimized
    )
    finish(process, seconds=600)


WEIGHTS = {"kernel": np.arange(1.0, 9.0, dtype=np.float32).reshape(2, 4)}


@pytest.mark.parametrize(
    "use",
    [
        lambda: swd_jax.prune(WEIGHTS, 0.5, axis_name="devices"),
        lambda: swd_jax.prune_mask(WEIGHTS, 0.5, axis_name=("devices",)),
        lambda: swd_jax.methods.straight_through(WEIGHTS, 0.5, axis_name="devices"),
    ],
)
def test_an_axis_that_is_not_there_is_named(use):
    with pytest.raises(ValueError, match=r"axis_name is .*devices.*inside shard_map"):
        use()


@pytest.mark.parametrize(
    "make",
    [
        lambda **axis: swd_jax.swd(0.5, weight_decay=0.5, a=1.0, **axis),
        lambda **axis: swd_jax.decoupled_swd(
            0.5, weight_decay=0.5, a=1.0, learning_rate=1.0, **axis
        ),
        lambda **axis: swd_jax.proximal_swd(
            0.5, weight_decay=0.5, a=1.0, learning_rate=1.0, **axis
        ),
        lambda **axis: swd_jax.methods.magnitude_pruning(0.5, **axis),
        lambda **axis: swd_jax.methods.soft_pruning(0.5, update_every=1, **axis),
        lambda **axis: swd_jax.methods.latent_pruning(
            0.5, forgetting=0.5, power=math.inf, **axis
        ),
    ],
)
def test_every_form_counts_along_the_named_axis(make):
    """Two halves under `vmap`, whose axes have names as those of devices do."""
    halves = {"kernel": WEIGHTS["kernel"].reshape(2, 1, 4)}

    def updates(tx, params):
        state = tx.init(params)
        for _ in range(2):  # soft pruning begins with the second step
            updates, state = tx.update(params, state, params)
        return updates

    together = jax.vmap(
        lambda part: updates(make(axis_name="halves"), part), axis_name="halves"
    )(halves)
    whole = updates(make(), {"kernel": WEIGHTS["kernel"]})
    np.testing.assert_array_equal(together["kernel"].reshape(2, 4), whole["kernel"])
    alone = jax.vmap(lambda part: updates(make(), part))(halves)
    assert not np.array_equal(alone["kernel"].reshape(2, 4), whole["kernel"])


def test_a_criterion_that_knows_whole_leaves_only_says_so():
    distance = swd_jax.criteria.Criterion(
        "distance",
        lambda w, mean: jax.numpy.abs(w - mean),
        statistics=lambda leaves: [leaf.mean() for leaf in leaves],
    )
    target = swd_jax.Target(0.5, criterion=distance)
    prune = jax.vmap(
        lambda part: swd_jax.prune(part, target, axis_name="halves"),
        axis_name="halves",
    )
    with pytest.raises(ValueError, match=r"axis_name is .*halves.*sharded_statistics"):
        prune({"kernel": WEIGHTS["kernel"].reshape(2, 1, 4)})
