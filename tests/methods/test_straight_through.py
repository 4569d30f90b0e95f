"""Straight-through pruning against NumPy and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    return {
        "first": {"kernel": jnp.asarray(rng.normal(size=(20, 10)), jnp.float32)},
        "second": {"kernel": jnp.asarray(rng.normal(size=(10, 5)), jnp.float32)},
        "bias": jnp.ones(5),
    }


def flat(params):
    parts = [params["first"]["kernel"], params["second"]["kernel"]]
    return np.concatenate([np.asarray(part).ravel() for part in parts])


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_it_is_numpys_soft_threshold(params, sparsity):
    weights = flat(params)
    k = int(sparsity * 250)
    threshold = np.sort(np.abs(weights))[k] if k else 0.0
    expected = np.sign(weights) * np.maximum(np.abs(weights) - threshold, 0)
    if not k:  # the smallest weight is the threshold then
        expected = np.sign(weights) * (np.abs(weights) - np.abs(weights).min())
    got = jax.jit(lambda p: swd_jax.methods.straight_through(p, sparsity))(params)
    np.testing.assert_allclose(flat(got), expected, atol=1e-6)
    np.testing.assert_array_equal(got["bias"], 1)


def test_hard_pruning_keeps_the_other_weights_to_the_bit(params):
    got = flat(swd_jax.methods.straight_through(params, 0.8, soft=False))
    weights = flat(params)
    threshold = np.sort(np.abs(weights))[200]
    np.testing.assert_array_equal(
        got, np.where(np.abs(weights) < threshold, 0, weights)
    )


def test_every_weight_has_the_gradient_of_its_pruned_self(params):
    scale = jax.tree.map(lambda w: jnp.cos(jnp.arange(w.size).reshape(w.shape)), params)

    def loss(params):
        pruned = swd_jax.methods.straight_through(params, 0.9)
        products = jax.tree.map(lambda w, s: jnp.sum(jnp.sin(w) * s), pruned, scale)
        return sum(jax.tree.leaves(products))

    got = jax.jit(jax.grad(loss))(params)
    pruned = swd_jax.methods.straight_through(params, 0.9)
    expected = jax.tree.map(lambda w, s: jnp.cos(w) * s, pruned, scale)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_pruned_weight_may_come_back():
    tx = optax.sgd(1.0)
    params = {"kernel": jnp.array([[0.25, 1.0]])}
    state = tx.init(params)

    def loss(params):
        kernel = swd_jax.methods.straight_through(params, 0.5, soft=False)["kernel"]
        return jnp.sum((kernel - jnp.array([[2.0, 0.0]])) ** 2) / 4

    kernels = []
    for _ in range(3):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        kernels.append(
            swd_jax.methods.straight_through(params, 0.5, soft=False)["kernel"]
        )
    # It grows by 1 a step while it counts as 0: 1.25 is more than the other's 0.5.
    np.testing.assert_array_equal(kernels[0], [[1.25, 0]])


def test_the_step_may_be_traced_and_the_schedule_is_followed(params):
    target = swd_jax.Target(swd_jax.cubic_sparsity(0.8, begin=0, end=10))
    at = jax.jit(
        lambda step: swd_jax.methods.straight_through(params, target, step=step)
    )
    zeros = [int((flat(at(step)) == 0).sum()) for step in (0, 5, 10)]
    # One weight is at the threshold itself, and 0 after shrinking.
    assert zeros == [1, 250 * 7 // 10 + 1, 201]
    settled = swd_jax.methods.straight_through(params, target)
    np.testing.assert_allclose(flat(settled), flat(at(10)), atol=1e-6)


def test_a_normalised_criterion_shrinks_in_its_own_units():
    params = {"a": jnp.array([[3.0, 4.0]]), "b": jnp.array([[0.5, 1.2]])}
    target = swd_jax.Target(0.25, criterion="normalized_magnitude", prunable="")
    # Scores 0.6, 0.8 and 5/13, 12/13: the first of "b" goes, the threshold is 0.6.
    got = swd_jax.methods.straight_through(params, target)
    np.testing.assert_allclose(got["a"], [[0, 4 * (1 - 0.75)]], atol=1e-5)
    np.testing.assert_allclose(got["b"], [[0, 1.2 * (1 - 0.6 * 13 / 12)]], rtol=1e-5)


def test_weights_that_are_not_finite_are_not_hidden():
    params = {"kernel": jnp.array([[jnp.nan, jnp.inf, 1.0, 2.0, 3.0]])}
    got = swd_jax.methods.straight_through(params, 0.4, soft=False)["kernel"]
    np.testing.assert_array_equal(got, [[jnp.nan, jnp.inf, 0, 0, 3]])


def test_half_precision_stays_half(params):
    half = jax.tree.map(lambda w: w.astype(jnp.bfloat16), params)
    got = swd_jax.methods.straight_through(half, 0.5)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(got))


def test_a_tree_without_arrays_is_as_it_was():
    assert swd_jax.methods.straight_through({}, 0.5) == {}
