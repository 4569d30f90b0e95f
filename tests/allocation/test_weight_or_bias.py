"""`is_weight`: the default choice of leaves, in every framework."""

import dataclasses
from typing import NamedTuple

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
LINEAR = eqx.nn.Linear(8, 4, key=KEY)


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
        # Words for a matrix after those of a bias or a scale.
        ("gain_proj", 2),
        ("multi_scale_kernel", 4),
        ("multiScaleKernel", 4),
        ("bias_embedding", 2),
        ("beta_proj", 2),
        ("norm_linear/weight", 2),
        # A matrix with a subscript.
        ("W_beta", 2),
        ("W_scale", 2),
        ("w_gamma", 2),
        ("w_b", 2),
        # Capital letters, and factors of a matrix.
        *((letter, 2) for letter in "ABCGQ"),
        ("lora_b", 2),
        ("lora_B", 2),
        ("lora/b", 2),
        ("kernel/b", 2),
        ("kernel/value", 2),
        ("attention/value", 2),
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
        "norm/b",
        "bn/mean",
        # The array itself has the layer's name, as where layers are stacked.
        "attention_norm",
        "ln_1",
        "batch_norm",
        # Words for a matrix before, and names that begin with the bias.
        "weight_scale",
        "w_bias",
        "bias_ih_l0",
        "bias_n",
        "b_in",
        "b1",
        "conv_b",
        "gamma_1",
        "relative_position_bias_table",
        "film/shift",
        # Numbers and the fields of wrappers name nothing.
        "biases/0",
        "bias/value",
        "scale/array",
        "conv/bias/0/raw_value",
        # Collections, as of NNX's SpectralNorm and WeightNorm.
        "batch_stats/('kernel', 'u')",
        "scales/('kernel',)",
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


def stacked_weights(params) -> list[str]:
    """Return the names of the weights of three equal layers, stacked."""

    def stack(leaf):
        if not tree_paths.is_array(leaf):
            return leaf
        return jax.ShapeDtypeStruct((3, *leaf.shape), leaf.dtype)

    layers = {"layers": [jax.tree.map(stack, params)], "head": {"kernel": np.eye(2)}}
    paths = prunable_paths(layers)
    return [path.split("/")[-1] for path in paths if path != "head/kernel"]


class Array(NamedTuple):
    """As haliax has it: one array, and names of its axes."""

    content: np.ndarray


@jax.tree_util.register_pytree_node_class
class WithoutKeys:
    """A wrapper whose child has no key but its number."""

    def __init__(self, array):
        self.array = array

    def tree_flatten(self):
        return (self.array,), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Tagged:
    tensor: np.ndarray
    tag: str = dataclasses.field(default="", metadata={"static": True})


class Frozen(eqx.Module):
    inner: np.ndarray
    axes: tuple = eqx.field(static=True, default=())


