"""Small forms of the usual networks, with channel groups worked out by hand.

A channel group is written as "name channels: members". A member is path.axis, then *n
if a channel has n positions along the axis, then a letter for the role: p(roducer),
c(onsumer), s(cale), b(ias), m(ean or variance). "{a,b}" expands to both a and b. All
axes that are not listed must be frozen.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable
from typing import Any

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

from models.layers import ConvolutionWithNorm
from models.lenet import LeNet5
from models.mobilenet import InvertedResidual
from models.resnet import BottleneckBlock, ResNet, cifar_resnet

IMAGES = jnp.zeros((2, 8, 8, 3))


@dataclasses.dataclass
class Case:
    """A model, `apply(params, inputs)`, and its channel groups."""

    apply: Callable[..., Any]
    params: Any
    inputs: Any
    groups: str
    module: bool = False
    """Whether the parameters are a module, which can be called after `shrink`."""
    attributes: dict[str, str] = dataclasses.field(default_factory=dict)
    """Channel group that decides each size which a module stores beside its arrays."""


CASES: dict[str, Callable[[], Case]] = {}


def case(function):
    """Add a case to `CASES`, with random numbers for its parameters."""

    @functools.cache
    def make():
        abstract = function()
        return dataclasses.replace(abstract, params=random_like(abstract.params))

    CASES[function.__name__] = make
    return function


def parse_groups(text: str) -> dict[str, tuple[int, set[str]]]:
    """Return the number of channels and the members of each channel group, by name."""
    groups: dict[str, tuple[int, set[str]]] = {}
    words = text.split()
    for word, next_word in zip(words, [*words[1:], ""], strict=True):
        if next_word.endswith(":"):
            members = set()
            groups[word] = int(next_word[:-1]), members
        elif not word.endswith(":"):
            members.update(_expand_braces(word))
    return groups


def _expand_braces(word: str) -> list[str]:
    parts = re.split(r"\{([^}]*)\}", word)
    choices = [p.split(",") if i % 2 else [p] for i, p in enumerate(parts)]
    return ["".join(choice) for choice in itertools.product(*choices)]


def random_like(tree):
    """Return random numbers in the shapes of a tree, positive ones for variances."""
    random = np.random.default_rng(0)

    def draw(path, leaf):
        if not hasattr(leaf, "dtype"):
            return leaf
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros(leaf.shape, leaf.dtype)
        values = random.normal(size=leaf.shape) / max(leaf.size, 1) ** 0.25
        name = jax.tree_util.keystr(path)
        if "var" in name or "state" in name:
            values = np.abs(values) + 0.5
        return jnp.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, tree)


def call(model, x):
    return model(x)


def shapes_of(make, *args, **kwargs):
    """Return an NNX module of shapes, in evaluation mode."""
    model = nnx.eval_shape(lambda: make(*args, rngs=nnx.Rngs(0), **kwargs))
    model.eval()
    return model


# Flax NNX: the networks of the examples.


@case
def lenet():
    # Pixels: 12, after pooling 6, after a "VALID" window of 5 2, after pooling 1. So
    # dense1 reads 16 maps x 1 pixel.
    model = shapes_of(LeNet5, size=12, classes=3)
    return Case(
        call,
        model,
        jnp.zeros((2, 12, 12, 1)),
        """
        conv1 6: conv1/kernel.3p conv1/bias.0b conv2/kernel.2c
        conv2 16: conv2/kernel.3p conv2/bias.0b dense1/kernel.0c
        dense1 120: dense1/kernel.1p dense1/bias.0b dense2/kernel.0c
        dense2 84: dense2/kernel.1p dense2/bias.0b dense3/kernel.0c
        """,
        module=True,
    )


NORM = "norm/{scale.0s,bias.0b,mean.0m,var.0m}"


@case
def resnet_with_padding():
    # Stages of 2, 4 and 8 maps. A shortcut pads with zero maps, so the first 2 maps of
    # the second stage are those of the first stage, and so on.
    model = shapes_of(cifar_resnet, 8, width=2, shortcut="padding", classes=3)
    second = "blocks/{}/second/conv/kernel.3p blocks/{}/second/" + NORM
    first = "blocks/{0}/first/conv 0: blocks/{0}/first/conv/kernel.3p "
    first += "blocks/{0}/first/NORM blocks/{0}/second/conv/kernel.2c"
    first = first.replace("NORM", NORM.replace("{", "{{").replace("}", "}}"))
    outs = [second.replace("{}", str(i)) for i in range(3)]
    return Case(
        call,
        model,
        IMAGES,
        f"""
        stem/conv 2: stem/conv/kernel.3p stem/{NORM}
            blocks/{{0,1,2}}/first/conv/kernel.2c {outs[0]} {outs[1]} {outs[2]}
            dense/kernel.0c
        {first.format(0).replace(" 0: ", " 2: ")}
        {first.format(1).replace(" 0: ", " 4: ")}
        blocks/1/second/conv 2: {outs[1]} {outs[2]} blocks/2/first/conv/kernel.2c
            dense/kernel.0c
        {first.format(2).replace(" 0: ", " 8: ")}
        blocks/2/second/conv 4: {outs[2]} dense/kernel.0c
        """,
        module=True,
        attributes={
            "blocks/1/shortcut/added_maps": "blocks/1/second/conv",
            "blocks/2/shortcut/added_maps": "blocks/2/second/conv",
        },
    )


@case
def bottlenecks():
    # ResNet-50 with two stages, of one block and of two blocks.
    model = shapes_of(
        ResNet,
        BottleneckBlock,
        (1, 2),
        large_images=True,
        width=2,
        classes=3,
        channels=3,
        shortcut="projection",
    )

    def inside(i, maps):
        return f"""
        blocks/{i}/first/conv {maps}: blocks/{i}/first/conv/kernel.3p
            blocks/{i}/first/{NORM} blocks/{i}/second/conv/kernel.2c
        blocks/{i}/second/conv {maps}: blocks/{i}/second/conv/kernel.3p
            blocks/{i}/second/{NORM} blocks/{i}/third/conv/kernel.2c
        """

    def outside(i):
        return f"blocks/{i}/third/conv/kernel.3p blocks/{i}/third/{NORM}"

    def projection(i):
        return f"blocks/{i}/shortcut/conv/kernel.3p blocks/{i}/shortcut/{NORM}"

    return Case(
        call,
        model,
        jnp.zeros((2, 16, 16, 3)),
        f"""
        stem/conv 2: stem/conv/kernel.3p stem/{NORM} blocks/0/first/conv/kernel.2c
            blocks/0/shortcut/conv/kernel.2c
        {inside(0, 2)}
        blocks/0/third/conv 8: {outside(0)} {projection(0)}
            blocks/1/first/conv/kernel.2c blocks/1/shortcut/conv/kernel.2c
        {inside(1, 4)}
        blocks/1/third/conv 16: {outside(1)} {projection(1)} {outside(2)}
            blocks/2/first/conv/kernel.2c dense/kernel.0c
        {inside(2, 4)}
        """,
        module=True,
    )


class MobileNet(nnx.Module):
    """The first three blocks of a MobileNetV2; one has a shortcut."""

    def __init__(self, rngs):
        self.stem = ConvolutionWithNorm(3, 4, 3, rngs=rngs)
        sizes = ((4, 2, 1), (2, 3, 6), (3, 3, 6))
        self.blocks = nnx.List(
            [InvertedResidual(*arguments, 1, rngs=rngs) for arguments in sizes]
        )
        self.dense = nnx.Linear(3, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu6(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.dense(x.mean((1, 2)))


@case
def mobilenet():
    # Maps: 4 after the stem, then 2, 3, 3. All blocks but the first expand by 6.
    model = shapes_of(MobileNet)

    def expanded(i, maps):
        # Each filter of a depthwise kernel reads one map, so its input axis is frozen.
        return (
            f"blocks/{i}/expand/conv {maps}: blocks/{i}/expand/conv/kernel.3p "
            f"blocks/{i}/expand/{NORM} blocks/{i}/filter/conv/kernel.3p "
            f"blocks/{i}/filter/{NORM} blocks/{i}/project/conv/kernel.2c"
        )

    return Case(
        call,
        model,
        IMAGES,
        f"""
        stem/conv 4: stem/conv/kernel.3p stem/{NORM} blocks/0/filter/conv/kernel.3p
            blocks/0/filter/{NORM} blocks/0/project/conv/kernel.2c
        blocks/0/project/conv 2: blocks/0/project/conv/kernel.3p blocks/0/project/{NORM}
            blocks/1/expand/conv/kernel.2c
        {expanded(1, 12)}
        blocks/1/project/conv 3: blocks/{{1,2}}/project/conv/kernel.3p
            blocks/{{1,2}}/project/{NORM} blocks/2/expand/conv/kernel.2c dense/kernel.0c
        {expanded(2, 18)}
        """,
        module=True,
    )


class Attention(nnx.Module):
    def __init__(self, rngs):
        self.attention = nnx.MultiHeadAttention(3, 12, decode=False, rngs=rngs)
        self.dense = nnx.Linear(12, 2, rngs=rngs)

    def __call__(self, x):
        return self.dense(x + self.attention(x))


@case
def nnx_attention():
    names = "attention/{query,key,value}"
    return Case(
        call,
        shapes_of(Attention),
        jnp.zeros((2, 5, 12)),
        f"attention/query 3: {names}/{{kernel.1p,bias.0b}} attention/out/kernel.0c",
        module=True,
    )


# Flax linen.


class Flattening(nn.Module):
    """Convolutions before a flatten, as in VGG."""

    @nn.compact
    def __call__(self, x):
        for maps in (4, 6):
            x = nn.relu(nn.Conv(maps, (3, 3))(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = x.reshape(x.shape[0], -1)
        return nn.Dense(3)(nn.relu(nn.Dense(5)(x)))


def linen(module, inputs, groups):
    shapes = jax.eval_shape(module.init, jax.random.key(0), inputs)
    return Case(module.apply, shapes, inputs, groups)


@case
def vgg():
    # Two poolings reduce 8 x 8 pixels to 2 x 2.
    groups = """
        params/Conv_0 4: params/Conv_0/{kernel.3p,bias.0b} params/Conv_1/kernel.2c
        params/Conv_1 6: params/Conv_1/{kernel.3p,bias.0b} params/Dense_1/kernel.0*4c
        params/Dense_1 5: params/Dense_1/{kernel.1p,bias.0b} params/Dense_0/kernel.0c
    """
    # Flax numbers layers in the order of construction, and Python evaluates the outer
    # constructor first.
    return linen(Flattening(), IMAGES, groups)


class UNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        high = nn.relu(nn.Conv(4, (3, 3))(x))
        low = nn.max_pool(high, (2, 2), (2, 2))
        low = nn.relu(nn.GroupNorm(num_groups=3)(nn.Conv(6, (3, 3))(low)))
        low = nn.ConvTranspose(5, (2, 2), (2, 2))(low)
        x = nn.relu(nn.Conv(4, (3, 3))(jnp.concatenate([high, low], -1)))
        return nn.Conv(2, (1, 1))(x)


@case
def unet():
    # The group norm has 3 groups of 2 maps, each of which is one channel.
    groups = """
        params/Conv_0 4: params/Conv_0/{kernel.3p,bias.0b} params/Conv_{1,2}/kernel.2c
        params/Conv_1 3: params/Conv_1/{kernel.3*2p,bias.0*2b}
            params/GroupNorm_0/{scale.0*2s,bias.0*2b} params/ConvTranspose_0/kernel.2*2c
        params/ConvTranspose_0 5: params/ConvTranspose_0/{kernel.3p,bias.0b}
            params/Conv_2/kernel.2c
        params/Conv_2 4: params/Conv_2/{kernel.3p,bias.0b} params/Conv_3/kernel.2c
    """
    return linen(UNet(), IMAGES, groups)


class DenseNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), use_bias=False)(x)
        for _ in range(2):
            y = nn.relu(nn.BatchNorm(use_running_average=True)(x))
            x = jnp.concatenate([x, nn.Conv(3, (3, 3), use_bias=False)(y)], -1)
        x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
        return nn.Dense(3)(nn.avg_pool(x, (2, 2), (2, 2)).mean((1, 2)))


@case
def densenet():
    # All later norms and layers read the maps that a layer adds.
    def norm(*layers):
        names = ",".join(map(str, layers))
        return (
            f"params/BatchNorm_{{{names}}}/{{scale.0s,bias.0b}} "
            f"batch_stats/BatchNorm_{{{names}}}/{{mean.0m,var.0m}}"
        )

    groups = f"""
        params/Conv_0 4: params/Conv_0/kernel.3p params/Conv_{{1,2}}/kernel.2c
            {norm(0, 1, 2)} params/Dense_0/kernel.0c
        params/Conv_1 3: params/Conv_1/kernel.3p params/Conv_2/kernel.2c {norm(1, 2)}
            params/Dense_0/kernel.0c
        params/Conv_2 3: params/Conv_2/kernel.3p {norm(2)} params/Dense_0/kernel.0c
    """
    return linen(DenseNet(), IMAGES, groups)


class ViT(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(12, (4, 4), (4, 4), name="patches")(x).reshape(x.shape[0], -1, 12)
        x = x + self.param("places", nn.initializers.zeros, (1, x.shape[1], 12))
        x = x + nn.MultiHeadDotProductAttention(3, name="heads")(nn.LayerNorm()(x))
        y = nn.gelu(nn.Dense(20, name="up")(nn.LayerNorm()(x)))
        x = x + nn.Dense(12, name="down")(y)
        return nn.Dense(3, name="head")(nn.LayerNorm()(x).mean(1))


@case
def vit():
    # A layer norm reduces over all features, so they are frozen.
    groups = """
        params/heads/query 3: params/heads/{query,key,value}/{kernel.1p,bias.0b}
            params/heads/out/kernel.0c
        params/up 20: params/up/{kernel.1p,bias.0b} params/down/kernel.0c
    """
    return linen(ViT(), IMAGES, groups)


class GPT(nn.Module):
    """A GPT of one block with fused projections, a gated MLP and tied embeddings."""

    stacked: bool = False
    """Whether query, key and value are split along a new axis."""

    @nn.compact
    def __call__(self, tokens):
        table = nn.Embed(11, 12, name="tokens")
        batch, length = tokens.shape
        x = table(tokens) + nn.Embed(8, 12, name="places")(jnp.arange(length))[None]
        qkv = nn.Dense(36, name="qkv")(nn.LayerNorm()(x))
        if self.stacked:
            q, k, v = jnp.moveaxis(qkv.reshape(batch, length, 3, 3, 4), 2, 0)
        else:
            parts = jnp.split(qkv, 3, -1)
            q, k, v = (part.reshape(batch, length, 3, 4) for part in parts)
        scores = jnp.einsum("bthd,bshd->bhts", q, k) / 2
        seen = jnp.tril(jnp.ones((length, length), bool))
        attention = nn.softmax(jnp.where(seen[None, None], scores, -1e9))
        y = jnp.einsum("bhts,bshd->bthd", attention, v).reshape(batch, length, 12)
        x = x + nn.Dense(12, name="out")(y)
        y = nn.LayerNorm()(x)
        y = nn.silu(nn.Dense(16, name="gate")(y)) * nn.Dense(16, name="up")(y)
        return table.attend(nn.LayerNorm()(x + nn.Dense(12, name="down")(y)))


# A head has 4 positions in each of query, key and value.
GPT_GROUPS = """
    params/qkv 3: params/qkv/{kernel.1*12p,bias.0*12b} params/out/kernel.0*4c
    params/gate 16: params/{gate,up}/{kernel.1p,bias.0b} params/down/kernel.0c
