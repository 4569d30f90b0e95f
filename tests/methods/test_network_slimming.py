"""Network slimming, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax

PARAMS = {
    "conv": {"kernel": jnp.ones((2, 2))},
    "norm": {"scale": jnp.array([-3.0, -1.0, -0.5, 0.0, 0.25, 2.0])},
}
ZERO = jax.tree.map(jnp.zeros_like, PARAMS)


def smooth_l1(x):
    return jnp.where(jnp.abs(x) <= 1, x**2 / 2, jnp.abs(x) - 0.5)


def test_the_penalty_is_the_gradient_of_the_smooth_norm():
    tx = swd_jax.methods.network_slimming(0.1)
    updates, _ = tx.update(ZERO, tx.init(PARAMS), PARAMS)
    gradient = jax.grad(lambda x: 0.1 * smooth_l1(x).sum())(PARAMS["norm"]["scale"])
    np.testing.assert_allclose(updates["norm"]["scale"], gradient, rtol=1e-6)
    np.testing.assert_allclose(
        updates["norm"]["scale"], [-0.1, -0.1, -0.05, 0, 0.025, 0.1], rtol=1e-6
    )


def test_scales_go_to_zero_from_either_side_and_weights_do_not():
    tx = optax.chain(swd_jax.methods.network_slimming(1.0), optax.sgd(0.5))
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(60):
        updates, state = tx.update(ZERO, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["norm"]["scale"], 0, atol=1e-6)
    np.testing.assert_array_equal(params["conv"]["kernel"], 1)


def test_its_strength_may_be_a_schedule():
    tx = swd_jax.methods.network_slimming(optax.linear_schedule(0.0, 1.0, 10))
    state = tx.init(PARAMS)
    for step in range(3):
        updates, state = tx.update(ZERO, state, PARAMS)
        np.testing.assert_allclose(updates["norm"]["scale"][-1], step / 10, rtol=1e-6)


def test_updates_keep_their_type():
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), ZERO)
    tx = swd_jax.methods.network_slimming(0.5)
    updates, _ = tx.update(half, tx.init(PARAMS), PARAMS)
    assert updates["norm"]["scale"].dtype == jnp.bfloat16
    assert updates["norm"]["scale"][0] == -0.5


def test_channels_with_small_scales_are_what_a_target_over_scales_prunes():
    target = swd_jax.Target(0.5, prunable=swd_jax.methods.is_scale)
    pruned = swd_jax.prune(PARAMS, target)
    np.testing.assert_array_equal(pruned["norm"]["scale"], [-3, -1, 0, 0, 0, 2])
    np.testing.assert_array_equal(pruned["conv"]["kernel"], 1)


@pytest.mark.parametrize("path", ["bn/scale", "scale", "x/gamma", "scales"])
def test_scales_are_known_by_their_name(path):
    assert swd_jax.methods.is_scale(path, jnp.ones(3))
    assert not swd_jax.methods.is_scale(path + "/kernel", jnp.ones(3))


def test_a_negative_strength_is_an_error():
    with pytest.raises(ValueError, match="strength must be at least 0, got -1"):
        swd_jax.methods.network_slimming(-1.0)


def test_no_scales_are_an_error_that_lists_the_paths():
    tx = swd_jax.methods.network_slimming(0.1)
    with pytest.raises(ValueError, match="matches none of the parameters.*\n  kernel"):
        tx.init({"kernel": jnp.ones((2, 2))})
