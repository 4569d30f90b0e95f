"""Smaller models that compute what the masked ones do."""

import functools

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import swd_jax
from swd_jax._arrays import tree_paths
from swd_jax._shrinking import shrink_checks
from tests.coupling.test_channel_groups import (
    LINEAR,
    OPERATIONS,
    X,
    convolve,
    linear,
    random,
)
from tests.helpers import quickly
from tests.helpers.channel_models import CASES

# Compiling takes most of the time of these tests.


@pytest.fixture(autouse=True)
def _allow_rank_promotion():
    # Equinox and haiku add biases of fewer dimensions.
    with jax.numpy_rank_promotion("allow"):
        yield


def some_kept(groups, seed=0):
    """About half of each group, but neither none nor all."""
    generator = np.random.default_rng(seed)
    vectors = []
    for group in groups:
        vector = generator.random(group.size) < 0.5
        first, second = generator.permutation(group.size)[:2]
        vector[first], vector[second] = True, False
        vectors.append(vector)
    return vectors


def by_path(tree):
    return {path: leaf for _, path, leaf in tree_paths.arrays(tree_paths.flatten(tree))}


def is_float(leaf):
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def gone(groups, kept):
    """Indices that go, by path and axis: from the members, not from what was cut."""
    found = {}
    for group, vector in zip(groups, kept, strict=True):
        for member in group.members:
            indices = member.indices[~vector].ravel()
            found.setdefault((member.path, member.axis), []).extend(indices.tolist())
    return found


def masked(params, removed):
    """The whole model with zeros in all members of the channels that go."""
    flat = tree_paths.flatten(params)
    arrays = {
        path: np.array(leaf) for path, leaf in by_path(params).items() if is_float(leaf)
    }
    for (path, axis), indices in removed.items():
        np.moveaxis(arrays[path], axis, 0)[indices] = 0
    replaced = {
        i: jnp.asarray(arrays[path])
        for i, path, _ in tree_paths.arrays(flat)
        if path in arrays
    }
    return flat.rebuild(replaced)


def cut(array, path, removed):
    for (where, axis), indices in removed.items():
        if where == path:
            array = np.delete(array, indices, axis)
    return array


def inputs_like(example, batch=3):
    """Random inputs in another batch than that of the example."""
    shape = (batch, *example.shape[1:])
    if jnp.issubdtype(example.dtype, jnp.integer):
        return jnp.asarray(np.random.default_rng(1).integers(0, 9, shape))
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def value_and_gradients(apply, params, x):
    """Outputs, and gradients of a fixed random combination of them, by path."""
    flat = tree_paths.flatten(params)
    floats = {i: leaf for i, _, leaf in tree_paths.arrays(flat) if is_float(leaf)}

    @quickly.jit
    def both(floats, x):
        def loss(floats):
            outputs = apply(flat.rebuild(floats), x)
            return (
                outputs * jnp.cos(jnp.arange(outputs.size)).reshape(outputs.shape)
            ).sum(), outputs

        (_, outputs), gradients = jax.value_and_grad(loss, has_aux=True)(floats)
        return outputs, gradients

    outputs, gradients = both(floats, x)
    return outputs, {flat.paths[i]: gradient for i, gradient in gradients.items()}


def agree(one, other):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@functools.cache
def shrunk_case(name):
    case = CASES[name]()
    groups = swd_jax.channels.channel_groups(case.apply, case.params, case.inputs)
    kept = some_kept(groups)
    names = [group.name for group in groups]
    sizes = {
        path: int(kept[names.index(g)].sum()) for path, g in case.attributes.items()
    }
    small = swd_jax.channels.shrink(
        case.apply, case.params, groups, kept, case.inputs, attributes=sizes
    )
    return case, groups, kept, small


# Models of kinds that others have too, which take long to compile.
ALIKE = {"bottlenecks", "equinox_cnn", "equinox_transformer", "mobilenet"}
SPREAD_CASES = [
    pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else [])
    for name in CASES
]


