"""Any container: the same weights are treated the same, whatever they come in."""

import dataclasses

import chex
import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import swd_jax
from tests.helpers import quickly
from tests.helpers.containers import CONTAINERS, plain

# Other tests run the same lines of the library.
pytestmark = pytest.mark.no_cover


# 12 + 24 prunable weights, some of them equal; s = 0.5 selects those below the 19th
# smallest and prunes the 18 smallest.
RNG = np.random.default_rng(0)
LEAVES = (
    RNG.integers(-9, 10, (3, 4)).astype(np.float32) / 8,
    jnp.asarray(RNG.integers(-9, 10, (2, 3, 4)) / 8, jnp.bfloat16),
    np.ones(5, np.float32),
)
TARGET = swd_jax.Target(0.5)


def as_jax(tree):
    return jax.tree.map(jnp.asarray, tree)


@quickly.jit
def gradient_of(params):
    return jax.tree.map(lambda w: 0.125 * jnp.sign(w), params)


def trained_twice(tx, params):
    """Two jitted updates; also checks that they keep what an optax loop relies on."""
    state = tx.init(params)
    update = quickly.jit(tx.update)
    for _ in range(2):
        updates, new_state = update(gradient_of(params), state, params)
        assert jax.tree.structure(updates) == jax.tree.structure(params)
        assert jax.tree.structure(new_state) == jax.tree.structure(state)
        params, state = optax.apply_updates(params, updates), new_state
    return params, state


def all_of_it(params):
    """What the library makes of a tree, and what of it must not depend on the tree."""
    tx = optax.chain(swd_jax.swd(TARGET, weight_decay=0.1, a=4.0), optax.sgd(0.25))
    trained, state = trained_twice(tx, params)
    mask = swd_jax.prune_mask(params, TARGET)
    pruned = swd_jax.prune(params, TARGET)
    fine_tuning = optax.chain(optax.sgd(0.25, momentum=0.9), swd_jax.keep_pruned(mask))
    tuned, _ = trained_twice(fine_tuning, pruned)
    report = swd_jax.summarize(params, TARGET)
    numbers = [dataclasses.replace(leaf, path="") for leaf in report.leaves]
    trees = {"trained": trained, "mask": mask, "pruned": pruned, "tuned": tuned}
    return trees, numbers, optax.tree_utils.tree_get(state, "threshold")


@pytest.fixture(scope="module")
def in_a_dict():
    return all_of_it(as_jax(plain(*LEAVES)))


def test_in_a_dict_the_weights_are_those_of_a_sort(in_a_dict):
    trees, numbers, _ = in_a_dict
    magnitudes = np.abs(np.concatenate([np.ravel(leaf) for leaf in LEAVES[:2]]))
    lowest = np.argsort(magnitudes.astype(np.float32), kind="stable")[:18]
    kept = np.ones(36, bool)
    kept[lowest] = False
    mask = np.concatenate([np.ravel(m) for m in jax.tree.leaves(trees["mask"])[:2]])
    np.testing.assert_array_equal(mask, kept)
    assert sum(leaf.weights for leaf in numbers) == 36


@pytest.mark.parametrize("name", CONTAINERS)
def test_everything_is_the_same_as_in_a_dict(name, in_a_dict):
    params = as_jax(CONTAINERS[name](*LEAVES))
    trees, numbers, threshold = all_of_it(params)
    expected_trees, expected_numbers, expected_threshold = in_a_dict
    for what, tree in trees.items():
        assert jax.tree.structure(tree) == jax.tree.structure(params)
        for leaf, expected, param in zip(
            *map(jax.tree.leaves, (tree, expected_trees[what], params)), strict=True
        ):
            assert leaf.dtype == (np.bool_ if what == "mask" else param.dtype)
            np.testing.assert_array_equal(leaf, expected)
    for leaf, mask in zip(
        jax.tree.leaves(trees["tuned"]), jax.tree.leaves(trees["mask"]), strict=True
    ):
        assert np.all(np.asarray(leaf)[~np.asarray(mask)] == 0)
    assert numbers == expected_numbers
    assert threshold == expected_threshold


