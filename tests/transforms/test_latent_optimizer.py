"""An optimizer that has latent weights as its parameters, inside of the pruning."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax
from swd_jax.methods import LatentOptimizerState, latent_pruning, straight_through
from tests.helpers import quickly

RNG = np.random.default_rng(1)
PARAMS = {
    "kernel": jnp.asarray(RNG.normal(size=(12, 16)), jnp.float32),
    "bias": jnp.zeros(16),
}
WANTED = jnp.asarray(RNG.normal(size=(12, 16)), jnp.float32)
STEPS = 40


def gradient(params):
    """Of a loss in which the weights of a column depend on each other."""

    def loss(params):
        error = params["kernel"] - WANTED + params["bias"][None]
        return jnp.sum(error**2) + jnp.sum(jnp.sum(error, axis=0) ** 2) / 50

    return jax.grad(loss)(params)


def trained(tx, params=PARAMS, gradient=gradient, steps=STEPS, **extra_args):
    def step(carry, _):
        params, state = carry
        updates, state = tx.update(gradient(params), state, params, **extra_args)
        return (optax.apply_updates(params, updates), state), params

    run = quickly.jit(lambda carry: jax.lax.scan(step, carry, None, steps))
    (params, state), _ = run((params, tx.init(params)))
    return jax.tree.map(np.asarray, (params, state))


OPTIMIZERS = {
    "decayed": lambda: optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.02)),
    "adamw": lambda: optax.adamw(0.02, weight_decay=0.1),
    "lamb": lambda: optax.lamb(0.02),
    "muon": lambda: optax.contrib.muon(0.02),
}


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizer_trains_the_weights_of_straight_through_training(name, scale):
    """Which has latent weights as its parameters, so that no optimizer can tell."""
    target = swd_jax.Target(0.75)
    prune = functools.partial(
        straight_through, target=target, soft=False, pruned_gradient_scale=scale
    )

    def through(params):
        _, pull_back = jax.vjp(prune, params)
        return pull_back(gradient(prune(params)))[0]

    latents, _ = trained(OPTIMIZERS[name](), gradient=through)
    tx = latent_pruning(
        target,
        forgetting=0.0,
        power=math.inf,
        optimizer=OPTIMIZERS[name](),
        pruned_gradient_scale=scale,
    )
    # Pruned already, as the network of straight-through training is at its first step.
    params = prune(PARAMS)
    memory = {"kernel": PARAMS["kernel"] - params["kernel"], "bias": optax.MaskedNode()}
    inner, pruning = tx.init(params)
    start = LatentOptimizerState(inner, pruning._replace(memory=memory))
    tx = optax.GradientTransformationExtraArgs(lambda _: start, tx.update)
    params, state = trained(tx, params)
    found = params["kernel"] + state.pruning.memory["kernel"]
    np.testing.assert_allclose(found, latents["kernel"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(params["bias"], latents["bias"], rtol=1e-3, atol=1e-4)
    assert np.count_nonzero(params["kernel"]) == 48
    # Some weight has moved across the threshold: the test is about those.
    before = np.abs(PARAMS["kernel"]).argsort(axis=None)[:144]
    after = np.flatnonzero(params["kernel"] == 0)
    assert set(before) != set(after)


class Seen:
    """An optimizer that keeps what it has been called with."""

    def __init__(self):
        self.seen = []

    def transformation(self):
        def update(updates, state, params=None, **extra_args):
            self.seen.append((updates, params, extra_args))
            return jax.tree.map(lambda u: -u, updates), state

        return optax.GradientTransformationExtraArgs(
            lambda params: optax.EmptyState(), update
        )


def with_memory(tx, params, memory):
    inner, pruning = tx.init(params)
    memory = {"kernel": jnp.asarray(memory, pruning.memory["kernel"].dtype)}
    return LatentOptimizerState(inner, pruning._replace(memory=memory))


def test_what_the_optimizer_sees_by_hand():
    """Pruned are 0 with a memory of 2 and of -1; a new zero without a memory is not."""
    optimizer = Seen()
    tx = swd_jax.sparsify(
        swd_jax.Target(0.4, prunable=""), 10, optimizer=optimizer.transformation()
    )
    params = {"kernel": jnp.array([[0.0, 4.0, 0.0, 0.0, -3.0]])}
    state = with_memory(tx, params, [[2, 1, 0, -1, 0.5]])
    gradient = {"kernel": jnp.array([[8.0, 8, 8, 8, 8]])}
    tx.update(gradient, state, params, value=jnp.asarray(7.0))
    ((updates, latents, extra_args),) = optimizer.seen
    np.testing.assert_array_equal(updates["kernel"], [[4, 8, 8, 4, 8]])
    np.testing.assert_array_equal(latents["kernel"], [[2, 5, 0, -1, -2.5]])
    assert list(extra_args) == ["value"]


def test_a_leaf_that_is_not_pruned_is_passed_on_as_it_is():
    optimizer = Seen()
    tx = swd_jax.sparsify(0.5, 10, optimizer=optimizer.transformation())
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.array([0.0, 3.0])}
    gradient = jax.tree.map(jnp.ones_like, params)
    updates, _ = tx.update(gradient, tx.init(params), params)
    ((seen, latents, _),) = optimizer.seen
    np.testing.assert_array_equal(seen["bias"], [1, 1])
    np.testing.assert_array_equal(latents["bias"], [0, 3])
    np.testing.assert_array_equal(updates["bias"], [-1, -1])


def test_of_each_weight_alone_it_is_the_chain_to_the_last_bit():
    around = latent_pruning(0.75, forgetting=0.05, optimizer=optax.adam(0.02))
    chain = optax.chain(optax.adam(0.02), latent_pruning(0.75, forgetting=0.05))
    found, wanted = trained(around), trained(chain)
    found, wanted = jax.tree.leaves(found), jax.tree.leaves(wanted)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_narrow_weights_keep_their_type_in_every_state():
    params = jax.tree.map(lambda w: w.astype(jnp.bfloat16), PARAMS)
    tx = swd_jax.sparsify(0.75, STEPS, optimizer=optax.adamw(0.02, weight_decay=0.1))
    before = tx.init(params)
    after, state = trained(tx, params)
    assert after["kernel"].dtype == jnp.bfloat16
    assert np.count_nonzero(after["kernel"]) == 48
    types = [jax.tree.map(lambda a: a.dtype, tree) for tree in (before, state)]
    assert types[0] == types[1]


def test_a_criterion_reads_the_gradient_that_the_optimizer_gets():
    target = swd_jax.Target(0.5, criterion=swd_jax.criteria.saliency)
    params = {"kernel": jnp.array([[1.0, 1.0, 1.0, 1.0]])}
    gradient = {"kernel": jnp.array([[0.1, 4.0, 0.2, 3.0]])}
    tx = swd_jax.sparsify(target, 1, optimizer=optax.sgd(1e-3))
    updates, _ = tx.update(gradient, tx.init(params), params)
    kernel = optax.apply_updates(params, updates)["kernel"]
    np.testing.assert_array_equal(kernel == 0, [[True, False, True, False]])


def test_a_diagnosis_finds_it_in_its_place():
    tx = swd_jax.sparsify(0.75, STEPS, optimizer=optax.adam(0.02))
    params, state = trained(tx)
    assert swd_jax.diagnose(params, 0.75, state) == ()
    (warning,) = swd_jax.diagnose(params, 0.75, tx.init(PARAMS), total_steps=5)
    assert "reaches its target at step 20, but the run ends at step 5" in warning


def test_a_diagnosis_tells_that_muon_should_be_inside():
    def warnings(tx):
        return swd_jax.diagnose(PARAMS, 0.75, tx.init(PARAMS))

    muon, pruning = optax.contrib.muon(0.02), swd_jax.sparsify(0.75, STEPS)
    (warning,) = warnings(optax.chain(muon, pruning))
    assert "after an optimizer that combines the gradients of a matrix" in warning
    assert "sparsify(..., optimizer=...)" in warning
    inside = swd_jax.sparsify(0.75, STEPS, optimizer=muon)
    assert warnings(inside) == ()
    assert warnings(optax.chain(optax.clip(1.0), inside)) == ()
    (warning,) = warnings(optax.chain(inside, optax.scale_by_adam()))
    assert "stands before an optimizer" in warning


ERRORS = [
    ({"optimizer": 0.1}, r"optimizer must be a transformation.*got 0\.1"),
    ({"optimizer": optax.adam}, "optimizer must be a transformation.*function adam"),
    ({"pruned_gradient_scale": 0.5}, r"is 0\.5, but without optimizer there are no"),
    (
        {"pruned_gradient_scale": -1, "optimizer": optax.sgd(0.1)},
        "pruned_gradient_scale must be at least 0, got -1",
    ),
]


@pytest.mark.parametrize(("options", "message"), ERRORS)
def test_an_argument_that_makes_no_sense_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        latent_pruning(0.5, forgetting=0.0, **options)


@pytest.mark.parametrize("name", ["sparsify", "latent_pruning"])
def test_missing_parameters_are_an_error_that_says_who_needs_them(name):
    tx = {
        "sparsify": lambda: swd_jax.sparsify(0.5, 10, optimizer=optax.sgd(0.1)),
        "latent_pruning": lambda: latent_pruning(
            0.5, forgetting=0.0, optimizer=optax.sgd(0.1)
        ),
    }[name]()
    with pytest.raises(ValueError, match=f"params is None, but {name} needs"):
        tx.update(PARAMS, tx.init(PARAMS))
