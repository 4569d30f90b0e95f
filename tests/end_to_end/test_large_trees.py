"""Trees too large to be there: shapes of a transformer of 70 billion weights."""

import math

import jax
import jax.numpy as jnp
import optax
import pytest

import swd_jax

# The library's lines that it runs, other tests run too.
pytestmark = pytest.mark.no_cover

LAYERS, WIDTH, INNER, WORDS = 80, 8192, 28_672, 128_256
LAYER = {
    "query": (WIDTH, WIDTH),
    "key": (WIDTH, 1024),
    "value": (WIDTH, 1024),
    "out": (WIDTH, WIDTH),
    "gate": (WIDTH, INNER),
    "up": (WIDTH, INNER),
    "down": (INNER, WIDTH),
    "norm_1": (WIDTH,),
    "norm_2": (WIDTH,),
}
ENDS = {"embedding": (WORDS, WIDTH), "head": (WIDTH, WORDS), "norm": (WIDTH,)}


def abstract(shapes):
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.bfloat16),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


STACKED = abstract(
    {"layers": {name: (LAYERS, *shape) for name, shape in LAYER.items()}} | ENDS
)
APART = abstract({"layers": [LAYER] * LAYERS} | ENDS)


@pytest.mark.parametrize(
    ("params", "criterion"),
    [(STACKED, "magnitude"), (STACKED, "normalized_magnitude"), (APART, "magnitude")],
)
def test_a_step_is_traced_and_lowered(params, criterion):
    target = swd_jax.Target(0.9, criterion=criterion)
    tx = optax.chain(swd_jax.swd(target, weight_decay=5e-4, a=1.0), optax.sgd(0.1))
    state = jax.eval_shape(tx.init, params)
    # However many weights: four numbers of 4 bytes, and two to start from.
    assert sum(math.prod(each.shape) * 4 for each in jax.tree.leaves(state)) == 24
    updates, after = jax.eval_shape(tx.update, params, state, params)
    assert jax.tree.map(lambda leaf: leaf.shape, updates) == jax.tree.map(
        lambda leaf: leaf.shape, params
    )
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert "stablehlo" in jax.jit(tx.update).lower(params, state, params).as_text()


def test_what_is_pruned_and_its_mask_have_the_shapes_of_the_weights():
    pruned, mask = jax.eval_shape(
        lambda params: (swd_jax.prune(params, 0.9), swd_jax.prune_mask(params, 0.9)),
        STACKED,
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(STACKED)) == 70_553_706_496
    for leaf, kept, whole in zip(
        *map(jax.tree.leaves, (pruned, mask, STACKED)), strict=True
    ):
        assert (leaf.shape, leaf.dtype) == (whole.shape, whole.dtype)
        assert (kept.shape, kept.dtype) == (whole.shape, jnp.bool_)
