"""Criteria of the gradients: saliency, its running mean, movement, Fisher."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

import swd_jax
from tests.helpers.scoring import (
    GRADIENT,
    KERNEL,
    after_optimizer,
    pruned_ints,
)

LEAST_SALIENT = {"kernel": [[0, 0], [1, 1]]}


class TestSaliency:
    TARGET = swd_jax.Target(0.5, criterion=swd_jax.criteria.saliency)

    def test_the_smallest_products_of_weight_and_gradient_are_pruned(self):
        extra_args = {"gradient": GRADIENT}
        assert pruned_ints(KERNEL, self.TARGET, extra_args=extra_args) == LEAST_SALIENT
        pruned = swd_jax.prune(KERNEL, self.TARGET, extra_args=extra_args)
        np.testing.assert_array_equal(pruned["kernel"], [[1, -2], [0, 0]])
        assert swd_jax.summarize(KERNEL, self.TARGET, extra_args=extra_args).pruned == 2

    def test_it_is_the_change_of_a_linear_loss(self):
        """Taylor's series of a linear loss ends with the first order."""
        slopes = np.random.default_rng(7).normal(size=(4, 6)).astype(np.float32)
        weights = np.random.default_rng(8).normal(size=(4, 6)).astype(np.float32)

        def loss(weights):
            return (slopes * weights).sum()

        gradient = jax.grad(loss)(weights)
        changes = np.empty(weights.shape)
        for position in np.ndindex(weights.shape):
            zeroed = weights.copy()
            zeroed[position] = 0
            changes[position] = abs(float(loss(weights) - loss(zeroed)))
        mask = swd_jax.prune_mask(
            {"kernel": weights},
            self.TARGET,
            extra_args={"gradient": {"kernel": gradient}},
        )
        order = np.argsort(changes, axis=None)
        assert set(np.flatnonzero(~mask["kernel"])) == set(order[:12])

    def test_before_the_optimizer_the_updates_are_the_gradient(self):
        tx = swd_jax.swd(self.TARGET, weight_decay=1.0, a=1.0)
        updates, state = jax.jit(tx.update)(GRADIENT, tx.init(KERNEL), KERNEL)
        np.testing.assert_allclose(updates["kernel"], [[4, 1], [3.5, 3.9]])
        assert state.selection.threshold == 2.0

    @pytest.mark.parametrize("form", ["decoupled", "proximal", "pruning"])
    def test_after_the_optimizer_the_gradient_is_an_extra_argument(self, form):
        tx = after_optimizer(form, self.TARGET)
        state, zeros = tx.init(KERNEL), jax.tree.map(np.zeros_like, KERNEL)
        updates, _ = tx.update(zeros, state, KERNEL, gradient=GRADIENT)
        changed = jax.tree.map(
            lambda u: (np.asarray(u) != 0).astype(int).tolist(), updates
        )
        assert changed == LEAST_SALIENT
        with pytest.raises(ValueError, match=r"saliency needs gradient.*update\("):
            tx.update(zeros, state, KERNEL)


def run(tx, gradients, params=KERNEL):
    """Update several times at the same weights; return the last updates and state."""
    state = tx.init(params)
    for gradient in gradients:
        updates, state = jax.jit(tx.update)({"kernel": gradient}, state, params)
    return updates, state


GRADIENTS = [
    np.array([[1.0, 1], [1, -1]], np.float32),
    np.array([[1.0, -1], [-2, 1]], np.float32),
]


