"""Which leaves are prunable: the default in every framework, and the three others."""

import re

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
from swd_jax._allocation import prunable_leaves
from swd_jax._arrays import tree_paths

KEY = jax.random.key(0)


def prunable_paths(params, prunable=swd_jax.is_weight) -> list[str]:
    leaves = prunable_leaves.find_prunable(prunable, tree_paths.flatten(params), params)
    return [leaf.path for leaf in leaves]


def zeros(**shapes):
    return {name.replace("__", "/"): np.zeros(s) for name, s in shapes.items()}


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


PARAMS = zeros(
    encoder__kernel=(2, 2), encoder__bias=(2,), head__kernel=(2, 3), head__bias=(3,)
)
NESTED = {
    "encoder": {"kernel": np.zeros((2, 2)), "bias": np.zeros(2)},
    "head": {"kernel": np.zeros((2, 3)), "bias": np.zeros(3)},
}


class TestRegularExpression:
    @pytest.mark.parametrize(
        ("pattern", "paths"),
        [
            ("kernel", "encoder/kernel head/kernel"),
            ("^head", "head/bias head/kernel"),
            ("bias$", "encoder/bias head/bias"),
            ("^encoder/kernel$", "encoder/kernel"),
            ("der/k", "encoder/kernel"),  # searched for, not matched in full
            ("", "encoder/bias encoder/kernel head/bias head/kernel"),
            ("^(?!head).*kernel", "encoder/kernel"),
        ],
    )
    def test_is_searched_for_in_the_path(self, pattern, paths):
        assert prunable_paths(NESTED, pattern) == paths.split()
        assert prunable_paths(NESTED, re.compile(pattern)) == paths.split()

    def test_may_be_compiled_with_flags(self):
        assert prunable_paths(NESTED, re.compile("HEAD/K", re.I)) == ["head/kernel"]

    def test_finds_a_bare_array_under_the_empty_path(self):
        assert prunable_paths(np.zeros(3), "^$") == [""]

    @pytest.mark.parametrize("pattern", ["Kernel", re.compile("^kernel"), "/kernel/"])
    def test_that_matches_nothing_is_an_error_that_lists_the_paths(self, pattern):
        listed = "matches none.*\n  encoder/bias\n  encoder/kernel\n  head/bias\n"
        with pytest.raises(ValueError, match=listed) as error:
            prunable_paths(NESTED, pattern)
        assert repr(pattern) in str(error.value)

    @pytest.mark.parametrize("pattern", ["(kernel", "*", "[a-"])
    def test_that_is_none_is_an_error_at_construction(self, pattern):
        with pytest.raises(ValueError, match="not a regular expression") as error:
            swd_jax.Target(0.5, prunable=pattern)
        assert f"prunable={pattern!r}" in str(error.value)


class TestPredicate:
    def test_is_asked_with_path_and_leaf(self):
        asked = {}

        def wide(path, leaf):
            asked[path] = leaf
            return leaf.shape[-1] == 3

        assert prunable_paths(NESTED, wide) == ["head/bias", "head/kernel"]
        assert asked["encoder/kernel"] is NESTED["encoder"]["kernel"]
        assert len(asked) == 4

    def test_is_not_asked_about_what_is_no_array(self):
        params = {"act": jax.nn.relu, "w": np.zeros(2)}
        assert prunable_paths(params, lambda path, leaf: leaf.ndim == 1) == ["w"]

    def test_may_answer_with_a_bool_of_numpy(self):
        answer = lambda path, leaf: np.prod(leaf.shape) > 4
        assert isinstance(answer("", np.zeros(3)), np.bool_)
        assert prunable_paths(NESTED, answer) == ["head/kernel"]

    def test_may_build_on_the_default(self):
        no_head = lambda path, leaf: (
            swd_jax.is_weight(path, leaf) and "head" not in path
        )
        assert prunable_paths(NESTED, no_head) == ["encoder/kernel"]

    @pytest.mark.parametrize("answer", [None, 1, "yes", np.zeros(2, bool)])
    def test_that_answers_otherwise_is_an_error_that_names_the_path(self, answer):
        with pytest.raises(ValueError, match=r"answer with a bool.*for 'encoder/bias'"):
            prunable_paths(NESTED, lambda path, leaf: answer)

    def test_that_matches_nothing_is_an_error_that_lists_the_paths(self):
        with pytest.raises(ValueError, match="matches none.*\n  encoder/bias\n"):
            prunable_paths(NESTED, lambda path, leaf: False)