def test_a_bare_array_is_a_tree_with_an_empty_path():
    array = jnp.asarray(LEAVES[0])
    trees, numbers, threshold = all_of_it(array)
    in_dict, dict_numbers, dict_threshold = all_of_it({"kernel": array})
    chex.assert_trees_all_equal(
        trees, {name: tree["kernel"] for name, tree in in_dict.items()}
    )
    assert numbers == dict_numbers
    assert threshold == dict_threshold
    (leaf,) = swd_jax.summarize(array, TARGET).leaves
    assert leaf.path == ""


def test_leaves_of_numpy_are_taken_as_they_are():
    params = plain(LEAVES[0], np.asarray(LEAVES[1]), LEAVES[2])
    mask = swd_jax.prune_mask(params, TARGET)
    expected = swd_jax.prune_mask(as_jax(params), TARGET)
    chex.assert_trees_all_equal(mask, expected)
    pruned = swd_jax.prune(params, TARGET)
    assert [w.dtype for w in jax.tree.leaves(pruned)] == [w.dtype for w in LEAVES]


class TestFrameworks:
    """Real models, trained for a few steps by their own loops, then pruned.

    The loss only has to give a gradient for every parameter.
    """

    X = np.random.default_rng(1).standard_normal((8, 6)).astype(np.float32)
    STEPS = 3
    OPTIMIZER = optax.chain(
        swd_jax.swd(TARGET, weight_decay=5e-4, a=100.0), optax.adam(1e-2)
    )

    def check_pruned(self, params, paths):
        """Half of the prunable weights are zero, and they are the smaller half."""
        report = swd_jax.summarize(params, TARGET)
        assert [leaf.path for leaf in report.leaves] == paths
        pruned = swd_jax.prune(params, TARGET)
        mask = swd_jax.prune_mask(params, TARGET)
        assert jax.tree.structure(pruned) == jax.tree.structure(params)
        assert jax.tree.structure(mask) == jax.tree.structure(params)
        lost, kept = [], []
        for before, after, keep in zip(
            *map(jax.tree.leaves, (params, pruned, mask)), strict=True
        ):
            if not hasattr(before, "dtype"):  # a function in an Equinox module
                assert after is before
                continue
            assert after.dtype == before.dtype
            keep, before = np.asarray(keep), np.asarray(before)
            np.testing.assert_array_equal(after, np.where(keep, before, 0))
            lost.append(np.abs(before[~keep]))
            if not keep.all():
                kept.append(np.abs(before[keep]))
        lost, kept = np.concatenate(lost), np.concatenate(kept)
        assert lost.size == report.weights // 2 == report.pruned
        assert lost.max() <= kept.min()
        after = swd_jax.summarize(pruned, TARGET)
        assert after.zeros == after.pruned == report.weights // 2
        return pruned, mask

    def trained(self, apply, params):
        @quickly.jit
        def step(params, state):
            loss = lambda p: jnp.mean((apply(p, self.X) - 1) ** 2)
            gradient = jax.grad(loss)(params)
            updates, state = self.OPTIMIZER.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        state = self.OPTIMIZER.init(params)
        for _ in range(self.STEPS):
            params, state = step(params, state)
        return params

    def test_linen(self):
        model = nn.Sequential([nn.Dense(5), nn.LayerNorm(), nn.relu, nn.Dense(2)])
        params = model.init(jax.random.key(0), self.X)
        params = self.trained(model.apply, params)
        paths = ["params/layers_0/kernel", "params/layers_3/kernel"]
        pruned, _ = self.check_pruned(params, paths)
        assert np.isfinite(model.apply(pruned, self.X)).all()

    def test_nnx_optimizer(self):
        class Net(nnx.Module):
            def __init__(self, rngs):
                self.conv = nnx.Conv(1, 3, (2,), rngs=rngs)
                self.norm = nnx.BatchNorm(3, rngs=rngs)
                self.out = nnx.Linear(18, 2, rngs=rngs)

            def __call__(self, x):
                x = nnx.relu(self.norm(self.conv(x[..., None])))
                return self.out(x.reshape(len(x), -1))

        model = Net(nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, self.OPTIMIZER, wrt=nnx.Param)

        @nnx.jit
        def step(model, optimizer):
            loss = lambda model: jnp.mean((model(self.X) - 1) ** 2)
            optimizer.update(model, nnx.grad(loss)(model))

        before = nnx.state(model, nnx.Param)["conv"]["kernel"][...].copy()
        for _ in range(self.STEPS):
            step(model, optimizer)
        params = nnx.state(model, nnx.Param)
        assert np.all(params["conv"]["kernel"][...] != before)
        assert (
            int(optax.tree_utils.tree_get(optimizer.opt_state, "threshold").size) == 1
        )
        pruned, mask = self.check_pruned(params, ["conv/kernel", "out/kernel"])
        nnx.update(model, pruned)
        zeros = np.sum(np.asarray(model.out.kernel[...]) == 0)
        assert zeros == np.sum(~np.asarray(mask["out"]["kernel"][...])) > 0
        # Fine-tuning with another optimizer: the zeros stay.
        tuning = optax.chain(optax.adam(1e-2), swd_jax.keep_pruned(mask))
        optimizer = nnx.Optimizer(model, tuning, wrt=nnx.Param)
        for _ in range(self.STEPS):
            step(model, optimizer)
        tuned = nnx.state(model, nnx.Param)
        for weights, keep in zip(*map(jax.tree.leaves, (tuned, mask)), strict=True):
            np.testing.assert_array_equal(np.asarray(weights) != 0, keep)

    def test_equinox(self):
        # An MLP has functions among its leaves.
        model = eqx.nn.MLP(6, 2, 5, depth=1, key=jax.random.key(0))
        tx = self.OPTIMIZER

        @eqx.filter_jit
        def step(model, state):
            loss = lambda m: jnp.mean((jax.vmap(m)(self.X) - 1) ** 2)
            gradient = eqx.filter_grad(loss)(model)
            params = eqx.filter(model, eqx.is_inexact_array)
            updates, state = tx.update(gradient, state, params)
            return eqx.apply_updates(model, updates), state

        state = tx.init(eqx.filter(model, eqx.is_inexact_array))
        for _ in range(self.STEPS):
            model, state = step(model, state)
        paths = ["layers/0/weight", "layers/1/weight"]
        pruned, mask = self.check_pruned(model, paths)
        assert pruned.activation is model.activation
        assert np.isfinite(jax.vmap(pruned)(self.X)).all()
        # A mask of the whole model fits its arrays, and so does one of the arrays.
        arrays = eqx.filter(pruned, eqx.is_inexact_array)
        gradient = jax.tree.map(jnp.ones_like, arrays)
        for given in (mask, swd_jax.prune_mask(arrays, TARGET)):
            tx = optax.chain(optax.sgd(0.1), swd_jax.keep_pruned(given))
            updates, _ = tx.update(gradient, tx.init(arrays), arrays)
            tuned = eqx.apply_updates(pruned, updates)
            for layer, keep in zip(tuned.layers, given.layers, strict=True):
                np.testing.assert_array_equal(
                    np.asarray(layer.weight) != 0, keep.weight
                )

    def test_equinox_model_passed_whole_as_parameters(self):
        # Its gradient has None where the model has functions.
        model = eqx.nn.MLP(6, 2, 5, depth=1, key=jax.random.key(0))
        gradient = jax.tree.map(jnp.zeros_like, eqx.filter(model, eqx.is_inexact_array))
        tx = swd_jax.swd(TARGET, weight_decay=0.5, a=1.0)
        updates, _ = tx.update(gradient, tx.init(model), model)
        assert jax.tree.structure(updates) == jax.tree.structure(gradient)
        keep = swd_jax.prune_mask(model, TARGET)
        for decay, layer, mask in zip(
            updates.layers, model.layers, keep.layers, strict=True
        ):
            # Random weights do not tie, so that what is selected is what is pruned.
            expected = np.where(mask.weight, 0, 0.5 * layer.weight)
            np.testing.assert_allclose(decay.weight, expected, rtol=1e-6)
            np.testing.assert_array_equal(decay.bias, np.zeros_like(layer.bias))

    def test_haiku(self):
        def mlp(x):
            return hk.nets.MLP([5, 2])(x)

        model = hk.without_apply_rng(hk.transform(mlp))
        params = model.init(jax.random.key(0), self.X)
        params = self.trained(model.apply, params)
        paths = ["mlp/~/linear_0/w", "mlp/~/linear_1/w"]
        pruned, _ = self.check_pruned(params, paths)
        assert np.isfinite(model.apply(pruned, self.X)).all()
