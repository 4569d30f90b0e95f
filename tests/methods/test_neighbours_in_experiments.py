"""The experiments' Feather and gradual pruning by layers, by hand and on networks."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import swd_jax
from experiments import layer_rules, methods
from experiments.method import Training
from experiments.run import Run
from experiments.task import groups_of
from models.coordinates import CoordinateNetwork
from models.gcn import GCN, SparseGraph
from models.lenet import LeNet5, LeNet300
from models.macs import leaf_name
from models.resnet import cifar_resnet
from models.transformer import Transformer

# The library's lines that it runs, other tests run too.
pytestmark = pytest.mark.no_cover

RUN = Run(
    experiment="tiny",
    data="digits",
    model="lenet-300-100",
    method="gradual-layers",
    sparsity=0.9,
    seed=0,
    epochs=1,
    learning_rate=1e-2,
    rise=0.5,
)


@pytest.fixture(autouse=True)
def _promotion_of_ranks():
    # Flax's layers add biases to rows.
    with jax.numpy_rank_promotion("allow"):
        yield


def training_of(sparsity, groups=lambda: None, **settings):
    run = dataclasses.replace(RUN, **settings)
    return Training(run, sparsity, steps=10, steps_per_epoch=1, groups=groups)


class TestLayerCounts:
    SIZES = {"conv1/kernel": 10, "dense1/kernel": 500, "dense2/kernel": 390} | {
        "dense3/kernel": 100
    }

    def test_the_first_is_dense_and_the_last_loses_four_fifths(self):
        # Of 1,000 weights 100 are kept: 10 of the first, 20 of the last, and 70 of the
        # 890 others: 8.089 and 30.67 are rounded so that the sum is right.
        counts = layer_rules.layer_counts(self.SIZES, 0.9)
        assert counts == {
            "conv1/kernel": 0,
            "dense1/kernel": 461,
            "dense2/kernel": 359,
            "dense3/kernel": 80,
        }

    def test_the_last_is_as_sparse_as_the_others_below_four_fifths(self):
        # 495 of all but the first, which are 990: half of each.
        counts = layer_rules.layer_counts(self.SIZES, 0.495)
        assert list(counts.values()) == [0, 250, 195, 50]

    def test_an_exception_that_would_take_too_much_is_none(self):
        # 50 are kept, of which the two exceptions would be 30: the last is none.
        counts = layer_rules.layer_counts(self.SIZES, 0.95)
        assert counts["conv1/kernel"] == 0
        assert counts["dense3/kernel"] in (95, 96)
        assert sum(counts.values()) == 950
        # 10 are kept, and none is an exception.
        counts = layer_rules.layer_counts(self.SIZES, 0.99)
        assert sum(counts.values()) == 990
        assert all(
            abs(count - 0.99 * self.SIZES[path]) < 1 for path, count in counts.items()
        )

    @pytest.mark.parametrize(
        ("sparsity", "of_others"),
        [(0.8, 0.8), (0.9, 0.91), (0.95, 0.96), (0.965, 0.98)],
    )
    def test_resnet_50_is_as_published(self, sparsity, of_others):
        """Names of the checkpoints of google-research/state_of_sparsity."""
        sizes = {"stem/": 9_408, "blocks/": 23_445_504, "dense/": 2_048_000}
        counts = layer_rules.layer_counts(sizes, sparsity)
        assert counts["stem/"] == 0
        assert counts["dense/"] == 1_638_400
        assert counts["blocks/"] / sizes["blocks/"] == pytest.approx(
            of_others, abs=0.005
        )


GRAPH = SparseGraph(*[jnp.arange(5) for _ in range(6)])
NETWORKS = {
    "lenet-300-100": (
        lambda rngs: LeNet300(pixels=64, rngs=rngs),
        jnp.zeros((1, 64)),
        ("dense1/kernel", "dense3/kernel"),
    ),
    "lenet-5": (
        lambda rngs: LeNet5(rngs=rngs),
        jnp.zeros((1, 28, 28, 1)),
        ("conv1/kernel", "dense3/kernel"),
    ),
    "gcn": (
        lambda rngs: GCN(5, 1433, classes=7, rngs=rngs),
        GRAPH,
        ("first/kernel", "second/kernel"),
    ),
    "picture": (
        lambda rngs: CoordinateNetwork(rngs=rngs),
        jnp.zeros((1, 2)),
        ("dense1/kernel", "dense3/kernel"),
    ),
    "transformer": (
        lambda rngs: Transformer(65, rngs=rngs),
        jnp.zeros((1, 64), jnp.int32),
        ("characters/embedding", "head/kernel"),
    ),
    "resnet-8": (
        lambda rngs: cifar_resnet(8, width=8, classes=10, rngs=rngs),
        jnp.zeros((1, 32, 32, 3)),
        ("stem/conv/kernel", "dense/kernel"),
    ),
}


@functools.cache
def groups_and_params(name):
    make, example, _ = NETWORKS[name]
    return groups_of(make, example), nnx.state(make(nnx.Rngs(0)), nnx.Param)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "sparsity",
    [0.9, *(pytest.param(s, marks=pytest.mark.slow) for s in (0.5, 0.98, 0.995))],
)
def test_gradual_layers_prunes_to_the_last_weight(name, sparsity):
    _, _, (first, last) = NETWORKS[name]
    groups, params = groups_and_params(name)
    method = layer_rules.gradual_layers(training_of(sparsity, groups))
    mask = swd_jax.prune_mask(params, method.target)
    zeros, sizes = {}, {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(mask):
        if leaf.ndim > 1:
            zeros[leaf_name(path)] = int((~leaf).sum())
            sizes[leaf_name(path)] = leaf.size
    total = sum(sizes.values())
    assert sum(zeros.values()) == int(round(sparsity * 1000) * total // 1000)
    assert zeros == layer_rules.layer_counts(sizes, sparsity)
    # The smaller exception stands at least as long as the larger one.
    claims = {first: sizes[first], last: sizes[last] - int(0.8 * sizes[last])}
    kept, smaller = total - sum(zeros.values()), min(claims, key=claims.get)
    if 2 * claims[smaller] <= kept:
        assert zeros[smaller] <= {first: 0, last: 0.8 * sizes[last]}[smaller]


def test_every_layer_rises_to_its_own_end():
    make, example, _ = NETWORKS["lenet-5"]
    training = training_of(0.9, groups_of(make, example))
    target = layer_rules.gradual_layers(training).target
    params = nnx.state(make(nnx.Rngs(0)), nnx.Param)

    def pruned(step):
        mask = swd_jax.prune_mask(params, target, step=step)
        return [int((~leaf).sum()) for leaf in jax.tree.leaves(mask) if leaf.ndim > 1]

    sizes = np.array([150, 2400, 48_000, 10_080, 840])
    # Of 5 steps, 2: the cube of 3/5 is left to go.
    end, early = np.array(pruned(5)), np.array(pruned(2))
    np.testing.assert_allclose(early, end * (1 - 0.6**3), atol=1.01)
    assert end[0] == early[0] == 0
    assert end[-1] == 0.8 * 840
    assert end.sum() == 0.9 * sizes.sum()


def test_gradual_layers_leaves_what_is_spared():
    make, example, _ = NETWORKS["transformer"]
    training = training_of(0.9, groups_of(make, example), spared="embedding$")
    method = layer_rules.gradual_layers(training)
    params = nnx.state(make(nnx.Rngs(0)), nnx.Param)
    pruned = swd_jax.prune(params, method.target)
    assert int((pruned["characters"]["embedding"][...] == 0).sum()) == 0


@pytest.mark.parametrize(("sparsity", "theta"), [(0.95, 1), (0.951, 0.5)])
@pytest.mark.parametrize("traced", [False, True])
def test_feather_is_that_of_its_authors(sparsity, theta, traced):
    weights = {"kernel": jnp.arange(1.0, 1001).reshape(10, 100)}

    def values(sparsity, step):
        trained = methods.feather(training_of(sparsity)).trained
        pruned, pullback = jax.vjp(lambda w: trained(w, step), weights)
        [gradient] = pullback(jax.tree.map(jnp.ones_like, weights))
        return pruned["kernel"], gradient["kernel"]

    compute = jax.jit(values) if traced else values
    k = int(1000 * sparsity)
    # The rise ends at half of the ten steps.
    pruned, gradient = compute(np.float32(sparsity) if traced else sparsity, 5)
    expected = np.maximum(np.arange(1.0, 1001) ** 3 - float(k) ** 3, 0) ** (1 / 3)
    np.testing.assert_allclose(pruned.ravel(), expected, rtol=1e-5)
    np.testing.assert_array_equal(gradient.ravel(), [theta] * k + [1] * (1000 - k))