class TestWrappers:
    """The name that decides is the parameter's, not that of a field inside it."""

    @pytest.mark.parametrize(
        "wrap",
        [
            Array,
            WithoutKeys,
            Tagged,
            Frozen,
            lambda array: nn.Partitioned(array, names=(None,) * array.ndim),
            lambda array: nn.LogicallyPartitioned(array, names=(None,) * array.ndim),
            nnx.Param,
        ],
        ids="tuple keyless dataclass equinox partitioned logically nnx".split(),
    )
    def test_of_one_array_do_not_hide_it(self, wrap):
        params = {
            "dense": {"kernel": np.ones((3, 4, 4)), "bias": np.ones((3, 4))},
            "layer_norm": {"scale": np.ones((3, 4))},
            "linear": {"w": np.ones((3, 4, 4)), "b": np.ones((3, 4))},
        }
        wrapped = jax.tree.map(lambda array: wrap(jnp.asarray(array)), params)
        assert [path.split("/")[:2] for path in prunable_paths(wrapped)] == [
            ["dense", "kernel"],
            ["linear", "w"],
        ]

    def test_boxes_of_flax_add_no_key_to_the_path(self):
        kernel = np.ones((2, 2))
        boxed = {"kernel": nn.Partitioned(kernel, names=(None, None))}
        assert prunable_paths(boxed) == ["kernel"]

    def test_a_layer_without_a_bias_is_known_by_its_weight(self):
        class Block(eqx.Module):
            scale: eqx.nn.Linear
            attention_bias: eqx.nn.Linear

        layers = [eqx.nn.Linear(3, 4, use_bias=False, key=KEY) for _ in range(2)]
        assert prunable_paths(Block(*layers)) == [
            "scale/weight",
            "attention_bias/weight",
        ]


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

    @pytest.mark.parametrize(
        ("shapes", "weights"),
        [
            # Haiku's names, stacked by scan: the bias has a dimension less.
            ({"w": (3, 8, 4), "b": (3, 4)}, "w"),
            ({"w_i": (3, 8, 4), "w_h": (3, 4, 4), "b": (3, 4)}, "w_h w_i"),
            ({"W": (3, 8, 4), "B": (3, 4)}, "W"),
            ({"w": (3, 1, 8), "b": (3, 8)}, "w"),
            # A row for the bias of a matrix.
            ({"w": (8, 4), "b": (1, 4)}, "w"),
            ({"W1": (8, 4), "b1": (1, 4), "W2": (4, 2), "b2": (1, 2)}, "W1 W2"),
            # Factors of a matrix: as many dimensions.
            ({"w": (4, 4), "a": (4, 4), "b": (4, 4)}, "a b w"),
            ({"a": (8, 2), "b": (2, 8)}, "a b"),
            ({"A": (3, 4, 4), "B": (3, 4), "C": (3, 4)}, "A B C"),
            # Weight normalisation, and a norm with short names.
            ({"g": (8, 1), "v": (8, 4)}, "v"),
            ({"v": (3, 8, 4), "g": (3, 4), "b": (3, 4)}, "v"),
        ],
    )
    def test_letters_are_known_by_the_leaves_beside_them(self, shapes, weights):
        params = {"layer": {name: np.zeros(shape) for name, shape in shapes.items()}}
        expected = [f"layer/{name}" for name in weights.split()]
        assert prunable_paths(params) == expected

    @pytest.mark.parametrize("name", ["b", "g", "bias", "ln_1", "norm"])
    def test_a_letter_alone_or_among_biases_is_none(self, name):
        params = {name: np.zeros((3, 4)), "g": np.zeros((3, 4)), "x": {"w": np.eye(2)}}
        assert prunable_paths(params) == ["x/w"]

    X = jnp.ones((1, 6, 6, 8))

    @pytest.mark.parametrize(
        ("layer", "weights"),
        [
            (nn.DenseGeneral((2, 4)), "kernel"),
            (nn.Einsum((8, 2, 4), "...i,ihd->...hd"), "kernel"),
            (nn.ConvLocal(4, (3, 3)), "kernel"),
            (nn.ConvTranspose(4, (3, 3)), "kernel"),
            (nn.InstanceNorm(), ""),
            (nn.BatchNorm(use_running_average=True), ""),
            (nn.PReLU(), ""),
            (nn.WeightNorm(nn.Dense(4)), "kernel"),
            (nn.RNN(nn.GRUCell(4)), "kernel " * 6),
            (nn.RNN(nn.OptimizedLSTMCell(4)), "kernel " * 8),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_stacked_layers_of_linen(self, layer, weights):
        variables = jax.eval_shape(layer.init, KEY, self.X)
        assert stacked_weights(variables) == weights.split()

    @pytest.mark.parametrize(
        ("layer", "weights"),
        [
            (lambda r: nnx.LinearGeneral(8, (2, 4), rngs=r), "kernel"),
            (lambda r: nnx.Einsum("bi,ihd->bhd", (8, 2, 4), (2, 4), rngs=r), "kernel"),
            (
                lambda r: nnx.LoRALinear(8, 4, lora_rank=2, rngs=r),
                "kernel lora_a lora_b",
            ),
            (lambda r: nnx.BatchNorm(8, rngs=r), ""),
            (lambda r: nnx.GRUCell(8, 4, rngs=r), "kernel kernel"),
            (lambda r: nnx.WeightNorm(nnx.Linear(8, 4, rngs=r), rngs=r), "kernel"),
            (lambda r: nnx.SpectralNorm(nnx.Linear(8, 4, rngs=r), rngs=r), "kernel"),
            (lambda r: nnx.Dropout(0.5, rngs=r), ""),
        ],
    )
    def test_stacked_layers_of_nnx(self, layer, weights):
        state = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: layer(nnx.Rngs(0)))))
        assert stacked_weights(state) == weights.split()

    @pytest.mark.parametrize(
        ("layer", "weights"),
        [
            (eqx.nn.Conv2d(1, 2, 3, key=KEY), "weight"),
            (eqx.nn.GRUCell(8, 4, key=KEY), "weight_ih weight_hh"),
            (eqx.nn.LSTMCell(8, 4, key=KEY), "weight_ih weight_hh"),
            (
                eqx.nn.MultiheadAttention(2, 8, use_key_bias=True, key=KEY),
                "weight " * 4,
            ),
            (eqx.nn.WeightNorm(LINEAR), "weight"),
            (eqx.nn.SpectralNorm(LINEAR, "weight", key=KEY), "weight"),
            (type("Norm", (eqx.nn.LayerNorm,), {})((4, 4)), ""),
            (eqx.nn.PReLU(0.5), ""),
            (eqx.nn.Embedding(8, 4, key=KEY), "weight"),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_stacked_layers_of_equinox(self, layer, weights):
        assert stacked_weights(layer) == weights.split()

    @pytest.mark.parametrize(
        ("layer", "arguments", "weights"),
        [
            (hk.Bias, (None, [1, 2]), ""),
            (hk.GRU, (4,), "w_h w_i"),
            (hk.BatchNorm, (True, True, 0.9), ""),
            (hk.InstanceNorm, (True, True), ""),
            (hk.SeparableDepthwiseConv2D, (1, 3), "w w"),
        ],
    )
    def test_stacked_layers_of_haiku(self, layer, arguments, weights):
        def net(x):
            if layer is hk.GRU:
                return hk.GRU(*arguments)(x[0, 0], jnp.ones((6, 4)))
            options = (True,) if layer is hk.BatchNorm else ()
            return layer(*arguments)(x, *options)

        params, _ = jax.eval_shape(hk.transform_with_state(net).init, KEY, self.X)
        assert stacked_weights(params) == weights.split()

    def test_containers_without_names(self):
        assert prunable_paths([np.zeros((2, 2)), np.zeros(2)]) == ["0"]
        assert prunable_paths(np.zeros((2, 2))) == [""]