"""


@case
def gpt():
    return linen(GPT(), jnp.zeros((2, 8), jnp.int32), GPT_GROUPS)


@case
def gpt_stacked():
    return linen(GPT(stacked=True), jnp.zeros((2, 8), jnp.int32), GPT_GROUPS)


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x + nn.Dense(6, name="down")(nn.relu(nn.Dense(5, name="up")(x))), None


class Stacked(nn.Module):
    """Layers stacked by scan, where all layers share their channels."""

    @nn.compact
    def __call__(self, x):
        layers = nn.scan(
            Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
        )
        x, _ = layers(name="layers")(nn.Dense(6, name="first")(x), None)
        return nn.Dense(2, name="last")(x)


@case
def stacked():
    groups = """
        params/first 6: params/first/{kernel.1p,bias.0b} params/layers/up/kernel.1c
            params/layers/down/{kernel.2p,bias.1b} params/last/kernel.0c
        params/layers/up 5: params/layers/up/{kernel.2p,bias.1b}
            params/layers/down/kernel.1c
    """
    return linen(Stacked(), jnp.zeros((2, 4)), groups)


# Equinox and haiku.


def apply_to_batch(model, x):
    return jax.vmap(model)(x)


@case
def equinox_cnn():
    def make(key):
        return eqx.nn.Sequential(
            [
                eqx.nn.Conv2d(3, 8, 3, key=key),
                eqx.nn.GroupNorm(4, 8),
                eqx.nn.Lambda(jax.nn.relu),
                eqx.nn.Conv2d(8, 8, 3, groups=8, key=key),
                eqx.nn.MaxPool2d(2, 2),
                eqx.nn.Lambda(jnp.ravel),
                eqx.nn.Linear(32, 5, key=key),
                eqx.nn.Lambda(jax.nn.sigmoid),
                eqx.nn.Linear(5, 2, key=key),
            ]
        )

    model = eqx.filter_eval_shape(make, jax.random.key(0))
    # Equinox puts the maps first. Pixels: 8, 6, 4, then 2 after pooling, so a channel
    # of 2 maps has 2 x 2 x 2 positions in the dense layer.
    return Case(
        apply_to_batch,
        model,
        jnp.zeros((2, 3, 8, 8)),
        """
        layers/0 4: layers/0/{weight.0*2p,bias.0*2b} layers/1/{weight.0*2s,bias.0*2b}
            layers/3/{weight.0*2p,bias.0*2b} layers/6/weight.1*8c
        layers/6 5: layers/6/{weight.0p,bias.0b} layers/8/weight.1c
        """,
        module=True,
    )


class EquinoxBlock(eqx.Module):
    attention: eqx.nn.MultiheadAttention
    norm: eqx.nn.LayerNorm
    mlp: eqx.nn.MLP

    def __call__(self, x):
        x = x + self.attention(x, x, x)
        return x + jax.vmap(self.mlp)(jax.vmap(self.norm)(x))


@case
def equinox_transformer():
    keys = jax.random.split(jax.random.key(0), 2)
    model = EquinoxBlock(
        eqx.nn.MultiheadAttention(3, 12, key=keys[0]),
        eqx.nn.LayerNorm(12),
        eqx.nn.MLP(12, 12, 7, 1, key=keys[1]),
    )
    return Case(
        apply_to_batch,
        model,
        jnp.zeros((2, 5, 12)),
        """
        attention/query_proj 3: attention/{query,key,value}_proj/weight.0*4p
            attention/output_proj/weight.1*4c
        mlp/layers/0 7: mlp/layers/0/{weight.0p,bias.0b} mlp/layers/1/weight.1c
        """,
        module=True,
    )


class EquinoxNorm(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    dense: eqx.nn.Linear

    def __call__(self, x, state):
        x, state = self.norm(self.conv(x), state)
        return self.dense(jax.nn.relu(x).mean((1, 2)))


@case
def equinox_batch_norm():
    keys = jax.random.split(jax.random.key(0), 2)

    def make():
        return EquinoxNorm(
            eqx.nn.Conv2d(3, 4, 3, key=keys[0]),
            eqx.nn.BatchNorm(4, "batch", mode="ema"),
            eqx.nn.Linear(4, 2, key=keys[1]),
        )

    model, state = eqx.nn.make_with_state(make)()
    params = eqx.nn.inference_mode(model), state

    def apply(params, x):
        model, state = params
        return jax.vmap(lambda x: model(x, state), axis_name="batch")(x)

    # Equinox numbers the running statistics in its `State`.
    groups = """
        0/conv 4: 0/conv/{weight.0p,bias.0b} 1/1/{0,1}.0m 0/norm/{weight.0s,bias.0b}
            0/dense/weight.1c
    """
    return Case(apply, params, jnp.zeros((2, 3, 6, 6)), groups, module=True)


@case
def haiku():
    def network(x, training):
        x = jax.nn.relu(hk.Conv2D(4, 3)(x))
        x = hk.BatchNorm(True, True, 0.9)(x, training)
        return hk.Linear(2)(jax.nn.relu(hk.Linear(6)(hk.Flatten()(x))))

    inputs = jnp.zeros((2, 4, 4, 3))
    model = hk.transform_with_state(network)
    shapes = jax.eval_shape(
        lambda key, x: model.init(key, x, True), jax.random.key(0), inputs
    )

    def apply(params, x):
        return model.apply(*params, None, x, False)[0]

    ema = "1/batch_norm/~/{mean,var}_ema/average.3m"
    groups = f"""
        0/conv2_d 4: 0/conv2_d/{{w.3p,b.0b}} 0/batch_norm/{{scale.3s,offset.3b}} {ema}
            0/linear_1/w.0*16c
        0/linear_1 6: 0/linear_1/{{w.1p,b.0b}} 0/linear/w.0c
    """
    return Case(apply, shapes, inputs, groups)