class TestModels:
    @pytest.mark.parametrize("name", SPREAD_CASES)
    def test_compute_what_the_masked_one_does(self, name):
        case, groups, kept, small = shrunk_case(name)
        removed = gone(groups, kept)
        whole = masked(case.params, removed)
        x = inputs_like(case.inputs)
        wanted, gradients = value_and_gradients(case.apply, whole, x)
        outputs, smaller = value_and_gradients(small.apply, small.params, x)
        assert float(np.abs(wanted).max()) > 1e-3
        agree(outputs, wanted)
        assert smaller.keys() == gradients.keys()
        for path, gradient in gradients.items():
            scale = max(float(np.abs(gradient).max()), 1.0)
            agree(
                smaller[path] / scale, cut(np.asarray(gradient), path, removed) / scale
            )
        if case.module:
            module = quickly.jit(lambda x: case.apply(small.params, x))
            agree(module(x), wanted)

    @pytest.mark.no_cover  # the test before runs the same lines
    @pytest.mark.parametrize("name", SPREAD_CASES)
    def test_have_the_size_and_the_cost_that_was_announced(self, name):
        case, groups, kept, small = shrunk_case(name)
        removed = gone(groups, kept)
        for path, array in by_path(small.params).items():
            wanted = cut(np.asarray(by_path(case.params)[path]), path, removed)
            assert small.shapes[path] == array.shape == wanted.shape
            np.testing.assert_array_equal(array, wanted)
        assert jax.tree.structure(small.apply(small.params, case.inputs)) == (
            jax.tree.structure(0)
        )
        again = swd_jax.channels.channel_groups(small.apply, small.params, case.inputs)
        assert groups.flops(kept) == again.flops() < groups.flops()
        assert groups.parameters(kept) == again.parameters() < groups.parameters()

    @pytest.mark.parametrize(
        "name",
        [
            "densenet",
            pytest.param("lenet", marks=pytest.mark.slow),
            pytest.param("equinox_cnn", marks=pytest.mark.slow),
        ],
    )
    def test_go_on_training_with_their_state(self, name):
        case, groups, kept, small = shrunk_case(name)
        tx = optax.adam(1e-2)
        trained = _floats(case.params)
        state = tx.init(trained)
        _, state = tx.update(jax.tree.map(jnp.ones_like, trained), state)
        state = swd_jax.channels.shrink_state(state, groups, kept)
        smaller = _floats(small.params)
        assert jax.tree.map(jnp.shape, state) == jax.tree.map(
            jnp.shape, tx.init(smaller)
        )
        updates, _ = jax.jit(tx.update)(jax.tree.map(jnp.zeros_like, smaller), state)
        changed = optax.apply_updates(smaller, updates)
        # Momentum that was there moves all weights.
        for before, after in zip(
            jax.tree.leaves(smaller), jax.tree.leaves(changed), strict=True
        ):
            assert (before != after).all()

    @pytest.mark.parametrize("name", OPERATIONS)
    def test_of_all_kinds_of_operations_agree(self, name):
        apply, shapes, x, _ = OPERATIONS[name]
        params = {
            key: jnp.asarray(np.random.default_rng(i).normal(size=shape), jnp.float32)
            for i, (key, shape) in enumerate(shapes.items())
        }
        x = jnp.asarray(np.random.default_rng(9).uniform(0.5, 2, size=x), jnp.float32)
        groups = swd_jax.channels.channel_groups(apply, params, x)
        kept = some_kept(groups)
        small = swd_jax.channels.shrink(apply, params, groups, kept, x)
        whole = masked(params, gone(groups, kept))
        agree(
            quickly.jit(small.apply)(small.params, x),
            quickly.jit(apply)(whole, x),
        )


def _floats(tree):
    return {path: leaf for path, leaf in by_path(tree).items() if is_float(leaf)}


def x_like(h):
    return jnp.ones((*h.shape[:2], 6)) / 6


def swapped(h):
    return h.swapaxes(0, 1)


def zeros_like(h):
    return jnp.zeros((*h.shape[:2], 2))


def linear_groups():
    return swd_jax.channels.channel_groups(linear, LINEAR, X)