class TestTreeOfBools:
    @pytest.mark.parametrize(
        ("bools", "paths"),
        [
            (
                {
                    "encoder": {"kernel": True, "bias": False},
                    "head": {"kernel": False, "bias": np.True_},
                },
                "encoder/kernel head/bias",
            ),
            ({"encoder": True, "head": False}, "encoder/bias encoder/kernel"),
            (
                {"encoder": np.False_, "head": {"kernel": True, "bias": False}},
                "head/kernel",
            ),
            (True, "encoder/bias encoder/kernel head/bias head/kernel"),
        ],
        ids=["leaf by leaf", "by upper levels", "mixed", "one for all"],
    )
    def test_says_which(self, bools, paths):
        assert prunable_paths(NESTED, bools) == paths.split()

    def test_may_come_in_another_container(self):
        assert prunable_paths((np.zeros(2), np.zeros(3)), [False, True]) == ["1"]

    def test_may_be_a_module(self):
        model = eqx.nn.Linear(2, 3, key=KEY)
        bools = jax.tree.map(lambda leaf: leaf.ndim == 1, model)
        # A module is callable, but this one is a tree of bools.
        assert callable(bools)
        assert prunable_paths(model, bools) == ["bias"]

    def test_may_be_a_state_of_nnx(self):
        state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Param)
        bools = jax.tree.map(lambda leaf: leaf.ndim == 1, state)
        assert prunable_paths(state, bools) == ["bias"]

    def test_may_say_more_than_the_unmasked_parameters_need(self):
        # As inside `optax.masked`, which empties the nodes that it leaves out.
        params = {"encoder": optax.MaskedNode(), "head": np.zeros((2, 3))}
        assert prunable_paths(params, {"encoder": {"w": True}, "head": True}) == [
            "head"
        ]

    def test_tells_leaves_apart_whose_paths_are_spelled_alike(self):
        params = {"a": {"b": np.zeros((2, 2))}, "a/b": np.zeros((3, 3))}
        leaves = prunable_leaves.find_prunable(
            {"a": {"b": True}, "a/b": False}, tree_paths.flatten(params), params
        )
        assert [leaf.weights.shape for leaf in leaves] == [(2, 2)]

    @pytest.mark.parametrize(
        ("bools", "words"),
        [
            ({"encoder": True}, "no bool for the parameter 'head/bias'"),
            (
                {"encoder": {"kernel": True}, "head": True},
                "no bool for the parameter 'encoder/bias'",
            ),
            (
                {"encoder": True, "head": True, "tail": False},
                "a bool at 'tail', where the parameters have nothing.*\n  encoder/bias",
            ),
            (
                {"encoder": True, "head": {"kernel": {"w": True}, "bias": True}},
                "a bool at 'head/kernel/w', where",
            ),
            ([True, False], "a bool at '0', where"),
        ],
    )
    def test_of_another_structure_is_an_error_that_names_the_path(self, bools, words):
        with pytest.raises(ValueError, match=rf"^prunable has {words}"):
            prunable_paths(NESTED, bools)

    def test_without_a_true_is_an_error_that_lists_the_paths(self):
        with pytest.raises(ValueError, match="matches none.*\n  encoder/bias\n"):
            prunable_paths(NESTED, {"encoder": False, "head": False})


@pytest.mark.parametrize(
    "prunable", [None, 1, 0.5, {}, [], {"a": None}, {"a": 1}, [True, 0], b"kernel"]
)
def test_anything_else_is_an_error_at_construction(prunable):
    words = "prunable must be a regular expression .* a predicate .* or a tree of bools"
    with pytest.raises(ValueError, match=words):
        swd_jax.Target(0.5, prunable=prunable)


@pytest.mark.parametrize("dtype", [np.int32, np.int8, np.uint8, np.bool_, np.complex64])
@pytest.mark.parametrize(
    "prunable", [swd_jax.is_weight, "^table", {"table": True, "w": True}]
)
def test_leaves_that_are_not_floating_point_must_be_left_out(dtype, prunable):
    params = {"table": np.zeros((2, 2), dtype), "w": np.zeros((2, 2))}
    words = f"prunable matches 'table', which holds {np.dtype(dtype)} numbers"
    with pytest.raises(ValueError, match=words):
        prunable_paths(params, prunable)
    assert prunable_paths(params, "^w") == ["w"]


@pytest.mark.parametrize("empty", [{}, (), None, {"a": {}}, {"a": jax.nn.relu}])
@pytest.mark.parametrize(
    "prunable", [swd_jax.is_weight, "kernel", lambda path, w: True]
)
def test_a_tree_without_arrays_has_nothing_to_prune_and_is_no_error(empty, prunable):
    assert prunable_paths(empty, prunable) == []


@pytest.mark.parametrize(
    "meet",
    [
        lambda target: swd_jax.swd(target, weight_decay=0.1, a=1.0).init(PARAMS),
        lambda target: swd_jax.prune(PARAMS, target),
        lambda target: swd_jax.prune_mask(PARAMS, target),
        lambda target: swd_jax.summarize(PARAMS, target),
    ],
    ids="init prune prune_mask summarize".split(),
)
def test_a_target_that_does_not_fit_is_an_error_wherever_it_meets_parameters(meet):
    with pytest.raises(ValueError, match="'kernels' matches none.*\n  encoder/bias\n"):
        meet(swd_jax.Target(0.5, prunable="kernels"))
