"""Gradual, one-shot, iterative and soft pruning against NumPy and by hand."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax
from tests.helpers import quickly

WEIGHTS = np.array([[0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7, -0.8]], np.float32)


def run(tx, weights, gradients):
    """The weights after each step, with what is already pruned where it is."""
    params = {"kernel": jnp.asarray(weights)}
    state, update = tx.init(params), quickly.jit(tx.update)
    seen = []
    for gradient in gradients:
        updates, state = update({"kernel": jnp.asarray(gradient)}, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(np.asarray(params["kernel"]))
    return seen, state


def reference(weights, gradients, counts, renewed, learning_rate):
    """SGD with a mask that at some steps loses the k smallest weights."""
    weights, lost, seen = weights.astype(np.float64), np.zeros(weights.shape, bool), []
    for step, (gradient, k) in enumerate(zip(gradients, counts, strict=True)):
        if renewed(step):
            order = np.argsort(np.abs(weights), axis=None, kind="stable")
            lost.ravel()[order[:k]] = True
        weights = np.where(lost, 0, weights - learning_rate * gradient)
        seen.append(weights)
    return seen


@pytest.mark.parametrize("every", [1, 3, 10])
def test_gradual_pruning_is_that_of_a_sort_and_a_mask(every):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(20, 30)).astype(np.float32)
    gradients = rng.normal(size=(25, 20, 30)).astype(np.float32)
    target = swd_jax.Target(swd_jax.cubic_sparsity(0.9, begin=2, end=20))
    tx = optax.chain(
        optax.sgd(0.05), swd_jax.methods.magnitude_pruning(target, update_every=every)
    )
    seen, state = run(tx, weights, gradients)
    # Sparsities are read to seven decimal places.
    rising = [0.9 * (1 - (1 - min(max(t - 2, 0) / 18, 1)) ** 3) for t in range(25)]
    counts = [int(600 * Fraction(f"{sparsity:.7f}")) for sparsity in rising]
    wanted = reference(weights, gradients, counts, lambda t: t % every == 0, 0.05)
    for got, expected in zip(seen, wanted, strict=True):
        np.testing.assert_array_equal(got == 0, expected == 0)
        np.testing.assert_allclose(got, expected, atol=1e-5)
    last = counts[24 - 24 % every]
    np.testing.assert_allclose(
        state[-1].selection.selected_fraction, last / 600, rtol=1e-6
    )


def test_a_pruned_weight_stays_zero_through_momentum_and_decay():
    tx = optax.chain(
        optax.add_decayed_weights(0.1),
        optax.sgd(0.1, momentum=0.9),
        swd_jax.methods.magnitude_pruning(0.5, update_every=4),
    )
    seen, _ = run(tx, WEIGHTS, [np.ones_like(WEIGHTS)] * 9)
    for weights in seen:
        np.testing.assert_array_equal(weights == 0, np.abs(WEIGHTS) < 0.45)


def test_one_shot_prunes_at_its_step_and_not_before():
    target = swd_jax.Target(swd_jax.schedules.staircase_sparsity(0.5, [3]))
    tx = optax.chain(optax.sgd(0.0), swd_jax.methods.magnitude_pruning(target))
    seen, _ = run(tx, WEIGHTS, [np.ones_like(WEIGHTS)] * 6)
    assert [int((weights == 0).sum()) for weights in seen] == [0, 0, 0, 4, 4, 4]


def test_rounds_take_the_same_part_of_what_is_left():
    target = swd_jax.Target(swd_jax.schedules.staircase_sparsity(0.875, [1, 2, 4]))
    tx = optax.chain(optax.sgd(0.0), swd_jax.methods.magnitude_pruning(target))
    seen, _ = run(tx, WEIGHTS, [np.ones_like(WEIGHTS)] * 6)
    assert [int((weights == 0).sum()) for weights in seen] == [0, 4, 6, 6, 7, 7]


def test_weights_that_begin_at_zero_may_grow():
    """As those of an adapter do; there are more of them than are to be pruned."""
    weights = np.array([[0, 0, 0, 0, 0, 0, 1, 2]], np.float32)
    tx = optax.chain(
        optax.sgd(1.0), swd_jax.methods.magnitude_pruning(0.25, update_every=3)
    )
    still = np.zeros_like(weights)
    seen, _ = run(tx, weights, [still, np.full_like(weights, -1.0)])
    np.testing.assert_array_equal(seen[0], weights)
    np.testing.assert_array_equal(seen[1], weights + 1)


@pytest.mark.parametrize("every", [1, 4])
def test_a_zero_in_a_group_that_stays_learns_like_others(every):
    weights = np.array([[0.1, 0.0, 3.0, 0.0], [0.2, 0.1, 0.0, 4.0]], np.float32)
    target = swd_jax.Target(0.5, structure=swd_jax.Block((1, 2)))
    pruning = swd_jax.methods.magnitude_pruning(target, update_every=every)
    tx = optax.chain(optax.sgd(0.5), pruning)
    seen, _ = run(tx, weights, [-np.ones_like(weights)] * 3)
    for step, found in enumerate(seen, 1):
        grown = weights + 0.5 * step
        grown[:, :2] = 0
        np.testing.assert_array_equal(found, grown)


def channels_with_biases(sparsity):
    """Two layers of which the second sees the first one's four channels."""

    def model(params, x):
        hidden = jax.nn.relu(x @ params["first"] + params["shift"][None])
        return hidden @ params["second"]

    params = {
        "first": jnp.array([[0.1, 3.0, 0.2, 2.0]]),
        "shift": jnp.zeros(4),
        "second": jnp.ones((4, 1)),
    }
    groups = swd_jax.channels.channel_groups(model, params, jnp.ones((2, 1)))
    structure = swd_jax.CoupledChannels(groups)
    return params, swd_jax.Target(sparsity, structure=structure)


