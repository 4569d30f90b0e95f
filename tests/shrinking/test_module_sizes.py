"""Sizes that modules keep beside their arrays, after the cut."""

import dataclasses

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import swd_jax
from tests.shrinking.test_shrink import agree, gone, masked

KEY = jax.random.key(0)


def call(model, x):
    return model(x)


def call_each(model, x):
    return jax.vmap(model)(x)


def shrink_and_compare(apply, model, x, *kept):
    """The smaller model, which computes what the whole one with zeros does."""
    groups = swd_jax.channels.channel_groups(apply, model, x)
    kept = list(map(np.bool_, kept))
    small = swd_jax.channels.shrink(apply, model, groups, kept, x)
    agree(apply(small.params, x), apply(masked(model, gone(groups, kept)), x))
    return small


def shrink_module(apply, model, x, *kept):
    groups = swd_jax.channels.channel_groups(apply, model, x)
    return swd_jax.channels.shrink_module(model, groups, list(map(np.bool_, kept)))


class TestOfRecurrentCells:
    @pytest.mark.parametrize(
        "cell",
        [nnx.GRUCell, nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.SimpleCell],
        ids=lambda cell: cell.__name__,
    )
    def test_of_flax(self, cell):
        rngs = nnx.Rngs(0)
        rnn = nnx.RNN(cell(3, 4, rngs=rngs))
        model = nnx.Sequential(rnn, nnx.Linear(4, 2, rngs=rngs))
        small = shrink_module(call, model, jnp.ones((2, 5, 3)), [1, 0, 0, 1])
        assert small.layers[0].cell.hidden_features == 2
        assert small.layers[0].cell.in_features == 3

    @pytest.mark.parametrize("cell", [equinox.nn.GRUCell, equinox.nn.LSTMCell])
    def test_of_equinox(self, cell):
        model = {"cell": cell(3, 4, key=KEY), "out": equinox.nn.Linear(4, 2, key=KEY)}

        def apply(model, x):
            state = jnp.zeros(model["cell"].hidden_size)
            is_lstm = cell is equinox.nn.LSTMCell
            start = (state, state) if is_lstm else state
            step = lambda state, x: (model["cell"](x, state), None)
            end, _ = jax.lax.scan(step, start, x)
            return model["out"](end[0] if is_lstm else end)

        small = shrink_module(apply, model, jnp.ones((5, 3)), [1, 0, 0, 1])
        assert small["cell"].hidden_size == 2
        assert small["cell"].input_size == 3


class TestOfGroupNormsWithoutParameters:
    # Two groups of two channels each: the first group goes, or the second.
    def test_of_flax(self):
        rngs = nnx.Rngs(0)
        norm = {"num_groups": 2, "use_scale": False, "use_bias": False, "rngs": rngs}
        model = nnx.Sequential(
            nnx.Linear(3, 4, rngs=rngs),
            nnx.GroupNorm(4, **norm),
            nnx.Linear(4, 6, rngs=rngs),
            nnx.GroupNorm(6, **{**norm, "num_groups": 3}),
            nnx.Linear(6, 2, rngs=rngs),
        )
        x = jax.random.normal(KEY, (3, 3))
        small = shrink_and_compare(call, model, x, [0, 1], [1, 0, 1])
        assert small.sizes == {"layers/1/num_groups": 1, "layers/3/num_groups": 2}

    def test_of_equinox(self):
        model = equinox.nn.Sequential(
            [
                equinox.nn.Linear(3, 4, key=KEY),
                equinox.nn.GroupNorm(2, 4, channelwise_affine=False),
                equinox.nn.Linear(4, 2, key=KEY),
            ]
        )
        small = shrink_module(call_each, model, jnp.ones((3, 3)), [0, 1])
        assert (small.layers[1].groups, small.layers[1].channels) == (1, 2)


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: int
    rates: tuple[int, ...] = (5, 7)


class Block(nnx.Module):
    """Its hidden layer is given its size by a configuration."""

    def __init__(self, config, rngs):
        self.config = config
        self.up = nnx.Linear(3, config.hidden, rngs=rngs)
        self.down = nnx.Linear(config.hidden, 3, rngs=rngs)

    def __call__(self, x):
        h = jax.nn.relu(self.up(x)).reshape(-1, self.config.hidden)
        return x + self.down(h)