class TestKept:
    def test_may_be_a_mask_of_which_whole_channels_are_false(self):
        params = {"first": random(6, 5), "second": random(5, 2)}
        mask = {
            "first": jnp.ones((6, 5), bool).at[:, jnp.array([1, 3])].set(False),
            "second": jnp.ones((5, 2), bool).at[jnp.array([1, 2])].set(False),
        }
        small = swd_jax.channels.shrink(linear, params, linear_groups(), mask, X)
        # Only channel 1 is False on both sides.
        assert small.kept[0].tolist() == [True, False, True, True, True]
        masked_params = jax.tree.map(lambda w, m: w * m, params, mask)
        cut_params = jax.tree.map(
            lambda w, m: w * m,
            small.params,
            {
                "first": np.delete(mask["first"], 1, 1),
                "second": np.delete(mask["second"], 1, 0),
            },
        )
        agree(small.apply(cut_params, X), linear(masked_params, X))

    def test_may_be_pruned_parameters_themselves(self):
        params = {
            "first": LINEAR["first"].at[:, 4].set(0),
            "second": LINEAR["second"].at[4].set(0),
        }
        small = swd_jax.channels.shrink(linear, params, linear_groups(), params, X)
        assert small.shapes == {"first": (6, 4), "second": (4, 2)}

    def test_may_be_named(self):
        kept = {"first": [True, True, False, False, False]}
        small = swd_jax.channels.shrink(linear, LINEAR, linear_groups(), kept, X)
        assert small.shapes["first"] == (6, 2)

    def test_is_rounded_up_with_the_best_of_the_others(self):
        kept = [[False, True, False, False, False]]
        groups = linear_groups()
        small = swd_jax.channels.shrink(linear, LINEAR, groups, kept, X, multiple_of=2)
        assert small.kept[0].tolist() == [True, True, False, False, False]
        scores = [[0.1, 0.0, 0.3, 0.2, 0.5]]
        small = swd_jax.channels.shrink(
            linear, LINEAR, groups, kept, X, multiple_of=3, scores=scores
        )
        assert small.kept[0].tolist() == [False, True, True, False, True]
        # There are no more than 5.
        small = swd_jax.channels.shrink(linear, LINEAR, groups, kept, X, multiple_of=8)
        assert small.kept[0].all()

    def test_is_rounded_to_positions_not_to_heads(self):
        case = CASES["gpt"]()
        groups = swd_jax.channels.channel_groups(case.apply, case.params, case.inputs)
        kept = [np.arange(3) < 1, np.arange(16) < 3]
        small = swd_jax.channels.shrink(
            case.apply, case.params, groups, kept, case.inputs, multiple_of=8
        )
        # A head has 4 positions: 2 heads are 8.
        assert small.shapes["params/out/kernel"] == (8, 12)
        assert small.shapes["params/up/kernel"] == (12, 8)


