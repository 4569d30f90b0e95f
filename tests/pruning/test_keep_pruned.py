"""Fine-tuning with zeros that stay zeros, whatever the optimizer does to them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax

STEPS = 50
TARGET = swd_jax.Target(0.75)


def dense_params():
    rng = np.random.default_rng(0)
    return {
        "bias": rng.standard_normal(4).astype(np.float32),
        "conv": {"kernel": rng.standard_normal((3, 3, 2)).astype(np.float32)},
        "kernel": rng.standard_normal((4, 4)).astype(np.float32),
    }


PARAMS = swd_jax.prune(dense_params(), TARGET)
MASK = swd_jax.prune_mask(dense_params(), TARGET)
# 18 + 16 = 34 weights are prunable, floor(0.75 * 34) = 25 of them are gone.
ZEROS = 25


# One gradient a step, nowhere zero. They do not depend on the weights.
GRADIENTS = jax.tree.map(
    lambda w: np.random.default_rng(1).uniform(1, 2, (STEPS, *w.shape)).astype("f4"),
    PARAMS,
)


def trained(tx, params, state=None):
    """The parameters after each of 50 steps, stacked."""

    @jax.jit
    def train(params, state):
        def step(carry, gradient):
            params, state = carry
            updates, state = tx.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        return jax.lax.scan(step, (params, state), GRADIENTS)[1]

    return jax.device_get(train(params, tx.init(params) if state is None else state))


OPTIMIZERS = {
    "adam": optax.adam(1e-2),
    "adamw": optax.adamw(1e-2, weight_decay=0.1),
    "sgd with Nesterov's momentum": optax.sgd(1e-2, momentum=0.9, nesterov=True),
    "lion": optax.lion(1e-2, weight_decay=0.1),
    "decay of all weights, sgd": optax.chain(
        optax.add_decayed_weights(0.1), optax.sgd(1e-2, momentum=0.9)
    ),
    "clipping, rmsprop": optax.chain(
        optax.clip_by_global_norm(1.0), optax.rmsprop(1e-2, momentum=0.9)
    ),
}


def assert_zeros_stay(history):
    kept_zero = 0
    for weights, mask in zip(
        jax.tree.leaves(history), jax.tree.leaves(MASK), strict=True
    ):
        # In NumPy, which takes no subnormal number for a zero.
        assert np.all(weights[:, ~np.asarray(mask)] == 0)
        kept_zero += np.sum(~np.asarray(mask))
    assert kept_zero == ZEROS


class TestZeros:
    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_stay_while_the_others_train_as_if_alone(self, name):
        optimizer = OPTIMIZERS[name]
        history = trained(optax.chain(optimizer, swd_jax.keep_pruned(MASK)), PARAMS)
        assert_zeros_stay(history)
        free = trained(optimizer, PARAMS)
        for held, loose, mask in zip(
            *map(jax.tree.leaves, (history, free, MASK)), strict=True
        ):
            mask = np.asarray(mask)
            np.testing.assert_allclose(
                held[:, mask], loose[:, mask], rtol=1e-5, atol=1e-6
            )
            # Without it the zeros would have moved at once.
            assert np.all(loose[0, ~mask] != 0)

    def test_stay_under_moments_gathered_before_pruning(self):
        adam = optax.adam(1e-2)
        params = dense_params()
        state = adam.init(params)
        update = jax.jit(adam.update)
        for step in range(10):
            gradient = jax.tree.map(lambda g, t=step: g[t], GRADIENTS)
            updates, state = update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        keep = swd_jax.keep_pruned(MASK)
        warm = (state, keep.init(params))
        pruned = jax.tree.map(lambda w, m: jnp.where(m, w, 0), params, MASK)
        assert_zeros_stay(trained(optax.chain(adam, keep), pruned, warm))

    def test_are_made_in_one_step_where_there_were_none(self):
        history = trained(
            optax.chain(optax.adam(1e-2), swd_jax.keep_pruned(MASK)), dense_params()
        )
        assert_zeros_stay(history)

    def test_stay_under_masked(self):
        # Only the kernels are trained; elsewhere the update is the gradient itself.
        trainable = {"bias": False, "conv": True, "kernel": True}
        inner = optax.chain(optax.adam(1e-2), swd_jax.keep_pruned(MASK))
        history = trained(optax.masked(inner, trainable), PARAMS)
        assert_zeros_stay(history)
        assert np.all(np.diff(history["bias"], axis=0) > 0.9)

    def test_stay_under_partition(self):
        labels = {"bias": "fast", "conv": {"kernel": "slow"}, "kernel": "frozen"}
        tx = optax.partition(
            {
                "fast": optax.chain(optax.adam(1e-2), swd_jax.keep_pruned(MASK)),
                "slow": optax.chain(
                    optax.sgd(1e-3, momentum=0.9), swd_jax.keep_pruned(MASK)
                ),
                "frozen": optax.set_to_zero(),
            },
            labels,
        )
        history = trained(tx, PARAMS)
        assert_zeros_stay(history)
        for step in (0, STEPS - 1):
            np.testing.assert_array_equal(history["kernel"][step], PARAMS["kernel"])
        moved = history["conv"]["kernel"][-1] != np.asarray(PARAMS["conv"]["kernel"])
        np.testing.assert_array_equal(moved, MASK["conv"]["kernel"])


class TestUpdate:
    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
    def test_has_the_dtype_of_the_updates(self, dtype):
        params = {"w": jnp.array([[1.0, 2.0]], dtype)}
        tx = swd_jax.keep_pruned({"w": jnp.array([[False, True]])})
        updates, _ = tx.update({"w": jnp.ones((1, 2), dtype)}, tx.init(params), params)
        assert updates["w"].dtype == dtype
        np.testing.assert_array_equal(updates["w"].astype(np.float32), [[-1, 1]])

    def test_of_pruned_weights_that_are_nan_is_not_hidden_in_the_others(self):
        params = {"w": jnp.array([[0.0, 2.0]])}
        tx = swd_jax.keep_pruned({"w": jnp.array([[False, True]])})
        updates, _ = tx.update(
            {"w": jnp.full((1, 2), jnp.nan)}, tx.init(params), params
        )
        np.testing.assert_array_equal(updates["w"], [[0, np.nan]])

    def test_takes_unknown_extra_arguments(self):
        tx = swd_jax.keep_pruned(MASK)
        updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=1.0, loss=None)
        assert jax.tree.structure(updates) == jax.tree.structure(PARAMS)

    def test_keeps_its_mask_in_the_state_and_not_in_the_program(self):
        """A constant would be uploaded with every program, and cannot be sharded."""
        params = {"w": jnp.ones((64, 64))}
        tx = swd_jax.keep_pruned({"w": jnp.eye(64, dtype=bool)})
        state = tx.init(params)
        np.testing.assert_array_equal(state.mask["w"], np.eye(64))
        jaxpr = jax.make_jaxpr(tx.update)(params, state, params)
        assert sum(np.size(const) for const in jaxpr.consts) < 64

    def test_its_state_may_be_donated_and_the_mask_used_again(self):
        params = {"w": jnp.ones((2, 2))}
        mask = {"w": jnp.eye(2, dtype=bool)}
        tx = swd_jax.keep_pruned(mask)
        update = jax.jit(tx.update, donate_argnums=1)
        for _ in range(2):
            updates, _ = update(params, tx.init(params), params)
            np.testing.assert_array_equal(updates["w"], [[1, -1], [-1, 1]])

    def test_optax_maps_its_state_like_parameters(self):
        tx = swd_jax.keep_pruned(MASK)
        inverted = optax.tree.map_params(tx, jnp.logical_not, tx.init(PARAMS))
        for mask, expected in zip(
            jax.tree.leaves(inverted.mask), jax.tree.leaves(MASK), strict=True
        ):
            np.testing.assert_array_equal(mask, ~np.asarray(expected))

    def test_takes_masks_of_numpy_and_masks_made_by_comparison(self):
        for mask in (
            jax.tree.map(np.asarray, MASK),
            jax.tree.map(lambda w: w != 0, PARAMS),
        ):
            tx = swd_jax.keep_pruned(mask)
            updates, _ = tx.update(dense_params(), tx.init(PARAMS), PARAMS)
            np.testing.assert_array_equal(
                updates["kernel"],
                np.where(MASK["kernel"], dense_params()["kernel"], 0),
            )


class TestErrors:
    @pytest.mark.parametrize(
        "leaf", [np.ones((4, 4)), jnp.ones((4, 4), jnp.int32), 1, 0.0, "kept"]
    )
    def test_a_mask_of_anything_but_bools_names_the_path(self, leaf):
        mask = MASK | {"conv": {"kernel": leaf}}
        with pytest.raises(
            ValueError, match=r"(?s)^mask must be a tree of bools.*'conv/kernel'"
        ):
            swd_jax.keep_pruned(mask)

    @pytest.mark.parametrize(
        ("mask", "words"),
        [
            (
                MASK | {"kernel": np.ones((4, 3), bool)},
                r"shapes of the parameters, but has \(4, 3\) at 'kernel', .* \(4, 4\)",
            ),
            (
                MASK | {"kernel": np.ones((), bool)},
                r"but has \(\) at 'kernel', where they have \(4, 4\)",
            ),
            (
                {"bias": MASK["bias"], "kernel": MASK["kernel"]},
                "no array at 'conv/kernel'.*\n  bias\n  conv/kernel\n  kernel",
            ),
            (
                MASK | {"more": {"kernel": np.ones((2, 2), bool)}},
                "an array at 'more/kernel', where they have none",
            ),
            (MASK | {"kernel": True}, "no array at 'kernel'"),
        ],
        ids=["shape", "no dimensions", "too few", "too many", "one bool for a leaf"],
    )
    def test_a_mask_that_does_not_fit_names_the_path(self, mask, words):
        tx = swd_jax.keep_pruned(mask)
        with pytest.raises(ValueError, match=f"(?s)^mask must have .*{words}"):
            tx.init(PARAMS)

    def test_a_state_that_does_not_fit_names_the_path(self):
        tx = swd_jax.keep_pruned({"kernel": MASK["kernel"]})
        state = tx.init({"kernel": PARAMS["kernel"]})
        with pytest.raises(ValueError, match="^the state's mask must .* at 'bias'"):
            tx.update(PARAMS, state, PARAMS)

    def test_missing_params_are_named(self):
        tx = swd_jax.keep_pruned(MASK)
        with pytest.raises(ValueError, match=r"params is None.*update\(updates, state"):
            tx.update(PARAMS, tx.init(PARAMS))

    def test_updates_of_another_structure_are_named(self):
        tx = swd_jax.keep_pruned(MASK)
        with pytest.raises(ValueError, match="^updates must have .* at 'bias'"):
            tx.update({"kernel": PARAMS["kernel"]}, tx.init(PARAMS), PARAMS)
