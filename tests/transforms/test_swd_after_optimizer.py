"""The forms that go after the optimizer, against values worked out by hand."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax

WEIGHTS = {"kernel": jnp.array([[1.0, -2.0, 3.0, -4.0]])}
ZERO = {"kernel": jnp.zeros((1, 4))}
FORMS = {"decoupled": swd_jax.decoupled_swd, "proximal": swd_jax.proximal_swd}


def after_one(tx, updates):
    """Weights after one update, by a transformation alone."""
    updates, _ = tx.update(updates, tx.init(WEIGHTS), WEIGHTS)
    return optax.apply_updates(WEIGHTS, updates)["kernel"]


def test_decoupled_takes_a_fraction_of_the_selected_weights():
    tx = swd_jax.decoupled_swd(0.5, weight_decay=0.1, a=10.0, learning_rate=0.25)
    # lr a mu = 0.25: 1 and -2 lose a quarter, on top of the optimizer's own 0.5.
    updates = {"kernel": jnp.full((1, 4), 0.5)}
    np.testing.assert_allclose(after_one(tx, updates), [[1.25, -1.0, 3.5, -3.5]])


def test_proximal_divides_the_moved_weights():
    tx = swd_jax.proximal_swd(0.5, weight_decay=0.1, a=40.0, learning_rate=0.25)
    # 1 + lr a mu = 2: (1 + 0.5) / 2 and (-2 + 0.5) / 2.
    updates = {"kernel": jnp.full((1, 4), 0.5)}
    np.testing.assert_allclose(after_one(tx, updates), [[0.75, -0.75, 3.5, -3.5]])


@pytest.mark.parametrize("form", FORMS)
def test_without_decay_the_updates_stay_bit_for_bit(form):
    rng = np.random.default_rng(0)
    updates = {"kernel": jnp.asarray(rng.normal(size=(1, 4)), jnp.float32)}
    tx = FORMS[form](0.5, weight_decay=0.1, a=0.0, learning_rate=0.25)
    got, _ = tx.update(updates, tx.init(WEIGHTS), WEIGHTS)
    np.testing.assert_array_equal(got["kernel"], updates["kernel"])


def test_a_small_decay_is_not_lost_to_rounding():
    """1e-9 of the weight: less than float32 can tell next to 1."""
    for make in FORMS.values():
        tx = make(0.5, weight_decay=1e-9, a=1.0, learning_rate=1.0)
        updates, _ = tx.update(ZERO, tx.init(WEIGHTS), WEIGHTS)
        np.testing.assert_allclose(updates["kernel"], [[-1e-9, 2e-9, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize("a", [1e3, 1e10, 1e30, 3e38])
@pytest.mark.parametrize("form", FORMS)
def test_no_multiplier_is_too_large(form, a):
    """The selected weights go to zero and stay there; nothing overshoots."""
    tx = FORMS[form](0.5, weight_decay=10.0, a=a, learning_rate=10.0)
    state, weights = tx.init(WEIGHTS), WEIGHTS
    for _ in range(20):
        updates, state = tx.update(ZERO, state, weights)
        moved = optax.apply_updates(weights, updates)
        assert (jnp.abs(moved["kernel"]) <= jnp.abs(weights["kernel"])).all()
        weights = moved
    np.testing.assert_allclose(weights["kernel"], [[0, 0, 3, -4]], atol=1e-30)


def test_decoupled_is_swd_between_scaling_and_learning_rate():
    """As in AdamW, as long as lr a mu <= 1."""
    options = {"weight_decay": 0.1, "a": 10.0}
    middle = optax.chain(
        optax.scale_by_adam(),
        swd_jax.swd(0.5, **options),
        optax.scale_by_learning_rate(0.25),
    )
    last = optax.chain(
        optax.adam(0.25), swd_jax.decoupled_swd(0.5, **options, learning_rate=0.25)
    )
    results = []
    for tx in (middle, last):
        state, weights = tx.init(WEIGHTS), WEIGHTS
        for step in range(5):
            gradient = {"kernel": jnp.cos(weights["kernel"] + step)}
            updates, state = tx.update(gradient, state, weights)
            weights = optax.apply_updates(weights, updates)
        results.append(weights["kernel"])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5)


def test_before_adam_the_decay_is_normalised_and_after_it_not():
    """A selected weight without gradient: before Adam it moves by the learning rate."""
    decay = {"weight_decay": 0.1, "a": 10.0}
    before = optax.chain(swd_jax.swd(0.5, **decay), optax.adam(0.01))
    # Adam's first step is lr * g / |g|, whatever g = a mu w is.
    np.testing.assert_allclose(after_one(before, ZERO)[0, :2], [0.99, -1.99], rtol=1e-5)
    after = optax.chain(
        optax.adam(0.01), swd_jax.decoupled_swd(0.5, **decay, learning_rate=0.01)
    )
    # lr a mu = 0.01 of the weight.
    np.testing.assert_allclose(after_one(after, ZERO)[0, :2], [0.99, -1.98], rtol=1e-5)
    last = optax.chain(
        optax.adam(0.01), swd_jax.proximal_swd(0.5, **decay, learning_rate=0.01)
    )
    np.testing.assert_allclose(
        after_one(last, ZERO)[0, :2], [1 / 1.01, -2 / 1.01], rtol=1e-5
    )


@pytest.mark.parametrize("form", FORMS)
def test_the_learning_rate_follows_its_schedule_step_by_step(form):
    rates = optax.piecewise_constant_schedule(0.5, {1: 0.5})
    tx = FORMS[form](0.5, weight_decay=1.0, a=1.0, learning_rate=rates)
    state, weights, seen = tx.init(WEIGHTS), WEIGHTS, []
    for _ in range(2):
        updates, state = tx.update(ZERO, state, weights)
        weights = optax.apply_updates(weights, updates)
        seen.append(float(weights["kernel"][0, 0]))
    # lr 0.5, then 0.25.
    wanted = {"decoupled": [0.5, 0.375], "proximal": [1 / 1.5, 1 / 1.5 / 1.25]}
    assert seen == pytest.approx(wanted[form])
    # The state logs a mu, without the learning rate.
    assert float(state.coefficient) == 1.0