class TestModules:
    def test_of_flax_know_their_sizes(self):
        _, _, kept, small = shrunk_case("mobilenet")
        inner = int(kept[2].sum())
        block = small.params.blocks[1]
        assert block.filter.conv.feature_group_count == inner
        assert block.filter.conv.in_features == block.filter.conv.out_features == inner
        assert block.filter.conv.kernel_shape == (3, 3, 1, inner)
        assert block.expand.norm.num_features == inner
        assert small.params.dense.in_features == int(kept[3].sum())

    def test_of_flax_have_fewer_heads(self):
        _, _, kept, small = shrunk_case("nnx_attention")
        attention = small.params.attention
        assert attention.num_heads == int(kept[0].sum())
        assert attention.query.out_features == (attention.num_heads, 4)
        assert attention.out.in_features == (attention.num_heads, 4)

    def test_of_equinox_know_their_sizes(self):
        _, _, kept, small = shrunk_case("equinox_cnn")
        maps = 2 * int(kept[0].sum())
        conv, norm, _, depthwise, *_, dense, _, last = small.params.layers
        assert conv.out_channels == norm.channels == maps
        assert norm.groups == int(kept[0].sum())
        assert depthwise.groups == depthwise.in_channels == maps
        assert dense.in_features == 4 * maps
        assert last.in_features == dense.out_features == int(kept[1].sum())

    def test_of_flax_of_many_kinds_know_their_sizes(self):
        class Layers(nnx.Module):
            def __init__(self, rngs):
                self.table = nnx.Embed(9, 6, rngs=rngs)
                self.general = nnx.LinearGeneral(6, (5,), rngs=rngs)
                self.product = nnx.Einsum("bi,io->bo", (5, 4), (4,), rngs=rngs)
                self.norm = nnx.GroupNorm(4, num_groups=2, rngs=rngs)
                self.up = nnx.ConvTranspose(4, 3, (2, 2), strides=2, rngs=rngs)
                self.out = nnx.Linear(3, 2, rngs=rngs)

            def __call__(self, x):
                x = jax.nn.relu(self.general(self.table(x)))
                x = self.norm(self.product(x))[:, None, None]
                return self.out(jax.nn.relu(self.up(x)).mean((1, 2)))

        model, x = Layers(nnx.Rngs(0)), jnp.arange(3)
        groups = swd_jax.channels.channel_groups(lambda m, x: m(x), model, x)
        kept = {"table": [1, 0, 1, 1, 0, 1], "general": [0, 1, 1, 0, 0]}
        kept |= {"product": [0, 1], "up": [1, 0, 1]}
        kept = {
            next(g.name for g in groups if g.name.startswith(name)): np.bool_(vector)
            for name, vector in kept.items()
        }
        small = swd_jax.channels.shrink(
            lambda m, x: m(x), model, groups, kept, x
        ).params
        assert (small.table.num_embeddings, small.table.features) == (9, 4)
        assert small.general.in_features == (4,)
        assert small.general.out_features == (2,)
        assert (small.product.kernel_shape, small.product.bias_shape) == ((2, 2), (2,))
        assert small.norm.num_groups == 1
        assert (small.up.in_features, small.up.out_features) == (2, 2)
        assert small.up.kernel_shape == (2, 2, 2, 2)
        assert small.out.in_features == 2
        whole = masked(model, gone(groups, [kept[group.name] for group in groups]))
        agree(small(x), whole(x))

    def test_of_equinox_of_other_kinds_know_their_sizes(self):
        keys = jax.random.split(jax.random.key(0), 2)
        model = [equinox.nn.Embedding(9, 6, key=keys[0])]
        model.append(equinox.nn.Linear(6, 2, key=keys[1]))

        def apply(model, x):
            return jax.vmap(lambda token: model[1](model[0](token)))(x)

        groups = swd_jax.channels.channel_groups(apply, model, jnp.arange(4))
        kept = [np.array([True, False, True, True, False, False])]
        small = swd_jax.channels.shrink(
            apply, model, groups, kept, jnp.arange(4)
        ).params
        assert (small[0].num_embeddings, small[0].embedding_size) == (9, 3)
        assert small[1].in_features == 3
        agree(
            apply(small, jnp.arange(9)),
            apply(masked(model, gone(groups, kept)), jnp.arange(9)),
        )

    def test_stay_as_they_are_themselves(self):
        model = nnx.Sequential(
            nnx.Linear(4, 6, rngs=nnx.Rngs(0)), nnx.Linear(6, 3, rngs=nnx.Rngs(1))
        )
        groups = swd_jax.channels.channel_groups(
            lambda m, x: m(x), model, jnp.ones((2, 4))
        )
        small = swd_jax.channels.shrink_module(model, groups, [[True, False] * 3])
        assert model.layers[0].out_features == 6
        assert model.layers[0].kernel.shape == (4, 6)
        assert small(jnp.ones((2, 4))).shape == (2, 3)

    def test_share_what_they_shared(self):
        class Twice(nnx.Module):
            def __init__(self, rngs):
                self.into = nnx.Linear(4, 6, rngs=rngs)
                self.inner = nnx.Linear(6, 6, rngs=rngs)
                self.again = self.inner
                self.out = nnx.Linear(6, 2, rngs=rngs)

            def __call__(self, x):
                return self.out(self.again(jax.nn.relu(self.inner(self.into(x)))))

        model = Twice(nnx.Rngs(0))
        groups = swd_jax.channels.channel_groups(
            lambda m, x: m(x), model, jnp.ones((2, 4))
        )
        small = swd_jax.channels.shrink_module(model, groups, [np.arange(6) < 2])
        assert small.inner is small.again
        assert small.inner.kernel.shape == (2, 2)

    def test_get_the_sizes_of_their_own_without_being_told(self):
        case = CASES["resnet_with_padding"]()
        groups = swd_jax.channels.channel_groups(case.apply, case.params, case.inputs)
        kept = {
            group.name: vector
            for group, vector in zip(groups, some_kept(groups), strict=True)
        }
        small = swd_jax.channels.shrink(
            case.apply, case.params, groups, kept, case.inputs
        )
        assert small.sizes == {
            path: kept[group].sum() for path, group in case.attributes.items()
        }

    def test_that_compute_a_constant_from_a_size_are_found_out(self):
        class Scaled(nnx.Module):
            def __init__(self, rngs):
                self.first = nnx.Linear(4, 6, rngs=rngs)
                self.second = nnx.Linear(6, 2, rngs=rngs)

            def __call__(self, x):
                x = self.first(x)
                return self.second(x / x.shape[-1])

        model, x = Scaled(nnx.Rngs(0)), jnp.ones((2, 4))
        call = lambda m, x: m(x)
        groups = swd_jax.channels.channel_groups(call, model, x)
        with pytest.raises(ValueError, match="does not compute what the cut model"):
            swd_jax.channels.shrink(call, model, groups, [[True, False] * 3], x)
        # The traced program divides by 6 as before, without the module.
        graph, state = nnx.split(model)
        apply = lambda s, x: nnx.merge(graph, s)(x)
        groups = swd_jax.channels.channel_groups(apply, state, x)
        small = swd_jax.channels.shrink(apply, state, groups, [[True, False] * 3], x)
        wanted = apply(masked(state, gone(groups, small.kept)), x)
        agree(small.apply(small.params, x), wanted)

    def test_have_the_attributes_that_are_named(self):
        model = nnx.Sequential(
            nnx.Linear(4, 6, rngs=nnx.Rngs(0)), nnx.Linear(6, 3, rngs=nnx.Rngs(1))
        )
        groups = swd_jax.channels.channel_groups(
            lambda m, x: m(x), model, jnp.ones((2, 4))
        )
        with pytest.raises(ValueError, match="attributes names 'layers/0/heads'"):
            swd_jax.channels.shrink_module(
                model, groups, [[True] * 6], attributes={"layers/0/heads": 3}
            )


