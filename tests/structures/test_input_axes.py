"""The axis of N:M in the layers of Flax, Equinox and haiku.

Expected axes are those of the frameworks' documented layouts, worked out by hand. The
model's own program must agree, by `summed_axes`.
"""

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import swd_jax
from swd_jax._arrays import tree_paths

KEY = jax.random.key(0)
TARGET = swd_jax.Target(0.5, structure=swd_jax.NM(2, 4))


class Attention(linen.Module):
    use_bias: bool = True

    @linen.compact
    def __call__(self, x):
        return linen.MultiHeadDotProductAttention(
            num_heads=4, use_bias=self.use_bias, name="attention"
        )(x, x)


class LinenLayers(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.Conv(8, (3, 3), use_bias=False)(x)
        x = linen.Conv(8, (1, 1), feature_group_count=2, name="projection")(x)
        x = linen.DenseGeneral((4, 8), name="split")(x)
        return linen.DenseGeneral(5, axis=(-2, -1), name="merge")(x)


class NnxLayers(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(8, 8, (3, 3), rngs=rngs)
        self.split = nnx.LinearGeneral(8, (4, 8), rngs=rngs)
        self.merge = nnx.LinearGeneral((4, 8), 5, axis=(-2, -1), rngs=rngs)
        self.linear = nnx.Linear(5, 8, rngs=rngs)

    def __call__(self, x):
        return self.linear(self.merge(self.split(self.conv(x))))


class NnxAttention(nnx.Module):
    def __init__(self, rngs):
        self.attention = nnx.MultiHeadAttention(4, 16, decode=False, rngs=rngs)

    def __call__(self, x):
        return self.attention(x)


class EquinoxLayers(eqx.Module):
    conv: eqx.nn.Conv2d
    grouped: eqx.nn.Conv2d
    transposed: eqx.nn.ConvTranspose2d
    linear: eqx.nn.Linear
    attention: eqx.nn.MultiheadAttention
    cell: eqx.nn.GRUCell

    def __init__(self):
        self.conv = eqx.nn.Conv2d(8, 16, 3, key=KEY)
        self.grouped = eqx.nn.Conv2d(16, 8, 1, groups=2, key=KEY)
        self.transposed = eqx.nn.ConvTranspose2d(8, 4, 2, key=KEY)
        self.linear = eqx.nn.Linear(4, 16, key=KEY)
        self.attention = eqx.nn.MultiheadAttention(4, 16, key=KEY)
        self.cell = eqx.nn.GRUCell(16, 8, key=KEY)

    def __call__(self, x):
        x = self.transposed(self.grouped(self.conv(x))).mean((1, 2))
        x = self.linear(x)[None]
        return self.cell(self.attention(x, x, x)[0], jnp.zeros(8))


def haiku_layers(x):
    x = hk.Conv2D(8, 3)(x)
    x = hk.Conv1D(8, 3, name="conv_in_one")(x.mean(1))
    x = hk.MultiHeadAttention(4, 8, w_init=hk.initializers.TruncatedNormal())(x, x, x)
    return hk.nets.MLP([8, 4])(x)


def random_weights(shapes):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes
    )


def of_linen(module, x):
    params = random_weights(jax.eval_shape(module.init, KEY, x)["params"])
    return lambda p, x: module.apply({"params": p}, x), params, x


def of_nnx(module, x):
    graph, params = nnx.split(module)
    return lambda p, x: nnx.merge(graph, p)(x), params, x


def of_equinox(module, x):
    return lambda p, x: p(x), module, x


def of_haiku(function, x):
    model = hk.without_apply_rng(hk.transform(function))
    return model.apply, random_weights(jax.eval_shape(model.init, KEY, x)), x


SEQUENCE, IMAGES = jnp.ones((1, 3, 16)), jnp.ones((1, 5, 5, 8))
ATTENTION = {"query": -3, "key": -3, "value": -3, "out": -2}
ATTENTION = {f"attention/{name}/kernel": axis for name, axis in ATTENTION.items()}
GENERAL = {"split/kernel": -3, "merge/kernel": -2}
CASES = {
    "attention": (of_linen, Attention(), SEQUENCE, ATTENTION),
    "attention without biases": (
        *(of_linen, Attention(use_bias=False), SEQUENCE),
        ATTENTION,
    ),
    "attention of nnx": (of_nnx, NnxAttention(nnx.Rngs(0)), SEQUENCE, ATTENTION),
    "linen": (
        *(of_linen, LinenLayers(), IMAGES),
        {"Conv_0/kernel": -2, "projection/kernel": -2, **GENERAL},
    ),
    "nnx": (
        *(of_nnx, NnxLayers(nnx.Rngs(0)), IMAGES),
        {"conv/kernel": -2, "linear/kernel": -2, **GENERAL},
    ),
    "equinox": (
        *(of_equinox, EquinoxLayers(), jnp.ones((8, 5, 5))),
        {
            **dict.fromkeys(("conv/weight", "grouped/weight", "transposed/weight"), -3),
            "linear/weight": -1,
            **{
                f"attention/{name}_proj/weight": -1
                for name in ("query", "key", "value", "output")
            },
            "cell/weight_ih": -1,
            "cell/weight_hh": -1,
        },
    ),
    "haiku": (
        *(of_haiku, haiku_layers, IMAGES),
        {
            "conv2_d/w": -2,
            "conv_in_one/w": -2,
            **{
                f"multi_head_attention/{name}/w": -2
                for name in ("query", "key", "value", "linear")
            },
            "mlp/~/linear_0/w": -2,
            "mlp/~/linear_1/w": -2,
        },
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_two_of_four_lie_along_what_a_product_sums_over(name):
    make, module, x, expected = CASES[name]
    apply, params, x = make(module, x)
    by_model = swd_jax.structures.summed_axes(apply, params, x)
    found = {path: axis for path, axis in by_model.axes if path in expected}
    assert found == expected
    pruned = tree_paths.flatten(swd_jax.prune(params, TARGET))
    leaves = dict(zip(pruned.paths, pruned.leaves, strict=True))
    for path, axis in expected.items():
        sets = np.moveaxis(np.asarray(leaves[path]), axis, -1)
        if sets.shape[-1] % 4 == 0:
            kept = (sets.reshape(-1, 4) != 0).sum(axis=1)
            np.testing.assert_array_equal(kept, 2)


def test_a_pattern_that_matches_biases_too_prunes_the_weights():
    _, params, _ = of_linen(Attention(), SEQUENCE)
    target = swd_jax.Target(0.5, prunable="attention", structure=swd_jax.NM(2, 4))
    report = swd_jax.summarize(params, target)
    assert [leaf.path for leaf in report.leaves] == sorted(ATTENTION)


def test_stacked_layers_have_the_axis_of_one():
    stacked = eqx.filter_vmap(lambda key: eqx.nn.Linear(8, 4, key=key))(
        jax.random.split(KEY, 3)
    )
    weight = np.asarray(swd_jax.prune(stacked, TARGET).weight)
    np.testing.assert_array_equal((weight.reshape(-1, 4) != 0).sum(axis=1), 2)


# A kernel of shape (4, 4, 4) with the bias (4, 4) may be a stack of layers, or that of
# one layer whose outputs have two axes.
@pytest.mark.parametrize(
    ("params", "path", "reason"),
    [
        ({"layer": {"weight": jnp.ones((4, 8))}}, "layer/weight", "inputs last"),
        ({"embed": {"embedding": jnp.ones((4, 8))}}, "embed/embedding", "looked up"),
        ({"mine": jnp.ones((4, 4, 8))}, "mine", "3 dimensions, and a name of your"),
        (
            {"layer": {"kernel": jnp.ones((4, 4, 4)), "bias": jnp.ones((4, 4))}},
            *("layer/kernel", "do not tell which of them are inputs"),
        ),
        (
            {"layer": {"kernel": jnp.ones((3, 3, 4, 8))}},
            *("layer/kernel", "do not tell which of them are inputs"),
        ),
        (
            {"conv2_d_transpose": {"w": jnp.ones((3, 3, 4, 8))}},
            *("conv2_d_transpose/w", "transposed"),
        ),
    ],
)
def test_an_axis_that_is_not_known_has_to_be_given(params, path, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        swd_jax.prune(params, TARGET)
    assert f"the parameter {path!r} of shape" in str(caught.value)
    assert "NM(2, 4, axis=-1)" in str(caught.value)
    given = swd_jax.Target(0.5, structure=swd_jax.NM(2, 4, axis=-1))
    assert swd_jax.summarize(swd_jax.prune(params, given), given).zeros > 0


@pytest.mark.parametrize(
    ("kernel", "bias", "axis"),
    [
        ((3, 3, 4, 8), (8,), -2),  # a convolution
        ((12, 4, 8), (12, 8), -2),  # twelve layers
        ((12, 16, 4, 8), (12, 4, 8), -3),  # twelve layers with four heads
    ],
)
def test_a_bias_tells_which_axes_are_outputs(kernel, bias, axis):
    weights = np.random.default_rng(0).normal(size=kernel)
    params = {"layer": {"kernel": jnp.asarray(weights), "bias": jnp.ones(bias)}}
    given = swd_jax.Target(0.5, structure=swd_jax.NM(2, 4, axis=axis))
    np.testing.assert_array_equal(
        swd_jax.prune(params, TARGET)["layer"]["kernel"],
        swd_jax.prune(params, given)["layer"]["kernel"],
    )


def test_a_derived_class_with_scores_of_its_own_has_the_axis_of_each_leaf():
    class Doubled(swd_jax.NM):
        def scores(self, scores):
            return 2 * super().scores(scores)

    shapes = {
        "query": (8, 2, 4),
        "key": (8, 2, 4),
        "value": (8, 2, 4),
        "out": (2, 4, 8),
    }
    rng = np.random.default_rng(0)
    params = {
        name: {"kernel": jnp.asarray(rng.normal(size=shape), jnp.float32)}
        for name, shape in shapes.items()
    }
    target = swd_jax.Target(0.5, structure=Doubled(2, 4))
    tx = swd_jax.methods.magnitude_pruning(target, update_every=2)
    updates, _ = tx.update(
        jax.tree.map(jnp.zeros_like, params), tx.init(params), params
    )
    for name, leaf in params.items():
        axis = -2 if name == "out" else -3
        along = np.moveaxis(
            np.asarray(leaf["kernel"] + updates[name]["kernel"]), axis, -1
        )
        assert ((along.reshape(-1, 4) != 0).sum(axis=1) == 2).all()


def test_in_training_each_leaf_has_its_own_axis():
    """In `swd`, `sparsify` and `prune` alike, under jit and in the form for TPUs."""
    _, params, _ = of_linen(Attention(use_bias=False), SEQUENCE)
    tx = swd_jax.sparsify(TARGET, 1)
    state = tx.init(params)
    zeros = jax.tree.map(jnp.zeros_like, params)
    for _ in range(2):
        updates, state = jax.jit(tx.update)(zeros, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    for name, axis in ATTENTION.items():
        _, layer, _ = name.split("/")
        weights = np.asarray(params["attention"][layer]["kernel"])
        sets = np.moveaxis(weights, axis, -1).reshape(-1, 4)
        np.testing.assert_array_equal((sets != 0).sum(axis=1), 2)


@pytest.mark.parametrize(("axis", "is_warned"), [(-1, True), (0, False)])
def test_channels_along_the_inputs_of_equinox_are_noticed(axis, is_warned):
    layer = eqx.nn.Linear(4, 4, key=KEY)
    target = swd_jax.Target(0.5, structure=swd_jax.Channel(axis))
    state = swd_jax.swd(target, weight_decay=0.1, a=1.0).init(layer)
    warnings = swd_jax.diagnose(layer, target, state)
    assert any("prunes inputs of 'weight'" in text for text in warnings) == is_warned
