"""Leaves that hold one parameter, and leaves that only share an array at first."""

import copy
import functools
import pickle

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import swd_jax
from swd_jax._arrays import tree_paths

X = jnp.ones((3, 6))


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def chain(p, x):
    """Layers "a" and "b" of one shape, each with an input and an output of its own."""
    h = jax.nn.relu(jax.nn.relu(x @ p["in"]) @ p["a"])
    return jax.nn.relu(h) @ p["b"] @ p["out"]


def chain_params(a, b):
    return {"in": random(6, 5), "a": a, "b": b, "out": random(5, 2)}


def sizes(groups):
    return [group.size for group in groups]


def members(groups):
    return [{(m.path, m.axis) for m in group.members} for group in groups]


class TestOneArrayObject:
    def test_in_two_biases_couples_nothing(self):
        def apply(p, x):
            h = jax.nn.relu(x @ p["w1"] + p["b1"][None])
            return jax.nn.relu(h @ p["w2"] + p["b2"][None]) @ p["w3"]

        params = {"w1": random(6, 16), "w2": random(16, 16), "w3": random(16, 2)}
        zeros = jnp.zeros(16)
        one_object = params | {"b1": zeros, "b2": zeros}
        two_objects = params | {"b1": jnp.zeros(16), "b2": jnp.zeros(16)}
        groups = swd_jax.channels.channel_groups(apply, one_object, X)
        assert members(groups) == [
            {("w1", 1), ("b1", 0), ("w2", 0)},
            {("w2", 1), ("b2", 0), ("w3", 0)},
        ]
        # 6 x 16, 16 x 16, 16 x 2 and two biases of 16.
        assert groups.parameters() == 96 + 256 + 32 + 2 * 16
        assert groups.tied == ()
        other = swd_jax.channels.channel_groups(apply, two_objects, X)
        assert members(other) == members(groups)

    def test_in_two_layers_couples_nothing(self):
        weights = random(5, 5)
        params = chain_params(weights, weights)
        groups = swd_jax.channels.channel_groups(chain, params, X)
        # x @ in, after a, and after b: three layers of 5 channels.
        assert sizes(groups) == [5, 5, 5]
        assert groups.parameters() == 30 + 25 + 25 + 10


class TestTiedArgument:
    def test_couples_the_leaves(self):
        weights = random(5, 5)
        params = chain_params(weights, weights)
        groups = swd_jax.channels.channel_groups(chain, params, X, tied=[("a", "b")])
        assert sizes(groups) == [5]
        # 6 x 5, 5 x 5 once, 5 x 2.
        assert groups.parameters() == 30 + 25 + 10
        assert groups.tied == (("a", "b"),)

    def test_holds_when_the_model_is_analysed_again(self):
        weights = random(5, 5)
        params = chain_params(weights, weights)
        groups = swd_jax.channels.channel_groups(chain, params, X, tied=[("a", "b")])
        kept = [np.arange(5) < 2]
        same_model = functools.partial(chain)
        small = swd_jax.channels.shrink(same_model, params, groups, kept, X)
        assert small.shapes["a"] == small.shapes["b"] == (2, 2)
        np.testing.assert_array_equal(small.params["a"], small.params["b"])
        report = swd_jax.channels.cost_report(same_model, params, small, X, runs=1)
        # 6 x 2, 2 x 2 once, 2 x 2.
        assert (report.before.parameters, report.after.parameters) == (65, 12 + 4 + 4)

    def test_may_name_three_leaves_in_pairs(self):
        def apply(p, x):
            return jax.nn.relu(chain(p, x) @ p["last"])

        params = chain_params(random(5, 5), random(5, 5)) | {
            "out": random(5, 5),
            "last": random(5, 2),
        }
        pairs = [("b", "out"), ("a", "b")]
        groups = swd_jax.channels.channel_groups(apply, params, X, tied=pairs)
        assert sizes(groups) == [5]
        assert groups.parameters() == 30 + 25 + 10

    @pytest.mark.parametrize(
        ("tied", "message"),
        [
            ([("a", "z")], "tied names 'z'"),
            ([("a", "in")], r"'a' has \(5, 5\), 'in' \(6, 5\)"),
            ([("a", "a")], "pairs of different paths"),
            ([("a", "b", "out")], "pairs of different paths"),
            (["ab"], "pairs of different paths"),
        ],
    )
    def test_that_does_not_fit(self, tied, message):
        params = chain_params(random(5, 5), random(5, 5))
        with pytest.raises(ValueError, match=message):
            swd_jax.channels.channel_groups(chain, params, X, tied=tied)