class TestStates:
    def test_of_chains_are_cut_where_parameters_are(self):
        groups = linear_groups()
        tx = optax.chain(
            optax.trace(0.9), optax.ema(0.9), optax.masked(optax.scale_by_adam(), True)
        )
        small = swd_jax.channels.shrink_state(
            tx.init(LINEAR), groups, [np.arange(5) < 2]
        )
        shapes = {leaf.shape for leaf in jax.tree.leaves(small)}
        assert shapes == {(6, 2), (2, 2), ()}

    def test_of_parameters_inside_of_variables(self):
        # The optimizer has seen "params" only, the groups all variables.
        case = CASES["densenet"]()
        groups = swd_jax.channels.channel_groups(case.apply, case.params, case.inputs)
        state = optax.adam(1e-3).init(case.params["params"])
        kept = some_kept(groups)
        small = swd_jax.channels.shrink_state(state, groups, kept)
        assert small[0].mu["Conv_0"]["kernel"].shape == (3, 3, 3, int(kept[0].sum()))
        assert small[0].nu["Dense_0"]["kernel"].shape == (sum(k.sum() for k in kept), 3)


class TestFunction:
    def test_is_an_ordinary_one(self):
        small = swd_jax.channels.shrink(
            linear, LINEAR, linear_groups(), [np.arange(5) < 2], X
        )
        exported = jax.export.export(jax.jit(small.apply))(small.params, X)
        agree(exported.call(small.params, X), np.full((3, 2), 12.0))
        batch = jax.vmap(small.apply, (None, 0))(small.params, X[:, None])
        agree(batch[:, 0], np.full((3, 2), 12.0))

    def test_has_the_derivative_of_relu_at_zero(self):
        params = {"first": jnp.zeros((6, 5)), "second": jnp.ones((5, 2))}
        small = swd_jax.channels.shrink(
            linear, params, linear_groups(), [np.arange(5) < 2], X
        )
        gradient = jax.grad(lambda p: small.apply(p, X).sum())(small.params)
        assert not gradient["first"].any()

    def test_takes_and_gives_trees(self):
        def apply(params, batch, *, scale=2.0):
            h = jax.nn.relu(batch["x"] @ params["first"])
            return {"y": h @ params["second"] * scale, "mask": batch["flag"]}

        batch = {"x": X, "flag": None}
        groups = swd_jax.channels.channel_groups(apply, LINEAR, batch)
        small = swd_jax.channels.shrink(
            apply, LINEAR, groups, [np.arange(5) < 2], batch
        )
        out = small.apply(small.params, batch)
        agree(out["y"], np.full((3, 2), 24.0))
        assert out["mask"] is None

    def test_takes_a_batch_of_one_after_a_trace_with_two(self):
        recurrent = {"in": random(6, 5), "h": random(5, 5), "out": random(5, 2)}

        def apply(params, x):
            def step(h, y):
                return jnp.tanh(y @ params["in"] + h @ params["h"]), None

            start = jnp.zeros((x.shape[1], 5))
            return jax.lax.scan(step, start, x)[0] @ params["out"]

        x = random(4, 3, 6)
        groups = swd_jax.channels.channel_groups(apply, recurrent, x[:, :2])
        kept = [np.arange(5) < 3]
        small = swd_jax.channels.shrink(apply, recurrent, groups, kept, x[:, :2])
        # The smaller recurrence, by hand.
        cut = {
            "in": recurrent["in"][:, :3],
            "h": recurrent["h"][:3, :3],
            "out": recurrent["out"][:3],
        }
        for batch in (1, 2, 3):
            h = np.zeros((batch, 3))
            for y in np.asarray(x[:, :batch]):
                h = np.tanh(y @ cut["in"] + h @ cut["h"])
            out = small.apply(small.params, x[:, :batch])
            assert out.shape == (batch, 2)
            agree(out, h @ cut["out"])

    def test_takes_more_than_the_batch_of_one_that_it_was_traced_with(self):
        def apply(params, x):
            # The mean over the batch is a reshape where the batch is 1.
            h = jax.nn.relu(x @ params["first"]) - x.mean(0, keepdims=True)[:, :1]
            return h @ params["second"]

        params = {"first": random(6, 5), "second": random(5, 2)}
        groups = swd_jax.channels.channel_groups(apply, params, X[:1])
        kept = [np.arange(5) < 2]
        small = swd_jax.channels.shrink(apply, params, groups, kept, X[:1])
        cut = {"first": params["first"][:, :2], "second": params["second"][:2]}
        x = random(3, 6)
        agree(small.apply(small.params, x), apply(cut, x))

    def test_takes_other_dtypes(self):
        small = swd_jax.channels.shrink(
            linear, LINEAR, linear_groups(), [np.arange(5) < 2], X
        )
        half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), small.params)
        out = small.apply(half, X.astype(jnp.bfloat16))
        assert out.dtype == jnp.bfloat16
        agree(out.astype(jnp.float32), np.full((3, 2), 12.0))

    def test_does_not_take_a_batch_for_which_other_channels_are_coupled(self):
        def apply(params, x):
            h = x @ params["first"]
            # The softmax reduces over the channels of all but a single example.
            h = jax.nn.softmax(h) if len(x) > 1 else h
            return h @ params["second"]

        groups = swd_jax.channels.channel_groups(apply, LINEAR, X[:1])
        small = swd_jax.channels.shrink(
            apply, LINEAR, groups, [np.arange(5) < 2], X[:1]
        )
        message = (
            r"traced with .*float32\[1, 6\].*not take float32\[3, 6\].*reduced over"
        )
        with pytest.raises(ValueError, match=message):
            small.apply(small.params, X)

    @pytest.mark.parametrize(
        "operation",
        [
            lambda h, p: jax.nn.relu(h + p["bias"]),
            lambda h, p: (
                h.swapaxes(0, 1).reshape(-1, 6).reshape(3, -1, 6).swapaxes(0, 1)
            ),
            lambda h, p: jnp.concatenate([h, jnp.zeros((h.shape[0], 3, 2))], -1)[
                ..., :6
            ],
            lambda h, p: jnp.pad(h, ((0, 0), (1, 0), (0, 0)))[:, 1:],
            lambda h, p: h - h.mean(0, keepdims=True),
            lambda h, p: h * jnp.arange(h.shape[0])[:, None, None],
            lambda h, p: jax.lax.scan(
                lambda c, y: (c + y, c), jnp.zeros((h.shape[0], 6)), h.swapaxes(0, 1)
            )[1].swapaxes(0, 1),
            lambda h, p: jnp.where(jnp.arange(3)[:, None] > 0, h, 0),
            lambda h, p: convolve(h[:, None], p["kernel"])[:, 0],
            lambda h, p: jax.lax.reduce_window(
                h, -jnp.inf, jax.lax.max, (1, 2, 1), (1, 1, 1), "SAME"
            ),
            lambda h, p: jnp.take_along_axis(
                h, jnp.zeros((h.shape[0], 3, 1), int), 1, mode="clip"
            ),
            lambda h, p: h.at[:, 0].set(0),
            lambda h, p: jax.lax.dynamic_update_slice_in_dim(h, h[:, :1], 1, 1),
            lambda h, p: jnp.cumsum(jnp.sort(h, 1), 1),
            lambda h, p: jnp.stack(jnp.unstack(h, axis=1), 1),
            lambda h, p: jax.lax.cond(h.sum() > 0, lambda h: h, lambda h: -h, h),
            lambda h, p: jax.nn.softmax(h @ h.swapaxes(1, 2)) @ x_like(h),
        ],
    )
    def test_is_exported_with_a_symbolic_batch(self, operation):
        def apply(params, x):
            return jax.nn.relu(operation(x @ params["first"], params)) @ params["out"]

        params = {"first": random(4, 6), "out": random(6, 2), "bias": random(6)}
        params["kernel"] = random(1, 1, 6, 6)
        x = random(5, 3, 4)
        groups = swd_jax.channels.channel_groups(apply, params, x[:2])
        kept = some_kept(groups)
        small = swd_jax.channels.shrink(apply, params, groups, kept, x[:2])
        (batch,) = jax.export.symbolic_shape("batch")
        shape = jax.ShapeDtypeStruct((batch, 3, 4), jnp.float32)
        exported = jax.export.export(jax.jit(small.apply))(small.params, shape)
        whole = masked(params, gone(groups, kept))
        agree(exported.call(small.params, x), apply(whole, x))

    def test_of_shapes_gives_shapes(self):
        shapes = jax.eval_shape(lambda: LINEAR)
        x = jax.ShapeDtypeStruct((3, 6), jnp.float32)
        groups = swd_jax.channels.channel_groups(linear, shapes, x)
        small = swd_jax.channels.shrink(linear, shapes, groups, [np.arange(5) < 2], x)
        assert small.params["first"].shape == (6, 2)
        assert jax.eval_shape(small.apply, small.params, x).shape == (3, 2)