class TestAccumulated:
    def test_movement_is_the_sum_of_minus_weight_times_gradient(self):
        # w g: 1 -2 3 -4, then 1 2 -6 4. The sums of -w g: -2 0 3 0.
        target = swd_jax.Target(0.25, criterion=swd_jax.criteria.movement)
        tx = swd_jax.swd(target, weight_decay=1.0, a=1.0)
        updates, state = run(tx, GRADIENTS)
        np.testing.assert_array_equal(
            state.selection.accumulated["kernel"], [[-2, 0], [3, 0]]
        )
        # Only the first weight moves towards zero, and only it decays.
        np.testing.assert_array_equal(
            updates["kernel"] - GRADIENTS[1], [[1, 0], [0, 0]]
        )
        extra_args = {"accumulated": optax.tree_utils.tree_get(state, "accumulated")}
        assert pruned_ints(KERNEL, target, extra_args=extra_args) == {
            "kernel": [[1, 0], [0, 0]]
        }

    def test_weights_that_move_away_from_zero_stay_whatever_their_size(self):
        """One SGD step moves the large weight towards zero and the small one away."""
        params = {"kernel": np.array([[5.0, 0.1]], np.float32)}
        gradient = {"kernel": np.array([[1.0, -1.0]], np.float32)}
        moved = params["kernel"] - 0.05 * gradient["kernel"]
        assert moved[0, 0] < 5
        assert moved[0, 1] > 0.1
        target = swd_jax.Target(0.5, criterion="movement")
        tx = swd_jax.swd(target, weight_decay=1.0, a=1.0)
        _, state = tx.update(gradient, tx.init(params), params)
        extra_args = {"accumulated": state.selection.accumulated}
        assert pruned_ints(params, target, extra_args=extra_args) == {
            "kernel": [[1, 0]]
        }

    def test_mean_saliency_is_the_running_mean(self):
        # |w g|: 1 2 3 4, then 1 2 6 4. Halves: .5 1 1.5 2, then .75 1.5 3.75 3.
        target = swd_jax.Target(0.75, criterion=swd_jax.criteria.mean_saliency(0.5))
        tx = swd_jax.swd(target, weight_decay=1.0, a=1.0)
        updates, state = run(tx, GRADIENTS)
        np.testing.assert_array_equal(
            state.selection.accumulated["kernel"], [[0.75, 1.5], [3.75, 3.0]]
        )
        np.testing.assert_array_equal(
            updates["kernel"] - GRADIENTS[1], [[1, -2], [0, 4]]
        )

    def test_the_memory_is_a_float32_for_each_prunable_weight(self):
        params = {
            "dense": {"kernel": jnp.ones((6, 4), jnp.bfloat16), "bias": jnp.ones(4)}
        }
        tx = swd_jax.swd(
            swd_jax.Target(0.5, criterion="movement"), weight_decay=1.0, a=1.0
        )
        [accumulated] = jax.tree.leaves(tx.init(params).selection.accumulated)
        assert accumulated.shape == (6, 4)
        assert accumulated.dtype == jnp.float32
        # A criterion without an accumulator needs no memory.
        plain = swd_jax.swd(0.5, weight_decay=1.0, a=1.0).init(params)
        assert jax.tree.leaves(plain.selection.accumulated) == []

    @pytest.mark.parametrize("form", ["decoupled", "proximal", "pruning"])
    def test_after_the_optimizer_the_gradient_is_an_extra_argument(self, form):
        target = swd_jax.Target(0.25, criterion=swd_jax.criteria.movement)
        tx = after_optimizer(form, target)
        state, zeros = tx.init(KERNEL), jax.tree.map(np.zeros_like, KERNEL)
        for gradient in GRADIENTS:
            updates, state = tx.update(
                zeros, state, KERNEL, gradient={"kernel": gradient}
            )
        np.testing.assert_array_equal(
            state.selection.accumulated["kernel"], [[-2, 0], [3, 0]]
        )
        np.testing.assert_array_equal(updates["kernel"] != 0, [[1, 0], [0, 0]])
        with pytest.raises(ValueError, match=r"movement accumulates gradients: give"):
            tx.update(zeros, state, KERNEL)

    def test_weights_that_are_not_finite_are_kept(self):
        params = {"kernel": np.array([[np.nan, 1, 2, 3]], np.float32)}
        zeros = {"kernel": np.zeros((1, 4), np.float32)}
        target = swd_jax.Target(0.25, criterion="movement")
        assert pruned_ints(params, target, extra_args={"accumulated": zeros}) == {
            "kernel": [[0, 1, 0, 0]]
        }

    @pytest.mark.parametrize("decay", [1, -0.1, "0.9x", True])
    def test_a_decay_out_of_range_is_an_error(self, decay):
        with pytest.raises(ValueError, match=r"decay must be"):
            swd_jax.criteria.mean_saliency(decay)


