"""Straight-through pruning against NumPy and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax

# Of four weights, one.
TARGET = swd_jax.Target(0.25)


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
    # The largest magnitude that is pruned; without one, nothing shrinks.
    threshold = np.concatenate([[0], np.sort(np.abs(weights))])[int(sparsity * 250)]
    expected = np.sign(weights) * np.maximum(np.abs(weights) - threshold, 0)
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
    assert zeros == [0, 250 * 7 // 10, 200]
    settled = swd_jax.methods.straight_through(params, target)
    np.testing.assert_allclose(flat(settled), flat(at(10)), atol=1e-6)


def test_a_normalised_criterion_shrinks_in_its_own_units():
    params = {"a": jnp.array([[3.0, 4.0]]), "b": jnp.array([[0.5, 1.2]])}
    target = swd_jax.Target(0.25, criterion="normalized_magnitude", prunable="")
    # Scores 0.6, 0.8 and 5/13, 12/13: the first of "b" goes, the threshold is 5/13.
    got = swd_jax.methods.straight_through(params, target)
    left = [3 * (1 - 25 / 39), 4 * (1 - 25 / 52)]
    np.testing.assert_allclose(got["a"], [left], rtol=1e-5)
    np.testing.assert_allclose(got["b"], [[0, 1.2 * (1 - 5 / 12)]], rtol=1e-5)


KERNELS = {
    name: jnp.asarray(np.random.default_rng(i).normal(size=shape), jnp.float32)
    for i, (name, shape) in enumerate({"hidden": (8, 12), "head": (8, 1)}.items())
}
TARGETS_TO_PRUNE = {
    "weights": swd_jax.Target(0.6),
    "a sparsity of 0": swd_jax.Target(0.0),
    "2:4": swd_jax.Target(0.5, structure=swd_jax.NM(2, 4)),
    "2:4, not yet at its end": swd_jax.Target(0.3, structure=swd_jax.NM(2, 4)),
    "blocks": swd_jax.Target(0.5, structure=swd_jax.Block((2, 1))),
    "channels": swd_jax.Target(0.5, structure=swd_jax.Channel(-1)),
    "channels, locally": swd_jax.Target(
        0.5, structure=swd_jax.Channel(-1), scope="local"
    ),
    "a floor": swd_jax.Target(0.8, min_kept=0.4),
    "signed scores": swd_jax.Target(
        0.5, criterion=swd_jax.criteria.Criterion("value", lambda w, _: w, signed=True)
    ),
}


@pytest.mark.parametrize(
    ("name", "soft"),
    [*((name, True) for name in TARGETS_TO_PRUNE), ("2:4", False), ("channels", False)],
)
def test_its_zeros_are_those_of_prune(name, soft):
    target = TARGETS_TO_PRUNE[name]
    pruned = swd_jax.prune(KERNELS, target)
    got = swd_jax.methods.straight_through(KERNELS, target, soft=soft)
    for leaf, weights in KERNELS.items():
        np.testing.assert_array_equal(got[leaf] == 0, pruned[leaf] == 0)
        np.testing.assert_array_equal(
            jnp.sign(got[leaf])[got[leaf] != 0], jnp.sign(weights)[got[leaf] != 0]
        )


@pytest.mark.parametrize("soft", [True, False], ids=["soft", "hard"])
def test_ties_are_pruned_as_by_prune(soft):
    # k = 3 of 6: 1 goes, and the first two of those that tie, under jit as well.
    params = {"kernel": jnp.array([[2.0, 1.0, -2.0], [2.0, 3.0, 2.0]])}
    through = lambda p: swd_jax.methods.straight_through(p, 0.5, soft=soft)["kernel"]
    kept = [1, 2, 1] if soft else [2, 3, 2]
    for got in (through(params), jax.jit(through)(params)):
        np.testing.assert_array_equal(got, [[0, 0, 0], kept])


def test_channels_shrink_by_the_largest_that_is_pruned():
    # Norms of 5, 10 and 13: the first goes.
    kernel = jnp.array([[3.0, 6.0, 5.0], [4.0, 8.0, 12.0]])
    target = swd_jax.Target(0.34, structure=swd_jax.Channel(-1))
    got = swd_jax.methods.straight_through({"kernel": kernel}, target)["kernel"]
    expected = kernel * jnp.array([[0, 1 / 2, 8 / 13]])
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_weights_that_are_not_finite_are_not_hidden():
    params = {"kernel": jnp.array([[jnp.nan, jnp.inf, 1.0, 2.0, 3.0]])}
    got = swd_jax.methods.straight_through(params, 0.4, soft=False)["kernel"]
    np.testing.assert_array_equal(got, [[jnp.nan, jnp.inf, 0, 0, 3]])


def test_half_precision_stays_half(params):
    half = jax.tree.map(lambda w: w.astype(jnp.bfloat16), params)
    got = swd_jax.methods.straight_through(half, 0.5)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(got))


def test_a_tree_that_optax_has_emptied_is_as_it_was():
    empty = {"kernel": optax.MaskedNode()}
    assert swd_jax.methods.straight_through(empty, 0.5) == empty


class TestFeather:
    """What is kept shrinks by p-th powers; what is pruned learns at a slower rate."""

    WEIGHTS = jnp.array([[0.5, -1.0, 2.0, -3.0]])

    def test_its_threshold_by_hand(self):
        # k = 1 of 4: the threshold is the smallest magnitude, and 8 its inverse cubed.
        expected = [
            [0, -((7 / 8) ** (1 / 3)), (63 / 8) ** (1 / 3), -(215 ** (1 / 3)) / 2]
        ]
        got = swd_jax.methods.straight_through(self.WEIGHTS, TARGET, power=3)
        np.testing.assert_allclose(got, expected, rtol=1e-6)
        # 5^2 - 3^2 = 4^2, and 13^2 - 5^2 = 12^2.
        for weights, left in (([1.0, 3, -5], -4.0), ([1.0, 5, 13], 12.0)):
            target = swd_jax.Target(0.67, prunable="")
            got = swd_jax.methods.straight_through(jnp.array(weights), target, power=2)
            np.testing.assert_allclose(got, [0, 0, left], rtol=1e-6)

    def test_two_leaves_share_a_threshold_and_a_scale(self):
        params = {"a": jnp.array([[0.5, 2.0]]), "b": jnp.array([[-3.0, -0.25, 4.0]])}
        # k = 3 of 5: 0.25, 0.5 and 2 go, and the threshold is 2.
        target = swd_jax.Target(0.6, prunable="")

        def loss(params):
            pruned = swd_jax.methods.straight_through(
                params, target, power=3, pruned_gradient_scale=0.5
            )
            assert jax.tree.structure(pruned) == jax.tree.structure(params)
            return jnp.sum(pruned["a"] * 10) + jnp.sum(pruned["b"] ** 2), pruned

        gradient, pruned = jax.jit(jax.grad(loss, has_aux=True))(params)
        cube_root = 19 ** (1 / 3)  # of 27 - 8
        np.testing.assert_array_equal(pruned["a"], [[0, 0]])
        np.testing.assert_allclose(
            pruned["b"], [[-cube_root, 0, 56 ** (1 / 3)]], rtol=1e-6
        )
        np.testing.assert_array_equal(gradient["a"], [[5, 5]])
        np.testing.assert_allclose(
            gradient["b"], [[-2 * cube_root, 0, 2 * 56 ** (1 / 3)]], rtol=1e-6
        )

    def test_another_criterion_shrinks_by_its_own_scores(self):
        params = {"a": jnp.array([[3.0, 4.0]]), "b": jnp.array([[0.5, 1.2]])}
        target = swd_jax.Target(0.25, criterion="normalized_magnitude", prunable="")
        # Scores 0.6, 0.8 and 5/13, 12/13: the first of "b" goes, the threshold is 5/13.

        def pruned(params):
            return swd_jax.methods.straight_through(
                params, target, power=3, pruned_gradient_scale=0.25
            )

        got = pruned(params)
        kept = 1.2 * (1 - (5 / 12) ** 3) ** (1 / 3)
        np.testing.assert_allclose(got["b"], [[0, kept]], rtol=1e-5)
        left = [
            3 * (1 - (25 / 39) ** 3) ** (1 / 3),
            4 * (1 - (25 / 52) ** 3) ** (1 / 3),
        ]
        np.testing.assert_allclose(got["a"], [left], rtol=1e-5)
        gradient = jax.grad(lambda p: sum(map(jnp.sum, jax.tree.leaves(pruned(p)))))
        np.testing.assert_array_equal(gradient(params)["b"], [[0.25, 1]])
        np.testing.assert_array_equal(gradient(params)["a"], [[1, 1]])

    @pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.97])
    def test_it_is_numpys_in_double_precision(self, params, sparsity):
        weights = flat(params).astype(np.float64)
        magnitudes = np.abs(weights)
        threshold = np.concatenate([[0], np.sort(magnitudes)])[int(sparsity * 250)]
        shrunk = np.maximum(magnitudes**3 - threshold**3, 0) ** (1 / 3)
        got = swd_jax.methods.straight_through(params, sparsity, power=3)
        np.testing.assert_allclose(
            flat(got), np.sign(weights) * shrunk, rtol=2e-5, atol=1e-6
        )

    def test_a_power_of_1_and_a_scale_of_1_change_nothing(self, params):
        plain = swd_jax.methods.straight_through(params, 0.8)
        explicit = swd_jax.methods.straight_through(
            params, 0.8, power=1, pruned_gradient_scale=1
        )
        np.testing.assert_array_equal(flat(plain), flat(explicit))

    def test_hardly_more_than_the_threshold_and_far_more(self):
        above = np.nextafter(np.float32(1), np.float32(2))
        weights = jnp.array([[0.5, 1.0, above, 1e30, 3e38]])
        target = swd_jax.Target(0.4)
        got = swd_jax.methods.straight_through(weights, target, power=3)
        # |w|^3 is beyond float32, and above^3 - 1 is a few of its last digits.
        expected = [[0, 0, (float(above) ** 3 - 1) ** (1 / 3), 1e30, 3e38]]
        np.testing.assert_allclose(got, expected, rtol=1e-5)

    def test_all_sparsities_of_a_schedule_and_seeds_side_by_side(self):
        target = swd_jax.Target(swd_jax.cubic_sparsity(0.75, begin=0, end=2))

        def gradient(weights, step, scale):
            return jax.grad(
                lambda w: swd_jax.methods.straight_through(
                    w, target, step=step, power=3, pruned_gradient_scale=scale
                ).sum()
            )(weights)

        def scanned(weights, scale):
            steps = jnp.array([0, 2])
            return jax.lax.scan(
                lambda _, step: (None, gradient(weights, step, scale)), None, steps
            )[1]

        both = jnp.stack([self.WEIGHTS, self.WEIGHTS[:, ::-1]])
        got = jax.jit(jax.vmap(scanned))(both, jnp.array([0.5, 0.0]))
        np.testing.assert_array_equal(got[0, :, 0], [[1, 1, 1, 1], [0.5, 0.5, 0.5, 1]])
        np.testing.assert_array_equal(got[1, :, 0], [[1, 1, 1, 1], [1, 0, 0, 0]])

    def test_hard_pruning_may_scale_gradients_too(self):
        def loss(weights):
            return swd_jax.methods.straight_through(
                weights, TARGET, soft=False, pruned_gradient_scale=0.5
            ).sum()

        value, gradient = jax.value_and_grad(loss)(self.WEIGHTS)
        assert value == -2
        np.testing.assert_array_equal(gradient, [[0.5, 1, 1, 1]])

    def test_half_precision_is_computed_in_single(self):
        half = self.WEIGHTS.astype(jnp.bfloat16)
        got, gradient = jax.value_and_grad(
            lambda w: swd_jax.methods.straight_through(
                w, TARGET, power=3, pruned_gradient_scale=0.5
            )[0, 2]
        )(half)
        assert got.dtype == gradient.dtype == jnp.bfloat16
        assert got == jnp.asarray((63 / 8) ** (1 / 3), jnp.bfloat16)

    def test_weights_that_are_not_finite_are_as_they_were(self):
        weights = jnp.array([[jnp.nan, jnp.inf, -jnp.inf, 1.0, 2.0, 3.0]])
        got = swd_jax.methods.straight_through(
            weights, swd_jax.Target(0.34), power=3, pruned_gradient_scale=0.5
        )
        expected = [[jnp.nan, jnp.inf, -jnp.inf, 0, 0, 19 ** (1 / 3)]]
        np.testing.assert_allclose(got, expected, rtol=1e-6)

    @pytest.mark.parametrize("power", [0, -1.0, jnp.nan, jnp.inf, "3"])
    def test_a_power_that_is_none(self, power):
        with pytest.raises(ValueError, match="power must be"):
            swd_jax.methods.straight_through(self.WEIGHTS, TARGET, power=power)

    @pytest.mark.parametrize("scale", [-0.5, jnp.nan, jnp.inf, None])
    def test_a_scale_that_is_none(self, scale):
        with pytest.raises(ValueError, match="pruned_gradient_scale must be"):
            swd_jax.methods.straight_through(
                self.WEIGHTS, TARGET, pruned_gradient_scale=scale
            )

    def test_hard_pruning_has_no_power(self):
        with pytest.raises(ValueError, match="power must be 1 with soft=False"):
            swd_jax.methods.straight_through(self.WEIGHTS, TARGET, soft=False, power=3)

    def test_a_traced_power_is_an_error(self):
        with pytest.raises(ValueError, match="power must be a known number .* traced"):
            jax.jit(
                lambda p: swd_jax.methods.straight_through(
                    self.WEIGHTS, TARGET, power=p
                )
            )(3.0)