class TestChecks:
    @staticmethod
    def scaled(params, x):
        """A batch norm's scale and bias, and an output that is NaN below 0."""
        h = (x @ params["first"]) * params["scale"][None] + params["bias"][None]
        return {"y": jax.nn.relu(h) @ params["second"], "log": jnp.log(x)}

    @staticmethod
    def without_norm(params, x):
        outputs = TestChecks.scaled(params, x)
        more = jax.nn.relu(x @ params["first"]) @ params["second"]
        return outputs | {"y": outputs["y"] + more}

    def shrink(self, apply):
        params = {"first": random(6, 5), "second": random(5, 2)}
        params |= {"scale": jnp.ones(5), "bias": jnp.ones(5)}
        groups = swd_jax.channels.channel_groups(apply, params, X)
        mask = jax.tree.map(lambda leaf: np.ones(leaf.shape, bool), params)
        mask["scale"][2] = mask["bias"][2] = False
        return swd_jax.channels.shrink(apply, params, groups, mask, X)

    def test_accept_nan_where_the_whole_model_has_it(self):
        assert self.shrink(self.scaled).shapes["first"] == (6, 4)

    def test_find_a_difference_beside_nan(self):
        with pytest.raises(ValueError, match="zeros for the scales and biases"):
            self.shrink(self.without_norm)

    @pytest.mark.parametrize(
        ("expected", "output", "close"),
        [
            ([1.0, np.nan], [1.0005, np.nan], True),
            ([1.0, np.nan], [1.002, np.nan], False),
            ([1.0, np.nan], [1.0, 0.0], False),
            ([1.0, 0.0], [1.0, np.nan], False),
            ([1.0, np.inf], [1.0, np.inf], True),
            ([1.0, np.inf], [1.0, -np.inf], False),
            ([1.0, np.inf], [2.0, np.inf], False),
            ([1e-3, 1.0], [0.0, 1.0], True),
            ([1.0], [1.0, 1.0], False),
        ],
    )
    def test_compare_with_the_largest_finite_output(self, expected, output, close):
        assert shrink_checks.is_close(expected, output) is close