@pytest.mark.parametrize("every", [1, 4])
def test_the_first_biases_of_channels_that_stay_learn(every):
    # 3 of 12 parameters for each channel; at step 4 half of them go.
    sparsity = swd_jax.schedules.staircase_sparsity(0.5, [4])
    params, target = channels_with_biases(sparsity)
    pruning = swd_jax.methods.magnitude_pruning(target, update_every=every)
    tx = optax.chain(optax.sgd(0.5), pruning)
    state, update = tx.init(params), quickly.jit(tx.update)
    gradient = {**jax.tree.map(jnp.zeros_like, params), "shift": -jnp.ones(4)}
    for step in range(8):
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        grown = np.full(4, 0.5 * (step + 1))
        lost = [step >= 4, False, step >= 4, False]
        np.testing.assert_array_equal(params["shift"], np.where(lost, 0, grown))
        np.testing.assert_array_equal(params["second"][:, 0] == 0, lost)


def test_between_renewals_only_zeros_are_held():
    # 0.5 falls below the threshold of 0.45 at step 1, which is no time to prune.
    tx = optax.chain(
        optax.sgd(1.0), swd_jax.methods.magnitude_pruning(0.5, update_every=3)
    )
    down = 0.2 * (np.abs(WEIGHTS) == 0.5)
    seen, _ = run(tx, WEIGHTS, [down.astype(np.float32)] * 3)
    assert [int((weights == 0).sum()) for weights in seen] == [4, 4, 4]
    np.testing.assert_allclose(seen[2][0, 4], -0.1, atol=1e-6)


def test_soft_pruning_zeroes_at_the_start_of_each_period_and_lets_go():
    seen, _ = run(
        optax.chain(optax.sgd(1.0), swd_jax.methods.soft_pruning(0.5, update_every=3)),
        WEIGHTS,
        [np.full_like(WEIGHTS, 0.01)] * 7,
    )
    zeros = [int((weights == 0).sum()) for weights in seen]
    assert zeros == [0, 0, 0, 4, 0, 0, 4]
    # The step at which it prunes is not taken by what it prunes, and is by the rest.
    np.testing.assert_allclose(seen[3], np.where(zeros_of(seen[3]), 0, WEIGHTS - 0.04))
    np.testing.assert_allclose(seen[4][zeros_of(seen[3])], -0.01, atol=1e-7)


def zeros_of(weights):
    return weights == 0


def test_a_local_target_prunes_each_leaf_by_its_own_threshold():
    params = {"a": jnp.asarray(WEIGHTS), "b": 100 * jnp.asarray(WEIGHTS)}
    target = swd_jax.Target(0.25, scope="local", prunable="")
    tx = swd_jax.methods.magnitude_pruning(target, update_every=2)
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
        params = optax.apply_updates(params, updates)
    assert [int((leaf == 0).sum()) for leaf in params.values()] == [2, 2]


def test_subnormal_weights_are_no_zeros():
    weights = np.array([[1e-40, 1.0, 2.0, 3.0]], np.float32)
    tx = swd_jax.methods.magnitude_pruning(0.25, update_every=2)
    params = {"kernel": jnp.asarray(weights)}
    state = tx.init(params)
    threshold = jnp.asarray(0.5, jnp.float32)
    state = state._replace(
        count=jnp.asarray(1), selection=state.selection._replace(threshold=threshold)
    )
    update = {"kernel": jnp.ones((1, 4))}
    held, _ = quickly.jit(tx.update)(update, state, params)
    np.testing.assert_array_equal(held["kernel"], [[1, 1, 1, 1]])


@pytest.mark.parametrize(
    "make",
    [
        lambda value: swd_jax.methods.magnitude_pruning(0.5, update_every=value),
        lambda value: swd_jax.methods.soft_pruning(0.5, update_every=value),
    ],
)
@pytest.mark.parametrize("value", [0, -1, 2.5, True, "often"])
def test_a_period_that_is_no_number_of_steps_is_an_error(make, value):
    with pytest.raises(ValueError, match="every must be a"):
        make(value)


@pytest.mark.parametrize("sparsity", [1.0, -0.1, float("nan")])
def test_a_sparsity_out_of_range_is_an_error(sparsity):
    with pytest.raises(ValueError, match="sparsity"):
        swd_jax.methods.magnitude_pruning(sparsity)


def test_missing_weights_are_an_error_that_says_who_needs_them():
    tx = swd_jax.methods.soft_pruning(0.5, update_every=2)
    params = {"kernel": jnp.asarray(WEIGHTS)}
    with pytest.raises(ValueError, match="params is None, but soft_pruning needs"):
        tx.update(params, tx.init(params))
