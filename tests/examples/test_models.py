"""The networks of the examples, against layer tables and numbers of their papers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import swd_jax
from models import macs
from models.gcn import GCN, SparseGraph
from models.layers import convolution
from models.lenet import LeNet5, LeNet300
from models.mobilenet import MobileNetV2
from models.resnet import (
    BasicBlock,
    PaddingShortcut,
    ResNet,
    cifar_resnet,
    imagenet_resnet,
)
from models.thin import parameter_count, width_for
from models.transformer import Transformer
from models.vgg import VGG

# The library's lines that it runs, other tests run too.
pytestmark = pytest.mark.no_cover


class Table:
    """Parameters and multiply-adds of a network, added up layer by layer."""

    def __init__(self):
        self.parameters = self.products = 0

    def conv(self, inputs, outputs, size, side, *, groups=1, bias=False, norm=True):
        """`side` is the height and width of the result."""
        weights = inputs // groups * outputs * size**2
        self.parameters += weights + bias * outputs + norm * 2 * outputs
        self.products += weights * side**2

    def dense(self, inputs, outputs):
        self.parameters += inputs * outputs + outputs
        self.products += inputs * outputs


def lenet_300():
    table = Table()
    table.dense(784, 300)
    table.dense(300, 100)
    table.dense(100, 10)
    return table


def lenet_5():
    table = Table()
    table.conv(1, 6, 5, 28, bias=True, norm=False)
    table.conv(6, 16, 5, 10, bias=True, norm=False)
    table.dense(400, 120)
    table.dense(120, 84)
    table.dense(84, 10)
    return table


def small_resnet(depth, width, shortcut):
    table = Table()
    table.conv(3, width, 3, 32)
    for maps, side in ((width, 32), (2 * width, 16), (4 * width, 8)):
        if maps == width:
            table.conv(maps, maps, 3, side)
        else:
            table.conv(maps // 2, maps, 3, side)
            if shortcut == "projection":
                table.conv(maps // 2, maps, 1, side)
        for _ in range((depth - 2) // 3 - 1):
            table.conv(maps, maps, 3, side)
    table.dense(4 * width, 10)
    return table


def resnet_18():
    table = Table()
    table.conv(3, 64, 7, 112)
    for _ in range(4):
        table.conv(64, 64, 3, 56)
    for maps, side in ((128, 28), (256, 14), (512, 7)):
        table.conv(maps // 2, maps, 3, side)
        table.conv(maps // 2, maps, 1, side)
        for _ in range(3):
            table.conv(maps, maps, 3, side)
    table.dense(512, 1000)
    return table


def resnet_50():
    table = Table()
    table.conv(3, 64, 7, 112)
    inputs, side_before = 64, 56
    for maps, side, blocks in ((64, 56, 3), (128, 28, 4), (256, 14, 6), (512, 7, 3)):
        table.conv(inputs, 4 * maps, 1, side)  # the shortcut
        for _ in range(blocks):
            table.conv(inputs, maps, 1, side_before)  # the next one has the stride
            table.conv(maps, maps, 3, side)
            table.conv(maps, 4 * maps, 1, side)
            inputs, side_before = 4 * maps, side
    table.dense(2048, 1000)
    return table


def vgg(counts, side, large_images):
    table, inputs = Table(), 3
    for maps, count in zip((64, 128, 256, 512, 512), counts, strict=True):
        for _ in range(count):
            table.conv(inputs, maps, 3, side, bias=large_images)
            inputs = maps
        side //= 2
    if large_images:
        table.dense(512 * side**2, 4096)
        table.dense(4096, 4096)
        table.dense(4096, 1000)
    else:
        table.dense(512, 10)
    return table


def mobilenet(sides, classes):
    """`sides` after the first layer, and after each of the seven stages."""
    table = Table()
    table.conv(3, 32, 3, sides[0])
    table.conv(32, 32, 3, sides[1], groups=32)
    table.conv(32, 16, 1, sides[1])
    inputs, before = 16, sides[1]
    maps_and_blocks = ((24, 2), (32, 3), (64, 4), (96, 3), (160, 3), (320, 1))
    for (maps, blocks), side in zip(maps_and_blocks, sides[2:], strict=True):
        for _ in range(blocks):
            table.conv(inputs, 6 * inputs, 1, before)
            table.conv(6 * inputs, 6 * inputs, 3, side, groups=6 * inputs)
            table.conv(6 * inputs, maps, 1, side)
            inputs, before = maps, side
    table.conv(320, 1280, 1, sides[-1])
    table.dense(1280, classes)
    return table


def abstract(make, **options):
    """The model, with shapes instead of arrays."""
    return nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0), **options))


def traced(model, *shape):
    """For one example: uses of the parameters, their shapes, and the result's shape."""
    model.eval()
    definition, params, rest = nnx.split(model, nnx.Param, ...)

    def apply(params, rest, x):
        return nnx.merge(definition, params, rest)(x)

    arguments = (params, rest, jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    result = jax.eval_shape(apply, *arguments)
    return macs.uses(apply, *arguments), params, result.shape


MODELS = {
    "LeNet-300-100": (LeNet300, (28, 28, 1), lenet_300()),
    "LeNet-5": (LeNet5, (28, 28, 1), lenet_5()),
    "ResNet-20 with 64 maps": (
        partial(cifar_resnet, 20, width=64),
        (32, 32, 3),
        small_resnet(20, 64, "projection"),
    ),
    "ResNet-18": (partial(imagenet_resnet, 18), (224, 224, 3), resnet_18()),
    "ResNet-50": (partial(imagenet_resnet, 50), (224, 224, 3), resnet_50()),
    "VGG-16, CIFAR": (VGG, (32, 32, 3), vgg((2, 2, 3, 3, 3), 32, False)),
    "VGG-19, CIFAR": (partial(VGG, 19), (32, 32, 3), vgg((2, 2, 4, 4, 4), 32, False)),
    "VGG-16, ImageNet": (
        partial(VGG, 16, form="imagenet"),
        (224, 224, 3),
        vgg((2, 2, 3, 3, 3), 224, True),
    ),
    "MobileNetV2, CIFAR": (
        partial(MobileNetV2, form="cifar", classes=100),
        (32, 32, 3),
        mobilenet((32, 32, 32, 16, 8, 8, 4, 4), 100),
    ),
    "MobileNetV2": (
        MobileNetV2,
        (224, 224, 3),
        mobilenet((112, 112, 56, 28, 14, 14, 7, 7), 1000),
    ),
} | {
    f"ResNet-{depth} with {shortcut}": (
        partial(cifar_resnet, depth, shortcut=shortcut),
        (32, 32, 3),
        small_resnet(depth, 16, shortcut),
    )
    for depth, shortcut in ((20, "padding"), (20, "projection"), (56, "padding"))
}


@pytest.mark.parametrize("name", MODELS)
def test_parameters_multiply_adds_and_outputs_are_those_of_the_layer_table(name):
    make, shape, table = MODELS[name]
    model = abstract(make)
    uses, params, result = traced(model, *shape)
    assert parameter_count(model) == table.parameters
    assert macs.multiply_adds(uses, params) == table.products
    classes = {"MobileNetV2, CIFAR": 100}.get(name, 1000 if 224 in shape else 10)
    assert result == (1, classes)


@pytest.mark.parametrize(
    ("name", "parameters", "products"),
    [
        ("LeNet-300-100", 266_610, 266_200),
        ("LeNet-5", 61_706, 416_520),
        ("ResNet-20 with padding", 269_722, 40_551_040),
        ("ResNet-20 with projection", 272_474, 40_813_184),
        ("ResNet-18", 11_689_512, 1_814_073_344),
        ("ResNet-50", 25_557_032, 4_089_184_256),
        ("VGG-16, ImageNet", 138_365_992, 15_470_264_320),
        ("MobileNetV2", 3_504_872, 300_774_272),
    ],
)
def test_the_layer_tables_are_those_of_the_known_networks(name, parameters, products):
    table = MODELS[name][2]
    assert (table.parameters, table.products) == (parameters, products)


def test_uses_have_the_names_of_the_summary():
    network = LeNet300(pixels=1, hidden=(1, 1), classes=1, rngs=nnx.Rngs(0))
    summary = swd_jax.summarize(nnx.state(network, nnx.Param), 0.5)
    uses, _, _ = traced(network, 1)
    assert {leaf.path for leaf in summary.leaves} == {
        path for path, count in uses.items() if count
    }


def test_models_take_other_images_classes_and_widths():
    lenet = abstract(LeNet5, size=32, channels=3, classes=7, padding="VALID")
    assert lenet.dense1.in_features == 400
    assert traced(lenet, 32, 32, 3)[2] == (1, 7)
    wide = abstract(LeNet5, size=29)
    assert traced(wide, 29, 29, 1)[2] == (1, 10)
    perceptron = abstract(LeNet300, pixels=64, hidden=(9, 8), classes=3)
    assert traced(perceptron, 8, 8)[2] == (1, 3)
    residual = abstract(partial(cifar_resnet, 8), width=3, channels=1, classes=4)
    assert traced(residual, 17, 16, 1)[2] == (1, 4)
    narrow = abstract(MobileNetV2, width=1, classes=4)
    assert traced(narrow, 64, 64, 3)[2] == (1, 4)
    narrow = abstract(VGG, width=2, classes=4, form="imagenet")
    assert narrow.head.dense1.kernel.shape == (49 * 16, 128)


def test_padding_shortcuts_take_every_second_pixel_and_append_maps_of_zeros():
    x = jnp.arange(4 * 4 * 2.0).reshape(1, 4, 4, 2)
    result = PaddingShortcut(inputs=2, outputs=4, stride=2)(x)
    np.testing.assert_array_equal(result[..., :2], x[:, ::2, ::2])
    np.testing.assert_array_equal(result[..., 2:], jnp.zeros((1, 2, 2, 2)))


def test_convolutions_start_he_normal_by_their_outputs():
    layer = nnx.jit(lambda: convolution(32, 64, 3, rngs=nnx.Rngs(0)))()
    kernel = layer.kernel[...]
    assert kernel.shape == (3, 3, 32, 64)
    assert float(kernel.std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.03)


def test_training_changes_batch_statistics_and_evaluation_does_not():
    def start():
        options = {"large_images": False, "width": 2, "classes": 3, "channels": 3}
        rngs = nnx.Rngs(0)
        return ResNet(BasicBlock, (1,), shortcut="projection", rngs=rngs, **options)

    model = nnx.jit(start)()  # faster than operation by operation
    definition, params, statistics = nnx.split(model, nnx.Param, nnx.BatchStat)
    images = jax.random.normal(jax.random.key(0), (4, 6, 6, 3))
    labels = jnp.array([0, 1, 2, 0])

    def loss(params, training):
        # Copied, because it changes while the gradient is traced.
        model = nnx.merge(definition, params, statistics, copy=True)
        model.train() if training else model.eval()
        logits = model(images)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), nnx.state(model, nnx.BatchStat)

    @jax.jit
    def step(params):
        gradient, trained = jax.grad(loss, has_aux=True)(params, training=True)
        _, evaluated = loss(params, training=False)
        return gradient, trained, evaluated, model.stem.conv(images)

    gradient, *after, convolved = step(params)
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(gradient))
    states = map(jax.tree.leaves, (statistics, *after))
    for before, trained, evaluated in zip(*states, strict=True):
        assert jnp.any(trained != before)
        np.testing.assert_array_equal(evaluated, before)
    # Momentum 0.9: a tenth of the batch's mean and nine tenths of the old one, 0.
    mean = after[0]["stem"]["norm"]["mean"][...]
    np.testing.assert_allclose(mean, 0.1 * convolved.mean((0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(cifar_resnet, 18), "6 n"),
        (partial(cifar_resnet, 2), "6 n"),
        (partial(cifar_resnet, 20, shortcut="zeros"), "shortcut"),
        (partial(cifar_resnet, 20, width=0), "width"),
        (partial(imagenet_resnet, 20), "18 or 50"),
        (partial(VGG, 11), "16 or 19"),
        (partial(VGG, 16, form="large"), "form"),
        (partial(MobileNetV2, form="small"), "form"),
        (partial(MobileNetV2, classes=0), "classes"),
        (partial(LeNet5, size=11), "12"),
        (partial(LeNet5, padding="FULL"), "padding"),
        (partial(LeNet300, hidden=(10, 0)), "hidden"),
        (partial(GCN, 0, 5, classes=2), "nodes"),
        (partial(GCN, 5, 5, classes=2, dropout=1.0), "dropout"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make(rngs=nnx.Rngs(0))


def test_large_vgg_names_the_images_it_takes():
    with pytest.raises(ValueError, match="224x224"):
        traced(abstract(VGG, form="imagenet", width=1), 64, 64, 3)


# Counting


def test_uses_of_a_small_function_by_hand():
    params = {
        "bias": jnp.ones(4),
        "grouped": jnp.ones((3, 3, 2, 8)),  # 4 maps in 2 groups
        "sequence": jnp.ones((6, 5)),
        "tied": jnp.ones((5, 6)),
        "twice": jnp.ones((4, 1, 5)),
        "unused": None,
    }

    @jax.checkpoint
    def twice(kernel, x):
        kernel = kernel.reshape(4, 5).astype(jnp.bfloat16).T
        return jax.jit(lambda x: kernel @ (kernel.T @ x))(x)

    def apply(params, image, sequence, vector):
        convolved = jax.lax.conv_general_dilated(
            image + params["bias"][None, None, None],
            params["grouped"],
            window_strides=(2, 2),
            padding="SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=2,
        )
        sequence = nnx.relu(sequence @ params["sequence"])
        return convolved, sequence @ params["tied"], twice(params["twice"], vector)

    args = jnp.ones((1, 10, 8, 4)), jnp.ones((1, 7, 6)), jnp.ones(5, jnp.bfloat16)
    uses = macs.uses(apply, params, *args)
    # Results of 5x4 pixels; seven vectors in the sequence; one vector, two products.
    assert uses == {"bias": 0, "grouped": 20, "sequence": 7, "tied": 7, "twice": 2}
    assert macs.multiply_adds(uses, params) == 20 * 144 + 7 * 30 + 7 * 30 + 2 * 20

    params["grouped"] = params["grouped"].at[0].set(0)  # a third of it
    params["sequence"] = params["sequence"].at[:, 0].set(0).astype(jnp.bfloat16)
    assert macs.multiply_adds(uses, params) == 20 * 96 + 7 * 24 + 7 * 30 + 2 * 20


def test_uses_are_zero_for_changed_parameters_and_once_for_products_of_two():
    params = jnp.ones((3, 3)), jnp.ones((3, 2)), jnp.ones((3, 3))

    def apply(params, x):
        mask = jnp.eye(3)
        return (mask * params[0]) @ x, params[2] @ params[1]

    uses = macs.uses(apply, params, jnp.ones(3))
    assert uses == {"0": 0, "1": 3, "2": 0}


def test_uses_follow_custom_derivatives_and_refuse_loops():
    @jax.custom_vjp
    def product(kernel, x):
        return kernel @ x

    product.defvjp(lambda kernel, x: (kernel @ x, None), lambda _, g: (g, g))
    assert macs.uses(product, jnp.ones((2, 3)), jnp.ones(3)) == {"": 1}

    def loop(kernel, x):
        return jax.lax.scan(lambda x, _: (kernel @ x, None), x, length=3)

    with pytest.raises(ValueError, match="scan"):
        macs.uses(loop, jnp.ones((3, 3)), jnp.ones(3))


def test_a_width_is_the_largest_that_fits():
    def make(width):
        return cifar_resnet(8, width=width, rngs=nnx.Rngs(0))

    counts = {w: small_resnet(8, w, "projection").parameters for w in (1, 3, 4)}
    assert width_for(counts[3], make) == 3
    assert width_for(counts[4] - 1, make) == 3
    with pytest.raises(ValueError, match="No width"):
        width_for(counts[1] - 1, make)
    with pytest.raises(ValueError, match="must use its width"):
        width_for(10**6, lambda width: LeNet5(rngs=nnx.Rngs(0)))


def test_a_stem_of_stride_two_halves_all_maps():
    model = cifar_resnet(8, width=4, stem_stride=2, rngs=nnx.Rngs(0))
    images = jnp.ones((1, 32, 32, 3))
    assert model.stem(images).shape == (1, 16, 16, 4)
    plain = cifar_resnet(8, width=4, rngs=nnx.Rngs(0))
    assert plain.stem(images).shape == (1, 32, 32, 4)
    shapes = [jax.tree.map(jnp.shape, nnx.state(each)) for each in (model, plain)]
    assert shapes[0] == shapes[1]  # the same parameters
    with pytest.raises(ValueError, match="stem_stride must be at least 1, not 0"):
        cifar_resnet(8, stem_stride=0, rngs=nnx.Rngs(0))


def test_a_width_needs_no_arrays():
    def make(width):
        hidden = (1000 * width, 1000 * width)
        return LeNet300(pixels=1, hidden=hidden, classes=1, rngs=nnx.Rngs(0))

    # With h hidden units, weights and biases are h + h, h^2 + h and h + 1: 40 GB.
    assert width_for(10**10, make) == 99


# The graph network


def random_graph(nodes, features, seed=0):
    """A graph, its matrix of features and its normalised edges, both dense."""
    rng = np.random.default_rng(seed)
    x = rng.random((nodes, features)) * (rng.random((nodes, features)) < 0.2)
    linked = np.triu(rng.random((nodes, nodes)) < 0.2, 1)
    edges = linked + linked.T + np.eye(nodes)
    degrees = edges.sum(axis=1)
    edges = edges / np.sqrt(degrees[:, None] * degrees[None])
    parts = []
    for matrix in (x, edges):
        rows, columns = np.nonzero(matrix)
        values = matrix[rows, columns]
        parts += [jnp.asarray(rows), jnp.asarray(columns), jnp.float32(values)]
    return SparseGraph(*parts), x, edges


def test_gcn_is_the_dense_formula():
    graph, x, edges = random_graph(12, 9)
    model = nnx.jit(lambda: GCN(12, 9, classes=3, hidden=5, rngs=nnx.Rngs(1)))()
    model.first.bias[...] = jnp.arange(5.0) - 2
    model.second.bias[...] = jnp.arange(3.0)
    model.eval()
    first, second = (
        [np.float64(layer.kernel[...]), np.float64(layer.bias[...])[None]]
        for layer in (model.first, model.second)
    )
    hidden = np.maximum(edges @ x @ first[0] + first[1], 0)
    expected = edges @ hidden @ second[0] + second[1]
    apply = nnx.jit(lambda model, graph: model(graph))
    logits = apply(model, graph)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)

    model.train()
    assert jnp.any(apply(model, graph) != apply(model, graph))  # dropout


def test_gcn_of_cora_has_the_known_size_and_counts_its_own_uses():
    model = abstract(partial(GCN, 2708, 1433, classes=7))
    assert parameter_count(model) == 23_063

    graph, x, _ = random_graph(12, 9)
    model = GCN(12, 9, classes=3, hidden=5, rngs=nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    uses = model.uses(graph)
    assert set(uses) == {"first/bias", "first/kernel", "second/bias", "second/kernel"}
    nonzeros = np.count_nonzero(x)
    assert macs.multiply_adds(uses, params) == nonzeros * 5 + 12 * 5 * 3
    model.first.kernel[...] = model.first.kernel[...].at[4, 1:].set(0)
    params = nnx.state(model, nnx.Param)
    zeros = 4 * np.count_nonzero(x[:, 4])
    assert macs.multiply_adds(uses, params) == nonzeros * 5 + 12 * 5 * 3 - zeros


def test_gcn_makes_no_dense_matrix():
    graph, _, _ = random_graph(31, 37)
    model = GCN(31, 37, classes=3, rngs=nnx.Rngs(0))
    definition, params, rest = nnx.split(model, nnx.Param, ...)

    def total(params):
        return nnx.merge(definition, params, rest, copy=True)(graph).sum()

    jaxpr = str(jax.make_jaxpr(jax.grad(total))(params))
    assert "[37,16]" in jaxpr
    for dense in ("[31,37]", "[37,31]", "[31,31]"):
        assert dense not in jaxpr


def test_gcn_trains_seeds_side_by_side():
    graph, _, _ = random_graph(12, 9)
    labels = jnp.arange(12) % 3

    def train(key, graph):
        model = GCN(12, 9, classes=3, rngs=nnx.Rngs(key))
        definition, params, rest = nnx.split(model, nnx.Param, ...)

        def loss(params):
            logits = nnx.merge(definition, params, rest, copy=True)(graph)
            return optax.softmax_cross_entropy_with_integer_labels(
                logits, labels
            ).mean()

        gradient = jax.grad(loss)(params)
        return jax.tree.map(lambda w, g: w - 0.1 * g, params, gradient)

    keys = jax.random.split(jax.random.key(0), 2)
    side_by_side = jax.jit(jax.vmap(train, in_axes=(0, None)))
    both = side_by_side(keys, graph)
    swapped = side_by_side(keys[::-1], graph)
    for one, other in zip(*map(jax.tree.leaves, (both, swapped)), strict=True):
        np.testing.assert_allclose(one, other[::-1], rtol=1e-4, atol=1e-6)
    kernel = both["first"]["kernel"][...]
    assert kernel.shape == (2, 9, 16)
    assert jnp.all(kernel[0] != kernel[1])


class TestTransformer:
    """Of characters: (texts, characters) in, logits of each next one out."""

    @pytest.fixture
    def model(self):
        return Transformer(11, context=8, width=16, heads=2, rngs=nnx.Rngs(0))

    def test_has_a_row_of_logits_for_every_character(self, model):
        with jax.numpy_rank_promotion("allow"):
            assert model(jnp.zeros((3, 8), jnp.int32)).shape == (3, 8, 11)
            assert model(jnp.zeros((3, 5), jnp.int32)).shape == (3, 5, 11)

    @pytest.mark.parametrize("changed", [1, 4, 7])
    def test_sees_no_later_character(self, model, changed):
        text = jnp.arange(8)[None]
        other = text.at[0, changed].set(10)
        with jax.numpy_rank_promotion("allow"):
            before, after = np.asarray(model(text)), np.asarray(model(other))
        np.testing.assert_array_equal(before[:, :changed], after[:, :changed])
        # All those that follow do see it.
        assert (np.abs(before - after)[0, changed:].max(axis=-1) > 1e-6).all()

    def test_has_the_parameters_of_its_table(self):
        table = Table()
        for _ in range(2):
            for _ in range(4):
                table.dense(64, 64)
                table.parameters -= 64  # without biases
            table.dense(64, 256)
            table.dense(256, 64)
            table.parameters += 4 * 64  # two norms
        table.parameters += 65 * 64 + 64 * 64 + 2 * 64  # embeddings, the last norm
        table.dense(64, 65)
        model = nnx.eval_shape(lambda: Transformer(65, rngs=nnx.Rngs(0)))
        assert parameter_count(model) == table.parameters
        with jax.numpy_rank_promotion("allow"):
            definition, params = nnx.split(Transformer(65, rngs=nnx.Rngs(0)))
            uses = macs.uses(
                lambda params, x: nnx.merge(definition, params)(x),
                params,
                jnp.zeros((1, 64), jnp.int32),
            )
        products = 64 * table.products  # each matrix once for every character
        assert macs.multiply_adds(uses, params) == products

    def test_what_does_not_fit_is_refused(self, model):
        with pytest.raises(ValueError, match="heads must divide the width 10, not 4"):
            Transformer(5, width=10, rngs=nnx.Rngs(0))
        with pytest.raises(ValueError, match="9 characters, more than the context 8"):
            model(jnp.zeros((1, 9), jnp.int32))