class TestErrors:
    def test_two_arrays_with_one_path(self):
        params = {"a/b": {"c": random(6, 5)}, "a": {"b/c": random(5, 2)}}
        small = swd_jax.channels.shrink(
            linear, LINEAR, linear_groups(), [np.arange(5) < 2], X
        )
        for function in (
            lambda: swd_jax.channels.shrink(
                linear, params, linear_groups(), [np.arange(5) < 2], X
            ),
            lambda: swd_jax.channels.shrink(linear, LINEAR, linear_groups(), params, X),
            lambda: small.apply(params, X),
        ):
            with pytest.raises(ValueError, match="two arrays with the path 'a/b/c'"):
                function()

    def test_a_mask_that_empties_a_layer(self):
        with pytest.raises(ValueError, match="leaves nothing of 'first' along axis 1"):
            swd_jax.channels.shrink(
                linear, LINEAR, linear_groups(), [np.zeros(5, bool)], X
            )

    def test_groups_of_another_model(self):
        other = {"first": jnp.ones((6, 4)), "second": jnp.ones((4, 2))}
        with pytest.raises(ValueError, match="groups do not fit params: at 'first'"):
            swd_jax.channels.shrink(linear, other, linear_groups(), [[True] * 5], X)

    def test_groups_of_another_function(self):
        square = {"first": jnp.ones((6, 6)), "second": jnp.ones((6, 6))}
        groups = swd_jax.channels.channel_groups(linear, square, X)
        other = lambda p, x: linear({"first": p["second"], "second": p["first"]}, x)
        with pytest.raises(ValueError, match="couples other channels"):
            swd_jax.channels.shrink(other, square, groups, [np.arange(6) < 2], X)

    @pytest.mark.parametrize(
        "kept",
        [[], [[True] * 4], {"first": [1, 2]}, 3, {"third": jnp.ones(3)}],
        ids=["none", "short", "numbers", "number", "unknown"],
    )
    def test_what_is_neither_vectors_nor_a_mask(self, kept):
        with pytest.raises(ValueError, match="kept"):
            swd_jax.channels.shrink(linear, LINEAR, linear_groups(), kept, X)

    def test_a_mask_of_another_shape(self):
        mask = {"first": np.ones((6, 4), bool), "second": np.ones((5, 2), bool)}
        with pytest.raises(ValueError, match=r"mask of shape \(6, 4\) at 'first'"):
            swd_jax.channels.shrink(linear, LINEAR, linear_groups(), mask, X)

    @pytest.mark.parametrize("multiple_of", [0, -1, 1.5])
    def test_multiples_of_no_positive_integer(self, multiple_of):
        with pytest.raises(ValueError, match="multiple_of must be"):
            swd_jax.channels.shrink(
                linear,
                LINEAR,
                linear_groups(),
                [[True] * 5],
                X,
                multiple_of=multiple_of,
            )

    def test_too_few_scores(self):
        with pytest.raises(ValueError, match="scores must have"):
            swd_jax.channels.shrink(
                linear,
                LINEAR,
                linear_groups(),
                [[True] * 5],
                X,
                multiple_of=2,
                scores=[],
            )

    def test_parameters_of_the_whole_model(self):
        small = swd_jax.channels.shrink(
            linear, LINEAR, linear_groups(), [np.arange(5) < 2], X
        )
        with pytest.raises(ValueError, match=r"at 'first' it has \(6, 2\)"):
            small.apply(LINEAR, X)

    def test_another_argument_that_is_no_array(self):
        def apply(params, x, name):
            return linear(params, x)

        groups = swd_jax.channels.channel_groups(apply, LINEAR, X, "a")
        small = swd_jax.channels.shrink(
            apply, LINEAR, groups, [np.arange(5) < 2], X, "a"
        )
        with pytest.raises(ValueError, match="'a' as an argument"):
            small.apply(small.params, X, "b")
        with pytest.raises(ValueError, match="same containers"):
            small.apply(small.params, X)

    def test_shapes_that_the_program_does_not_take(self):
        def apply(params, x):
            return jnp.fft.fft(linear(params, x), axis=0).real.reshape(6)

        groups = swd_jax.channels.channel_groups(apply, LINEAR, X)
        small = swd_jax.channels.shrink(apply, LINEAR, groups, [np.arange(5) < 2], X)
        with pytest.raises(ValueError, match="traced with arguments of the shapes"):
            small.apply(small.params, jnp.ones((2, 7)))
