"""ERK sparsities against published numbers and a solution by hand."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swd_jax
from swd_jax._allocation import erk


def resnet50():
    """Kernel shapes of ResNet-50, and the length of a side of what each computes."""
    layers = [((7, 7, 3, 64), 112)]
    inputs = 64
    for stage, (width, blocks, side) in enumerate(
        [(64, 3, 56), (128, 4, 28), (256, 6, 14), (512, 3, 7)]
    ):
        for block in range(blocks):
            # The first convolution of a stage still sees the larger image.
            larger = block == 0 and stage > 0
            layers.append(((1, 1, inputs, width), 2 * side if larger else side))
            layers.append(((3, 3, width, width), side))
            layers.append(((1, 1, width, 4 * width), side))
            if block == 0:
                layers.append(((1, 1, inputs, 4 * width), side))
            inputs = 4 * width
    return [*layers, ((2048, 1000), 1)]


AT_90_PERCENT = {
    (7, 7, 3, 64): 0.579967,
    (1, 1, 64, 64): 0,
    (3, 3, 64, 64): 0.822663,
    (1, 1, 64, 256): 0.041191,
    (1, 1, 256, 64): 0.041191,
    (1, 1, 256, 128): 0.425310,
    (3, 3, 128, 128): 0.913317,
    (1, 1, 128, 512): 0.522084,
    (1, 1, 256, 512): 0.713400,
    (1, 1, 512, 128): 0.522084,
    (1, 1, 512, 256): 0.713400,
    (3, 3, 256, 256): 0.957155,
    (1, 1, 256, 1024): 0.761414,
    (1, 1, 512, 1024): 0.856886,
    (1, 1, 1024, 256): 0.761414,
    (1, 1, 1024, 512): 0.856886,
    (3, 3, 512, 512): 0.978701,
    (1, 1, 512, 2048): 0.880800,
    (1, 1, 1024, 2048): 0.928489,
    (1, 1, 2048, 512): 0.880800,
    (2048, 1000): 0.927393,
}


def test_erk_agrees_with_the_table_for_resnet_50():
    shapes = [shape for shape, _ in resnet50()]
    assert len(shapes) == 54
    sparsities = erk.erk_sparsities(Fraction(9, 10), shapes)
    expected = [AT_90_PERCENT[shape] for shape in shapes]
    np.testing.assert_allclose(np.array(sparsities, float), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("sparsity", "published"), [("0.8", 0.42), ("0.9", 0.24), ("0.95", 0.12)]
)
def test_erk_keeps_as_many_products_as_its_paper_counts(sparsity, published):
    """The FLOPs for a test of ResNet-50, table 2 of arXiv 1911.11134."""
    layers = resnet50()
    sparsities = erk.erk_sparsities(Fraction(sparsity), [shape for shape, _ in layers])
    products = [np.prod(shape) * side**2 for shape, side in layers]
    kept_products = sum(
        n * (1 - float(s)) for n, s in zip(products, sparsities, strict=True)
    )
    assert kept_products / sum(products) == pytest.approx(published, abs=0.01)


@pytest.mark.parametrize("sparsity", ["0", "0.3", "0.8", "0.95", "0.999"])
def test_erk_of_a_schedule_is_that_of_the_number(sparsity):
    shapes = [shape for shape, _ in resnet50()]
    exact = erk.erk_sparsities(Fraction(sparsity), shapes)
    traced = jax.jit(lambda s: erk.erk_sparsities(s, shapes))(
        jnp.float32(float(Fraction(sparsity)))
    )
    np.testing.assert_allclose(
        np.array(traced), np.array(exact, float), atol=3e-6, rtol=1e-5
    )
    # Of all leaves together it is the given sparsity, and never more.
    sizes = np.array([np.prod(shape) for shape in shapes], float)
    whole = (np.array(exact, float) * sizes).sum() / sizes.sum()
    assert float(Fraction(sparsity)) - 2e-7 <= whole + 1e-12
    assert whole <= float(Fraction(sparsity)) + 1e-12


def test_erk_prunes_each_leaf_to_its_own_sparsity():
    # Ratios (4 + 4) / 16 and (8 + 8) / 64: a leaf's kept share is twice the other's,
    # e/2 and e/4, and 8 e + 16 e = 40 kept weights: e = 5/3, 5/6 and 5/12.
    rng = np.random.default_rng(0)
    params = {
        "small": rng.normal(size=(4, 4)).astype(np.float32),
        "large": rng.normal(size=(8, 8)).astype(np.float32),
    }
    mask = swd_jax.prune_mask(params, swd_jax.Target(0.5, scope="erk"))
    num_pruned = {name: int((~leaf).sum()) for name, leaf in mask.items()}
    assert num_pruned == {"small": int(16 / 6), "large": int(64 * 7 / 12)}
    for name, leaf in params.items():
        order = np.argsort(np.abs(leaf), axis=None)[: num_pruned[name]]
        assert set(np.flatnonzero(~np.asarray(mask[name]))) == set(order)


def dense_first(sparsity, shapes):
    """Solve for epsilon by making one leaf dense after the other."""
    sizes = [Fraction(int(np.prod(shape))) for shape in shapes]
    ratios = [sum(shape) / size for shape, size in zip(shapes, sizes, strict=True)]
    dense = set()
    while True:
        sparse = set(range(len(shapes))) - dense
        budget = (1 - sparsity) * sum(sizes) - sum(sizes[i] for i in dense)
        epsilon = budget / sum(ratios[i] * sizes[i] for i in sparse)
        largest = max(sparse, key=lambda i: ratios[i])
        if epsilon * ratios[largest] <= 1:
            return [
                0 if i in dense else 1 - epsilon * ratios[i] for i in range(len(shapes))
            ]
        dense.add(largest)


@pytest.mark.parametrize("sparsity", ["0", "0.05", "0.3", "0.7", "0.99"])
def test_erk_is_the_solution_found_leaf_by_leaf(sparsity):
    rng = np.random.default_rng(0)
    shapes = [
        tuple(rng.integers(1, 40, size=rng.integers(1, 5)).tolist()) for _ in range(40)
    ]
    sparsities = erk.erk_sparsities(Fraction(sparsity), shapes)
    assert sparsities == dense_first(Fraction(sparsity), shapes)
    total = sum(int(np.prod(shape)) for shape in shapes)
    pruned = sum(
        s * int(np.prod(shape)) for s, shape in zip(sparsities, shapes, strict=True)
    )
    assert pruned == Fraction(sparsity) * total