class TestGradientsThatAreNotFinite:
    """As at a step that a loss scale or `apply_if_finite` skips."""

    OVERFLOWING = [
        np.array([[1.0, 1], [1, -1]], np.float32),
        np.array([[np.nan, np.inf], [-np.inf, 2]], np.float32),
        np.array([[1.0, -1], [-2, 1]], np.float32),
    ]

    # Of -w g, for the weights 1, -2, 3 and 4: each sum without what is not finite.
    # Of |w g|: means of .5 1 1.5 2, 4 for the last weight only, then 1 2 6 4.
    @pytest.mark.parametrize(
        ("criterion", "expected"),
        [
            (swd_jax.criteria.movement, [[-2, 0], [3, -8]]),
            (swd_jax.criteria.mean_saliency(0.5), [[0.75, 1.5], [3.75, 4.5]]),
        ],
    )
    def test_they_are_left_out_for_their_weights_and_the_step_is_counted(
        self, criterion, expected
    ):
        target = swd_jax.Target(0.5, criterion=criterion)
        tx = swd_jax.swd(target, weight_decay=1.0, a=1.0, update_every=2)
        _, state = run(tx, self.OVERFLOWING)
        np.testing.assert_array_equal(state.selection.accumulated["kernel"], expected)
        assert int(state.selection.steps_left_out) == 1
        assert float(state.selection.selected_fraction) == 0.5

    def test_a_state_without_the_count_goes_on(self):
        target = swd_jax.Target(0.5, criterion="movement")
        tx = swd_jax.swd(target, weight_decay=1.0, a=1.0)
        state = tx.init(KERNEL)
        state = state._replace(selection=state.selection._replace(steps_left_out=()))
        gradient = {"kernel": self.OVERFLOWING[1]}
        _, state = jax.jit(tx.update)(gradient, state, KERNEL)
        assert int(state.selection.steps_left_out) == 1

    def test_nothing_is_counted_where_nothing_is_accumulated(self):
        state = swd_jax.swd(0.5, weight_decay=1.0, a=1.0).init(KERNEL)
        assert state.selection.steps_left_out == ()

    def test_shards_of_one_leaf_count_a_step_once(self):
        target = swd_jax.Target(0.5, criterion="movement")
        tx = swd_jax.swd(target, weight_decay=1.0, a=1.0, axis_name="x")
        mesh = jax.make_mesh(
            (len(jax.devices()),), ("x",), axis_types=(jax.sharding.AxisType.Auto,)
        )
        spec = jax.sharding.PartitionSpec("x")

        def left_out(weights, gradient):
            params, gradients = {"kernel": weights}, {"kernel": gradient}
            _, state = tx.update(gradients, tx.init(params), params)
            return state.selection.steps_left_out

        weights = jnp.ones((len(jax.devices()), 4))
        gradient = weights.at[0, 0].set(jnp.nan)
        count = jax.jit(
            jax.shard_map(
                left_out,
                mesh=mesh,
                in_specs=(spec, spec),
                out_specs=jax.sharding.PartitionSpec(),
            )
        )(weights, gradient)
        assert int(count) == 1

    @pytest.mark.parametrize("tolerance", [None, 0.1])
    def test_saliency_selects_again_after_the_step(self, tolerance):
        target = swd_jax.Target(0.5, criterion=swd_jax.criteria.saliency)
        tx = swd_jax.swd(target, weight_decay=1.0, a=1.0, tolerance=tolerance)
        nan = np.full((2, 2), np.nan, np.float32)
        gradients = [GRADIENTS[0], nan, *([GRADIENTS[0]] * 2)]
        _, state = run(tx, gradients)
        assert float(state.selection.selected_fraction) == 0.5
        assert np.isfinite(state.selection.threshold)

    @pytest.mark.parametrize("decay", [None, 0.9])
    def test_finite_gradients_accumulate_to_the_same_bits(self, decay):
        rng = np.random.default_rng(0)
        weights, *gradients = rng.normal(size=(4, 37, 5)).astype(np.float32)
        criterion = swd_jax.criteria.movement
        if decay is not None:
            criterion = swd_jax.criteria.mean_saliency(decay)
        assert criterion.accumulator is not None
        expected = np.zeros_like(weights)
        for gradient in gradients:
            expected = jax.jit(criterion.accumulator.update)(
                expected, weights, gradient
            )
        target = swd_jax.Target(0.5, criterion=criterion)
        tx = swd_jax.swd(target, weight_decay=1.0, a=1.0)
        _, state = run(tx, gradients, {"kernel": weights})
        np.testing.assert_array_equal(state.selection.accumulated["kernel"], expected)


