"""Scores and thresholds worked by hand, for every kind of unit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax

KERNEL = np.array([[1.0, -5.0, 3.0, 2.0], [9.0, 0.5, -1.0, 4.0]], np.float32)
PARAMS = {"bias": jnp.zeros(4), "kernel": jnp.asarray(KERNEL)}


def scores_of(target, params=None, **options):
    return swd_jax.scores(PARAMS if params is None else params, target, **options)


class TestScores:
    def test_of_single_weights_are_their_magnitudes(self):
        scores = scores_of(0.5)
        np.testing.assert_array_equal(scores["kernel"], np.abs(KERNEL))
        assert scores["bias"] == optax.MaskedNode()

    def test_of_a_block_are_those_of_all_of_its_weights(self):
        scores = scores_of(swd_jax.Target(0.5, structure=swd_jax.Block((1, 2), "l1")))
        expected = np.repeat([[6.0, 5.0], [9.5, 5.0]], 2, axis=1)
        np.testing.assert_allclose(scores["kernel"], expected, rtol=1e-6)

    def test_of_weights_that_n_of_m_protects_are_infinite(self):
        target = swd_jax.Target(0.5, structure=swd_jax.NM(1, 2, axis=-1))
        expected = [[1, np.inf, np.inf, 2], [np.inf, 0.5, 1, np.inf]]
        np.testing.assert_array_equal(scores_of(target)["kernel"], expected)

    def test_of_a_signed_criterion_are_in_its_order(self):
        target = swd_jax.Target(0.5, criterion=lambda weights: weights)
        scores = np.asarray(scores_of(target)["kernel"]).ravel()
        assert (scores >= 0).all()
        np.testing.assert_array_equal(np.argsort(scores), np.argsort(KERNEL.ravel()))

    def test_of_coupled_channels_are_the_lowest_that_a_weight_belongs_to(self):
        def model(params, x):
            hidden = jax.nn.relu(jax.nn.relu(x @ params["a"]) @ params["b"])
            return hidden @ params["c"]

        params = {
            "a": jnp.array([[3.0, 1.0]]),
            "b": jnp.array([[1.0, 5.0], [1.0, 5.0]]),
            "c": jnp.array([[1.0], [5.0]]),
        }
        groups = swd_jax.channels.channel_groups(model, params, jnp.ones((2, 1)))
        structure = swd_jax.CoupledChannels(groups, norm="mean")
        scores = scores_of(swd_jax.Target(0.3, structure=structure), params)
        # Channels of "a": (3 + 1 + 5) / 3 and (1 + 1 + 5) / 3; of "b": means of the
        # columns of "b" and the rows of "c", 3 / 3 and 15 / 3.
        np.testing.assert_allclose(scores["a"], [[3, 7 / 3]], rtol=1e-6)
        np.testing.assert_allclose(scores["b"], [[1, 3], [1, 7 / 3]], rtol=1e-6)
        np.testing.assert_allclose(scores["c"], [[1], [5]], rtol=1e-6)

    def test_read_extra_arguments(self):
        target = swd_jax.Target(0.5, criterion="saliency")
        gradient = jax.tree.map(jnp.ones_like, PARAMS)
        scores = scores_of(target, extra_args={"gradient": gradient})
        np.testing.assert_array_equal(scores["kernel"], np.abs(KERNEL))
        with pytest.raises(ValueError, match=r"extra_args={'gradient': \.\.\.}"):
            scores_of(target)


class TestThresholds:
    @pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.75])
    def test_of_single_weights_are_order_statistics(self, sparsity):
        expected = np.sort(np.abs(KERNEL).ravel())[int(8 * sparsity)]
        threshold = swd_jax.thresholds(PARAMS, sparsity)["kernel"]
        assert threshold == expected
        assert threshold.shape == ()

    def test_of_a_leaf_at_its_cap_are_lower(self):
        params = {"w1": jnp.array([[0.1, 0.2, 0.3, 0.4]]), "w2": PARAMS["kernel"]}
        target = swd_jax.Target(0.5, min_kept=3)
        thresholds = swd_jax.thresholds(params, target)
        # One weight of "w1" may be pruned, so five of "w2" must be: 0.5, 1, 1, 2 and 3.
        assert thresholds["w1"] == jnp.float32(0.2)
        assert thresholds["w2"] == 4

    def test_follow_a_schedule(self):
        target = swd_jax.Target(lambda step: step / 8)
        for step in range(8):
            expected = np.sort(np.abs(KERNEL).ravel())[step]
            assert swd_jax.thresholds(PARAMS, target, step=step)["kernel"] == expected

    def test_compared_with_scores_give_the_selection_under_jit(self):
        target = swd_jax.Target(0.5, scope="local", criterion="normalized_magnitude")

        @jax.jit
        def selected(params):
            return jax.tree.map(
                lambda scores, threshold: scores < threshold,
                swd_jax.scores(params, target),
                swd_jax.thresholds(params, target),
            )

        # The fifth smallest of 0.5, 1, 1, 2, 3, 4, 5, 9 is 3.
        expected = np.abs(KERNEL) < 3
        np.testing.assert_array_equal(selected(PARAMS)["kernel"], expected)

    def test_of_an_empty_tree_are_an_empty_tree(self):
        empty = {"kernel": optax.MaskedNode()}
        assert swd_jax.thresholds(empty, 0.5) == empty
        assert swd_jax.scores(empty, 0.5) == empty