class GroupedQueries(equinox.Module):
    """An attention in which two heads of queries share keys and values."""

    query: jax.Array
    key: jax.Array
    out: jax.Array
    heads: int = equinox.field(static=True)
    key_heads: int = equinox.field(static=True)
    size: int = equinox.field(static=True)

    def __call__(self, x):
        grouped = (len(x), self.key_heads, self.heads // self.key_heads, self.size)
        query = (x @ self.query).reshape(grouped)
        key = (x @ self.key).reshape(len(x), self.key_heads, self.size)
        weights = jax.nn.softmax(jnp.einsum("tkgd,skd->kgts", query, key))
        values = jnp.einsum("kgts,skd->tkgd", weights, key)
        return values.reshape(len(x), self.heads * self.size) @ self.out


class TestOfModulesOfYourOwn:
    def test_in_a_configuration_that_blocks_share(self):
        rngs, config = nnx.Rngs(0), Config(5)
        model = nnx.Sequential(Block(config, rngs), Block(config, rngs))
        x = jax.random.normal(KEY, (2, 3))
        small = shrink_and_compare(call, model, x, [1, 0, 1, 1, 0], [0, 0, 0, 1, 1])
        configs = [block.config for block in small.params.layers]
        # 5 is a rate too, which is not what stops the model.
        assert configs == [Config(3), Config(2)]
        assert small.sizes == {
            "layers/0/config/hidden": 3,
            "layers/1/config/hidden": 2,
        }
        assert model.layers[0].config == Config(5)

    def test_of_heads_that_share_keys(self):
        arrays = [jax.random.normal(KEY, s) for s in ((4, 12), (4, 6), (12, 2))]
        model = GroupedQueries(*arrays, heads=4, key_heads=2, size=3)
        x = jax.random.normal(KEY, (5, 4))
        small = shrink_module(call, model, x, [0, 1])
        assert (small.heads, small.key_heads, small.size) == (2, 1, 3)

    def test_are_left_where_they_need_not_change(self):
        model = nnx.Sequential(
            nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.Linear(4, 2, rngs=nnx.Rngs(1))
        )
        model.classes = 4
        small = shrink_module(call, model, jnp.ones((2, 3)), [1, 0, 0, 1])
        assert small.classes == 4

    def test_that_do_not_help_are_named_with_the_line(self):
        class Fixed(Block):
            def __call__(self, x):
                return self.down(self.up(x) + jnp.ones((1, 5)))

        model = Fixed(Config(5), nnx.Rngs(0))
        with pytest.raises(
            ValueError, match=r"ones\(\(1, 5\)\).*'config/hidden', 'config/rates/0'"
        ):
            shrink_module(call, model, jnp.ones((2, 3)), [1, 0, 1, 0, 0])


class TestOfStackedLayers:
    @pytest.mark.parametrize("axis", [0, 1])
    def test_of_flax(self, axis):
        class Layer(nnx.Module):
            def __init__(self, rngs):
                self.up = nnx.Linear(4, 5, rngs=rngs)
                self.down = nnx.Linear(5, 4, rngs=rngs)
                self.attention = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)

            def __call__(self, x):
                return self.down(jax.nn.relu(self.up(x + self.attention(x))))

        layers = nnx.split_rngs(splits=4)(nnx.vmap(Layer, in_axes=(0,), out_axes=axis))(
            nnx.Rngs(0)
        )

        def apply(layers, x):
            scan = nnx.scan(call, in_axes=(axis, nnx.Carry), out_axes=nnx.Carry)
            return scan(layers, x)

        x = jax.random.normal(KEY, (1, 2, 4))
        small = shrink_module(apply, layers, x, [0, 1], [1, 0, 1, 0, 1])
        assert (small.up.in_features, small.up.out_features) == (4, 3)
        assert (small.down.in_features, small.down.out_features) == (3, 4)
        assert small.up.kernel.shape == ((4, 4, 3), (4, 4, 3))[axis]
        assert (small.attention.num_heads, small.attention.head_dim) == (1, 2)
        assert small.attention.query.out_features == (1, 2)

    def test_of_equinox(self):
        def make(key):
            return equinox.nn.MLP(4, 4, 5, 1, key=key)

        layers = equinox.filter_vmap(make)(jax.random.split(KEY, 3))

        def apply(layers, x):
            arrays, rest = equinox.partition(layers, equinox.is_array)
            step = lambda h, array: (equinox.combine(array, rest)(h), None)
            return jax.lax.scan(step, x, arrays)[0]

        small = shrink_and_compare(apply, layers, jnp.ones(4), [1, 0, 1, 0, 1]).params
        first, last = small.layers
        assert (first.in_features, first.out_features) == (4, 3)
        assert (last.in_features, last.out_features) == (3, 4)
        assert small.width_size == 3

    def test_of_your_own_whose_wrong_size_would_go_unnoticed(self):
        # 2 of 4 heads stay, with 4 numbers: 4 heads of one number would do as well.
        class Heads(equinox.Module):
            into: equinox.nn.Linear
            out: equinox.nn.Linear
            heads: int = equinox.field(static=True)

            def __call__(self, x):
                h = self.into(x).reshape(self.heads, -1)
                largest = jnp.abs(h).max(1, keepdims=True)
                return self.out((h / (largest + 0.1)).ravel())

        def make(key):
            into = equinox.nn.Linear(3, 8, key=key)
            return Heads(into, equinox.nn.Linear(8, 3, key=key), heads=4)

        layers = equinox.filter_vmap(make)(jax.random.split(KEY, 2))

        def apply(layers, x):
            arrays, rest = equinox.partition(layers, equinox.is_array)
            step = lambda h, array: (equinox.combine(array, rest)(h), None)
            return jax.lax.scan(step, x, arrays)[0]

        assert shrink_module(apply, layers, jnp.ones(3), [1, 0, 0, 1]).heads == 2