class TestTrainState:
    """`apply_gradients` of flax passes no extra arguments on."""

    @staticmethod
    def applied(tx):
        train_state = TrainState.create(
            apply_fn=lambda params: params, params=KERNEL, tx=tx
        )
        return jax.jit(lambda s: s.apply_gradients(grads=GRADIENT))(train_state)

    def test_movement_before_the_optimizer_and_around_it(self):
        target = swd_jax.Target(0.5, criterion="movement")
        expected = -KERNEL["kernel"] * GRADIENT["kernel"]
        for tx in (
            optax.chain(swd_jax.swd(target, weight_decay=1.0, a=1.0), optax.adam(0.1)),
            swd_jax.sparsify(target, 10, optimizer=optax.sgd(0.0)),
        ):
            state = self.applied(tx).opt_state
            accumulated = optax.tree_utils.tree_get(state, "accumulated")
            np.testing.assert_allclose(accumulated["kernel"], expected, rtol=1e-6)

    @pytest.mark.parametrize("name", ["fisher", "movement"])
    def test_the_error_says_what_to_call_instead(self, name):
        target = swd_jax.Target(0.5, criterion=name)
        tx = optax.chain(optax.adam(0.1), swd_jax.sparsify(target, 10))
        with pytest.raises(ValueError, match=r"passes none: call state\.tx\.update"):
            self.applied(tx)


class TestFisher:
    TARGET = swd_jax.Target(0.5, criterion=swd_jax.criteria.fisher)

    def test_it_is_the_magnitude_times_the_root_of_the_second_moment(self):
        # |w| sqrt(nu) = 4, 2, 6, 2: the two lowest are pruned.
        nu = {"kernel": np.array([[16.0, 1], [4, 0.25]], np.float32)}
        extra_args = {"nu": nu}
        assert pruned_ints(KERNEL, self.TARGET, extra_args=extra_args) == {
            "kernel": [[0, 1], [0, 1]]
        }

    def test_in_a_chain_it_takes_the_second_moment_of_adam(self):
        tx = optax.chain(
            swd_jax.swd(self.TARGET, weight_decay=1.0, a=1.0), optax.adam(0.1)
        )

        @jax.jit
        def update(gradient, state):
            nu = optax.tree_utils.tree_get(state, "nu")
            return tx.update(gradient, state, KERNEL, nu=nu)

        _, state = update(GRADIENT, tx.init(KERNEL))
        assert state[0].selection.selected_fraction == 0  # all scores are 0
        _, after = update(GRADIENT, state)
        # nu is 0.001 g^2 after a step without decay: |w g| again.
        assert after[0].selection.selected_fraction == 0.5
        assert float(after[0].selection.threshold) == pytest.approx(
            2 * 0.001**0.5, rel=1e-6
        )

    def test_without_the_second_moment_the_error_says_how_to_pass_it(self):
        tx = swd_jax.swd(self.TARGET, weight_decay=1.0, a=1.0)
        with pytest.raises(ValueError, match=r"fisher needs nu.*params, nu=\.\.\."):
            tx.update(GRADIENT, tx.init(KERNEL), KERNEL)
        with pytest.raises(
            ValueError, match=r"fisher needs nu.*extra_args={'nu': \.\.\.}"
        ):
            swd_jax.prune(KERNEL, self.TARGET)
