"""`Criterion`: what its attributes promise, and criteria that a user writes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swd_jax
from swd_jax.criteria import _criterion
from tests.helpers.scoring import (
    GRADIENT,
    KERNEL,
    pruned_ints,
)

BUILT_IN = [
    swd_jax.criteria.magnitude,
    swd_jax.criteria.normalized_magnitude,
    swd_jax.criteria.rms_normalized_magnitude,
    swd_jax.criteria.lamp,
    swd_jax.criteria.saliency,
    swd_jax.criteria.mean_saliency(),
    swd_jax.criteria.movement,
    swd_jax.criteria.fisher,
    swd_jax.criteria.random_scores(0),
]


# By name: the others depend on a weight's position or on a statistic per weight.
ELEMENTWISE = {
    "magnitude",
    "normalized_magnitude",
    "rms_normalized_magnitude",
    "saliency",
    "mean_saliency(0.99)",
    "movement",
    "fisher",
}


@pytest.mark.parametrize("criterion", BUILT_IN, ids=repr)
def test_a_weight_has_the_same_score_among_others(criterion):
    """What `elementwise` promises: no difference between a whole leaf and its rows."""
    assert criterion.elementwise == (criterion.name in ELEMENTWISE)
    if not criterion.elementwise:
        return
    rng = np.random.default_rng(8)
    leaf = rng.normal(size=(16, 48)).astype(np.float32)
    inputs = {
        name: np.abs(rng.normal(size=leaf.shape)).astype(np.float32)
        for name in criterion.input_names
    }
    [statistic] = _criterion.statistics(criterion, [jnp.asarray(leaf)], jnp.float32)

    def scores(weights, inputs):
        return _criterion.scores(
            criterion, weights, statistic, inputs, jnp.dtype(jnp.float32)
        )

    def scores_by_rows(leaf, inputs):
        parts = [
            scores(leaf[i::4], {name: array[i::4] for name, array in inputs.items()})
            for i in range(4)
        ]
        return jnp.stack(parts, axis=1).reshape(leaf.shape)

    expected = jax.jit(scores)(leaf, inputs)
    np.testing.assert_array_equal(jax.jit(scores_by_rows)(leaf, inputs), expected)


def sharded_means(leaves, shards):
    sums = [shards.mask_replicas(i, jnp.sum(leaf)) for i, leaf in enumerate(leaves)]
    sizes = [leaf.size * shards.num_shards(i) for i, leaf in enumerate(leaves)]
    return [s / n for s, n in zip(shards.psum(sums), sizes, strict=True)]


DISTANCE = swd_jax.criteria.Criterion(
    "distance",
    lambda weights, mean: jnp.abs(weights - mean),
    statistics=lambda leaves: [jnp.mean(leaf) for leaf in leaves],
    sharded_statistics=sharded_means,
)
# The distances from the mean of 0, 1, 2, 3, 9, 3, which is 3.
DISTANCES = {"kernel": np.float32([[0, 1, 2, 3, 9, 3]])}
NEAREST_HALF = [[True, True, False, False, True, False]]


def test_a_users_criterion_ranks_the_weights():
    mask = swd_jax.prune_mask(DISTANCES, swd_jax.Target(0.5, criterion=DISTANCE))
    np.testing.assert_array_equal(mask["kernel"], NEAREST_HALF)


def test_a_users_criterion_may_have_statistics_of_sharded_leaves():
    parts = {"kernel": DISTANCES["kernel"].reshape(2, 1, 3)}
    target = swd_jax.Target(0.5, criterion=DISTANCE)
    prune_mask = jax.vmap(
        lambda part: swd_jax.prune_mask(part, target, axis_name="halves"),
        axis_name="halves",
    )
    mask = prune_mask(parts)["kernel"].reshape(1, 6)
    np.testing.assert_array_equal(mask, NEAREST_HALF)


def test_a_users_criterion_may_accumulate_and_read_extra_arguments():
    criterion = swd_jax.criteria.Criterion(
        "weighted_gradients",
        lambda weights, _, *, accumulated, importance: accumulated * importance,
        extra_args=("importance",),
        accumulator=swd_jax.criteria.Accumulator(
            lambda accumulated, weights, gradient: accumulated + jnp.abs(gradient)
        ),
    )
    assert criterion.input_names == ("importance", "accumulated")
    tx = swd_jax.swd(swd_jax.Target(0.25, criterion=criterion), weight_decay=1.0, a=1.0)
    importance = {"kernel": np.float32([[1, 9], [9, 90]])}
    state = tx.init(KERNEL)
    for _ in range(2):
        updates, state = tx.update(GRADIENT, state, KERNEL, importance=importance)
    # Twice |g|: 8, 2, 1, 0.2. Times the importance: 8, 18, 9, 18.
    decayed = np.asarray(updates["kernel"]) != GRADIENT["kernel"]
    np.testing.assert_array_equal(decayed, [[1, 0], [0, 0]])


def test_scores_that_are_not_signed_count_by_their_magnitude():
    """The contract of `signed=False`, which a criterion of its own may opt into."""
    params = {"kernel": np.float32([[-3, 1, 2, -4]])}

    def identity(weights, _):
        return weights

    unsigned = swd_jax.criteria.Criterion("identity", identity)
    assert pruned_ints(params, swd_jax.Target(0.5, criterion=unsigned)) == {
        "kernel": [[0, 1, 1, 0]]
    }
    signed = swd_jax.criteria.Criterion("identity", identity, signed=True)
    assert pruned_ints(params, swd_jax.Target(0.5, criterion=signed)) == {
        "kernel": [[1, 0, 0, 1]]
    }


@pytest.mark.parametrize(
    ("extra_args", "message"),
    [
        (
            {"gradient": GRADIENT, "nu": GRADIENT},
            r"extra_args has 'nu'.*reads gradient",
        ),
        ({"gradient": {}}, r"gradient must be a tree like the parameters.*'kernel'"),
        (
            {"gradient": {"kernel": np.ones((3, 2))}},
            r"an array of \(3, 2\) at 'kernel'",
        ),
    ],
)
def test_evidence_that_does_not_fit_is_an_error(extra_args, message):
    target = swd_jax.Target(0.5, criterion="saliency")
    with pytest.raises(ValueError, match=message):
        swd_jax.prune(KERNEL, target, extra_args=extra_args)