class Twice(nnx.Module):
    def __init__(self, rngs):
        self.into = nnx.Linear(6, 5, use_bias=False, rngs=rngs)
        self.inner = nnx.Linear(5, 5, use_bias=False, rngs=rngs)
        self.again = nnx.Linear(5, 5, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(5, 2, use_bias=False, rngs=rngs)

    def __call__(self, x):
        x = jax.nn.relu(self.into(x))
        return self.out(jax.nn.relu(self.again(jax.nn.relu(self.inner(x)))))


def call(module, x):
    return module(x)


def shared_variable():
    model = Twice(nnx.Rngs(0))
    model.again.kernel = model.inner.kernel
    return model


class TestContainers:
    def test_nnx_variables_that_occur_twice_are_tied(self):
        groups = swd_jax.channels.channel_groups(call, shared_variable(), X)
        assert sizes(groups) == [5]
        assert groups.parameters() == 30 + 25 + 10
        assert groups.tied == (("again/kernel", "inner/kernel"),)

    def test_nnx_variables_of_shapes_are_tied(self):
        model = nnx.eval_shape(shared_variable)
        assert sizes(swd_jax.channels.channel_groups(call, model, X)) == [5]

    def test_nnx_variables_that_hold_one_array_are_not_tied(self):
        model = Twice(nnx.Rngs(0))
        model.again.kernel[...] = model.inner.kernel[...]
        assert sizes(swd_jax.channels.channel_groups(call, model, X)) == [5, 5, 5]

    def test_a_copy_that_shares_no_more_is_shrunk_as_tied(self):
        model = shared_variable()
        groups = swd_jax.channels.channel_groups(call, model, X)
        copied = jax.tree.map(lambda leaf: leaf + 0, model)
        assert copied.again.kernel is not copied.inner.kernel
        small = swd_jax.channels.shrink(call, copied, groups, [np.arange(5) < 3], X)
        assert small.params.again.kernel.shape == (3, 3)

    def test_equinox_shared_has_one_leaf(self):
        keys = jax.random.split(jax.random.key(0), 2)
        layers = (
            equinox.nn.Embedding(9, 6, key=keys[0]),
            equinox.nn.Linear(6, 9, use_bias=False, key=keys[1]),
        )
        shared = equinox.nn.Shared(
            layers, lambda pair: pair[1].weight, lambda pair: pair[0].weight
        )
        params, rest = equinox.partition(shared, equinox.is_array)

        def apply(params, tokens):
            embed, out = equinox.combine(params, rest)()
            return jax.vmap(lambda token: out(jax.nn.relu(embed(token))))(tokens)

        groups = swd_jax.channels.channel_groups(apply, params, jnp.arange(4))
        assert [m for group in members(groups) for m in group] == [
            ("pytree/0/weight", 1)
        ]
        assert groups.parameters() == 54

    def test_one_equinox_layer_in_two_places_is_not_tied(self):
        keys = jax.random.split(jax.random.key(0), 3)
        linear = lambda i, o, key: equinox.nn.Linear(i, o, use_bias=False, key=key)
        inner = linear(5, 5, keys[1])
        layers = [linear(6, 5, keys[0]), inner, inner, linear(5, 2, keys[2])]

        def apply(layers, x):
            for layer in layers:
                x = jax.nn.relu(jax.vmap(layer)(x))
            return x

        groups = swd_jax.channels.channel_groups(apply, layers, X)
        assert sizes(groups) == [5, 5, 5]


class TestPaths:
    def test_of_two_leaves_are_refused(self):
        params = {"a/b": {"c": random(6, 5)}, "a": {"b/c": random(5, 2)}}

        def apply(p, x):
            return jax.nn.relu(x @ p["a/b"]["c"]) @ p["a"]["b/c"]

        assert tree_paths.flatten(params).paths == ["a/b/c", "a/b/c"]
        with pytest.raises(ValueError, match="two arrays with the path 'a/b/c'"):
            swd_jax.channels.channel_groups(apply, params, X)


class TestCopies:
    @pytest.mark.parametrize(
        "copied",
        [copy.copy, copy.deepcopy, lambda groups: pickle.loads(pickle.dumps(groups))],
        ids=["copy", "deepcopy", "pickle"],
    )
    def test_of_groups_shrink_the_same(self, copied):
        params = chain_params(random(5, 5), random(5, 5, seed=1))
        groups = swd_jax.channels.channel_groups(chain, params, X, tied=[("a", "b")])
        twin = copied(groups)
        assert str(twin) == str(groups)
        assert twin.tied == groups.tied
        kept = [np.arange(5) < 2]
        one = swd_jax.channels.shrink(chain, params, groups, kept, X)
        other = swd_jax.channels.shrink(chain, params, twin, kept, X)
        jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
