"""`is_weight`: the default choice of leaves, in every framework."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import swd_jax
from swd_jax._allocation import prunable_leaves
from swd_jax._arrays import tree_paths

KEY = jax.random.key(0)


def prunable_paths(params, prunable=swd_jax.is_weight) -> list[str]:
    leaves = prunable_leaves.find_prunable(prunable, tree_paths.flatten(params), params)
    return [leaf.path for leaf in leaves]


@pytest.mark.parametrize(
    ("path", "ndim"),
    [
        ("Dense_0/kernel", 2),
        ("Conv_0/kernel", 4),
        ("Embed_0/embedding", 2),
        ("layers/0/weight", 2),
        ("mlp/~/linear_0/w", 2),
        ("lstm/hf/kernel", 2),
        ("0", 2),
        ("", 2),  # a bare array
        ("norm_conv/kernel", 4),  # a kernel, whatever its layer is called
        ("normal/weight", 2),  # words count, not their beginnings
        ("abnormal/weight", 2),
        ("subscale_0/kernel", 2),
        ("upscale/kernel", 4),  # the last key counts, not the ones before
        ("debiased", 2),
        ("bn_conv1x", 2),
    ],
)
def test_weights_are_known_by_their_dimensions_and_names(path, ndim):
    assert swd_jax.is_weight(path, np.zeros((2,) * ndim))


@pytest.mark.parametrize(
    "path",
    [
        "Dense_0/bias",
        "attention/query/bias",
        "LayerNorm_0/scale",
        "lstm/hidden_bias",
        "linear/b",
        "group_norm/offset",
        "layer_norm/gamma",
        "layer_norm/beta",
        "dense/g",
        "dense/kernel_scale",
        "block/biases",
        "block/outputBias",
        "norm/weight",
        "norm1/weight",
        "layers/0/norm2/weight",
        "layer_norm/w",
        "LayerNorm_0/weight",
        "batchnorm/weight",
        "bn1/weight",
        "ln_f/weight",
        "norms/0/weight",  # the number is not the layer's name
        "q_norm/weight",
        "Normalization_0/weight",
    ],
)
def test_biases_and_scales_are_known_by_their_names_in_any_number_of_dimensions(path):
    assert not swd_jax.is_weight(path, np.zeros((2, 3)))
    assert not swd_jax.is_weight(path, np.zeros((2, 3, 4)))


@pytest.mark.parametrize("leaf", [np.zeros(3), np.zeros(()), 1.0, None, jax.nn.relu])
def test_fewer_than_two_dimensions_are_no_weight(leaf):
    assert not swd_jax.is_weight("Dense_0/kernel", leaf)


def test_abstract_leaves_are_enough_to_decide():
    assert swd_jax.is_weight("kernel", jax.ShapeDtypeStruct((2, 3), jnp.float32))
    assert not swd_jax.is_weight("kernel", jax.ShapeDtypeStruct((3,), jnp.float32))


class TestDefault:
    """Real modules of the frameworks; their parameters need not be computed."""

    def test_linen(self):
        class Net(nn.Module):
            @nn.compact
            def __call__(self, tokens):
                x = nn.Embed(11, 8)(tokens)
                x = nn.LayerNorm()(nn.Conv(8, (3,))(x))
                x = nn.BatchNorm(use_running_average=True)(x)
                x = nn.GroupNorm(4)(x)
                x = nn.RMSNorm()(x)
                return nn.Dense(3)(x)

        tokens = jnp.zeros((1, 5), int)
        variables = jax.eval_shape(Net().init, KEY, tokens)
        assert prunable_paths(variables["params"]) == [
            "Conv_0/kernel",
            "Dense_0/kernel",
            "Embed_0/embedding",
        ]

    def test_linen_layers_stacked_by_scan(self):
        class Block(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                return nn.LayerNorm()(x + nn.Dense(4)(x)), None

        class Net(nn.Module):
            @nn.compact
            def __call__(self, x):
                stacked = nn.scan(
                    Block,
                    variable_axes={"params": 0},
                    split_rngs={"params": True},
                    length=3,
                )
                return stacked()(x, None)[0]

        params = jax.eval_shape(Net().init, KEY, jnp.ones((1, 4)))["params"]
        (block,) = params.values()
        # All stacked, so that bias and scale are two-dimensional.
        assert block["Dense_0"]["bias"].shape == (3, 4)
        assert block["LayerNorm_0"]["scale"].shape == (3, 4)
        assert prunable_paths(block) == ["Dense_0/kernel"]

    def test_linen_attention(self):
        attention = nn.MultiHeadDotProductAttention(num_heads=2)
        x = jnp.ones((1, 3, 8))
        params = jax.eval_shape(attention.init, KEY, x)["params"]
        assert params["query"]["bias"].shape == (2, 4)  # heads, features
        assert prunable_paths(params) == [
            "key/kernel",
            "out/kernel",
            "query/kernel",
            "value/kernel",
        ]

    def test_nnx(self):
        class Net(nnx.Module):
            def __init__(self, rngs):
                self.attention = nnx.MultiHeadAttention(
                    num_heads=2, in_features=8, decode=False, rngs=rngs
                )
                self.bn = nnx.BatchNorm(8, rngs=rngs)
                self.conv = nnx.Conv(8, 8, (3, 3), rngs=rngs)
                self.embed = nnx.Embed(11, 8, rngs=rngs)
                self.linear = nnx.Linear(8, 2, rngs=rngs)
                self.norm = nnx.LayerNorm(8, rngs=rngs)

        state = nnx.state(nnx.eval_shape(lambda: Net(nnx.Rngs(0))), nnx.Param)
        assert state["attention"]["query"]["bias"].shape == (2, 4)
        assert prunable_paths(state) == [
            "attention/key/kernel",
            "attention/out/kernel",
            "attention/query/kernel",
            "attention/value/kernel",
            "conv/kernel",
            "embed/embedding",
            "linear/kernel",
        ]

    def test_nnx_layers_stacked_by_vmap(self):
        class Block(nnx.Module):
            def __init__(self, rngs):
                self.linear = nnx.Linear(4, 4, rngs=rngs)
                self.norm = nnx.LayerNorm(4, rngs=rngs)

        stack = nnx.vmap(lambda key: Block(nnx.Rngs(key)))
        state = nnx.state(stack(jax.random.split(KEY, 3)), nnx.Param)
        assert state["norm"]["scale"].shape == (3, 4)
        assert prunable_paths(state) == ["linear/kernel"]

    def test_equinox(self):
        def make(key):
            return eqx.nn.Sequential(
                [
                    eqx.nn.Conv2d(1, 2, 3, key=key),
                    eqx.nn.BatchNorm(2, "batch", mode="ema"),
                    eqx.nn.Lambda(jax.nn.relu),
                    eqx.nn.LayerNorm((2, 4, 4)),
                    eqx.nn.Embedding(11, 4, key=key),
                    eqx.nn.MultiheadAttention(2, 4, use_query_bias=True, key=key),
                    eqx.nn.Linear(4, 3, key=key),
                ]
            )

        model = eqx.filter_eval_shape(make, KEY)
        assert model[0].bias.shape == (2, 1, 1)
        # A scale with the dimensions of a kernel, in a layer without a name.
        assert model[3].weight.shape == (2, 4, 4)
        attention = [
            f"layers/5/{n}_proj/weight" for n in "query key value output".split()
        ]
        assert prunable_paths(model) == [
            "layers/0/weight",
            "layers/4/weight",
            *attention,
            "layers/6/weight",
        ]

    def test_equinox_layers_stacked_by_vmap(self):
        class Block(eqx.Module):
            linear: eqx.nn.Linear
            norm1: eqx.nn.LayerNorm

            def __init__(self, key):
                self.linear = eqx.nn.Linear(4, 4, key=key)
                self.norm1 = eqx.nn.LayerNorm(4)

        blocks = eqx.filter_vmap(Block)(jax.random.split(KEY, 3))
        assert blocks.norm1.weight.shape == blocks.linear.bias.shape == (3, 4)
        assert prunable_paths(blocks) == ["linear/weight"]
        # By name alone as well, where the classes are lost.
        names = {
            name: {"weight": layer.weight, "bias": layer.bias}
            for name, layer in vars(blocks).items()
        }
        assert prunable_paths(names) == ["linear/weight"]

    def test_haiku(self):
        def net(x):
            x = hk.LayerNorm(-1, create_scale=True, create_offset=True)(x)
            return hk.nets.MLP([4, 2])(x)

        params = jax.eval_shape(hk.transform(net).init, KEY, jnp.ones((1, 3)))
        # Stacked, all of them have two dimensions or more.
        stacked = jax.tree.map(lambda w: np.zeros((3, *w.shape)), params)
        for tree in (params, stacked):
            assert prunable_paths(tree) == ["mlp/~/linear_0/w", "mlp/~/linear_1/w"]

    def test_containers_without_names(self):
        assert prunable_paths([np.zeros((2, 2)), np.zeros(2)]) == ["0"]
        assert prunable_paths(np.zeros((2, 2))) == [""]
