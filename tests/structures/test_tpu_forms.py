"""The forms that structures have for TPUs, run here: the same bits as elsewhere."""

import functools

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import swd_jax
from swd_jax import NM, Block, Channel, Target
from swd_jax._arrays import packed_masks, row_chunks
from tests.helpers import quickly
from tests.helpers.every_target import expected_masks, needed, random_case, target_of

STRUCTURES = {
    "blocks": Block((4, 2)),
    "edges": Block((3, 5), norm="l1"),
    "columns": Block((None, 1), norm="l2"),
    "2 of 4": NM(2, 4, axis=-2),
    "3 of 5": NM(3, 5, axis=-1),
    "outputs": Channel(-1),
    "heads": Channel(-1, size=4, norm="mean"),
}
TRANSFORMATIONS = {
    "swd": lambda target: swd_jax.swd(target, weight_decay=0.1, a=2.0),
    "decoupled_swd": lambda target: swd_jax.decoupled_swd(
        target, weight_decay=0.1, a=2.0, learning_rate=0.1
    ),
    "magnitude_pruning": swd_jax.methods.magnitude_pruning,
    "sparsify": lambda target: swd_jax.sparsify(target, 4),
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Leaves of a few hundred weights are divided as large ones are."""
    monkeypatch.setattr(row_chunks, "_CHUNK_SIZE", 64)


def for_tpu(target):
    return Target(
        target.sparsity,
        structure=target.structure.for_tpu(),
        scope=target.scope,
        criterion=target.criterion,
    )


CASES = [
    (structure, criterion, dtype)
    for structure in STRUCTURES
    for criterion in ("magnitude", "saliency", "random")
    for dtype in (np.float32, ml_dtypes.bfloat16)
]
# Each structure, with each criterion and type more than once.
QUICK = CASES[::5]


@pytest.mark.parametrize(
    ("structure", "criterion", "dtype"),
    [
        pytest.param(
            *case,
            id=f"{case[0]}-{case[1]}-{np.dtype(case[2]).name}",
            marks=[] if case in QUICK else pytest.mark.slow,
        )
        for case in CASES
    ],
)
def test_they_prune_what_a_loop_over_groups_does(structure, criterion, dtype):
    target = for_tpu(target_of(structure, criterion, "global"))
    params, extra_args = random_case(0, dtype)
    extra_args = needed(target, extra_args)
    expected = expected_masks(structure, criterion, "global", params, extra_args)
    mask_of = quickly.jit(
        lambda params, e: swd_jax.prune_mask(params, target, extra_args=e)
    )
    chex.assert_trees_all_equal(mask_of(params, extra_args), expected)


SHAPES = {
    "even": (64, 32),
    "odd": (37, 23),
    "convolution": (3, 2, 20, 16),
    "short": (2, 300),
    "flat": (3, 1, 50),
}


NMS_AND_BLOCKS = (NM(2, 4, axis=-2), NM(8, 16, axis=0), Block((4, 4)))
PAIRS = [(name, structure) for name in TRANSFORMATIONS for structure in NMS_AND_BLOCKS]


@pytest.mark.parametrize(
    ("name", "structure"),
    [
        # Each transformation once, and each structure.
        pytest.param(*pair, marks=[] if i in (0, 4, 8, 11) else pytest.mark.slow)
        for i, pair in enumerate(PAIRS)
    ],
    ids=str,
)
def test_transformations_give_the_same_bits(name, structure):
    rng = np.random.default_rng(0)
    params = {
        key: jnp.asarray(rng.normal(size=shape).round(1), jnp.float32)
        for key, shape in SHAPES.items()
    }
    gradients = jax.tree.map(lambda leaf: leaf[::-1] / 10, params)
    target = Target(
        0.4, structure=structure, criterion="saliency" if name == "swd" else "magnitude"
    )

    def results(target):
        tx = TRANSFORMATIONS[name](target)
        update = quickly.jit(tx.update)
        state = tx.init(params)
        for _ in range(2):
            updates, state = update(gradients, state, params)
        return updates, state

    chex.assert_trees_all_equal(results(for_tpu(target)), results(target))


def text_for(platform, function, *arguments):
    traced = jax.jit(function).trace(*arguments)
    return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("structure", [NM(2, 4, axis=-2), Block((4, 4))], ids=str)
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_a_tpu_gets_packed_masks_and_no_other_platform_does(name, structure):
    params = {"kernel": jax.ShapeDtypeStruct((64, 32), jnp.float32)}
    tx = TRANSFORMATIONS[name](Target(0.5, structure=structure))
    state = jax.eval_shape(tx.init, params)
    rows = 64 // (1 if isinstance(structure, NM) else 4)
    words = f"tensor<{rows // min(rows, 32)}x32xui32>"
    texts = {
        platform: text_for(platform, tx.update, params, state, params)
        for platform in ("tpu", "cpu", "cuda")
    }
    assert words in texts["tpu"]
    assert words not in texts["cpu"]
    assert words not in texts["cuda"]


@pytest.mark.parametrize("structure", [NM(2, 4, axis=-2), Block((4, 4))], ids=str)
@pytest.mark.parametrize("function", [swd_jax.prune, swd_jax.prune_mask])
def test_pruning_on_a_tpu_does_too(function, structure):
    params = {"kernel": jax.ShapeDtypeStruct((64, 32), jnp.float32)}
    prune = functools.partial(function, target=Target(0.5, structure=structure))
    # Units are packed four to a word at 4 x 4, and rows 32 to a word.
    words = "1x32xui32" if isinstance(structure, Block) else "2x32xui32"
    assert f"tensor<{words}>" in text_for("tpu", prune, params)
    assert f"tensor<{words}>" not in text_for("cpu", prune, params)


@pytest.mark.parametrize(
    "structure", [NM(2, 4, axis=-2), Block((4, 4)), Channel(-1)], ids=str
)
@pytest.mark.parametrize("shape", [(0, 8), (8, 0)])
def test_an_empty_leaf_stays_empty(structure, shape):
    target = Target(0.5, structure=structure.for_tpu(), scope="local")
    params = {"empty": jnp.ones(shape), "kernel": jnp.ones((8, 8))}
    kept = jax.jit(lambda params: swd_jax.prune_mask(params, target))(params)
    assert kept["empty"].shape == shape
    assert kept["kernel"].sum() == 32


def test_straight_through_training_does_too_and_its_gradient_is_the_same():
    params = {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=(64, 32)))}
    target = Target(0.5, structure=NM(2, 4, axis=-2))

    def loss(params):
        pruned = swd_jax.methods.straight_through(params, target, soft=False)
        return jnp.sum(jnp.sin(pruned["kernel"]))

    assert "tensor<2x32xui32>" in text_for("tpu", jax.grad(loss), params)
    pruned = swd_jax.prune(params, target)["kernel"]
    np.testing.assert_allclose(
        jax.jit(jax.grad(loss))(params)["kernel"], np.cos(pruned), rtol=1e-6
    )


class TestPackedMasks:
    @pytest.mark.parametrize("shape", [(64, 5), (48, 3), (2, 3, 40, 2), (3, 7), (72,)])
    @pytest.mark.parametrize("repeats", [1, 3])
    def test_unpacking_returns_what_was_packed(self, shape, repeats):
        mask = np.random.default_rng(0).random(shape) < 0.5
        axis = max(len(shape) - 2, 0)
        rows = packed_masks.rows_per_word(jnp.asarray(mask))
        assert rows == {64: 32, 48: 24, 40: 8, 3: 3, 72: 24}[shape[axis]]
        words = packed_masks.pack(jnp.asarray(mask), rows)
        assert words.shape[axis] == shape[axis] // rows
        repeated = np.repeat(mask, repeats, axis)[
            *(slice(None),) * axis, : shape[axis] * repeats - (repeats > 1)
        ]
        unpacked = packed_masks.unpack(words, repeated.shape, rows, repeats)
        np.testing.assert_array_equal(unpacked, repeated)

    @pytest.mark.parametrize("rows", [33, 50, 50_257])
    def test_rows_that_fill_no_words_are_not_packed(self, rows):
        assert packed_masks.rows_per_word(jnp.zeros((rows, 2))) is None

    def test_the_first_row_is_the_lowest_bit(self):
        mask = np.zeros((64, 2), bool)
        mask[[0, 5], 0] = True
        mask[33, 1] = True
        words = packed_masks.pack(jnp.asarray(mask), 32)
        np.testing.assert_array_equal(words, [[1 + 2**5, 0], [0, 2]])


class TestRowChunks:
    @pytest.mark.parametrize(
        ("shape", "rows_per_unit"),
        [
            ((40, 8), 2),
            ((40, 8), 1),
            ((41, 8), 4),
            ((3, 30, 2), 5),
            ((500,), 3),
            ((2, 8), 2),
            ((5, 1000), 2),
        ],
    )
    def test_a_function_of_units_gives_what_it_makes_of_all(self, shape, rows_per_unit):
        axis = max(len(shape) - 2, 0)
        rng = np.random.default_rng(0)
        inputs = {
            name: jnp.asarray(rng.integers(0, 100, shape), jnp.int32) for name in "ab"
        }

        def sums_of_units(inputs):
            product = inputs["a"] * inputs["b"]
            starts = np.arange(0, product.shape[axis], rows_per_unit)
            parts = [
                jnp.sum(
                    jax.lax.slice_in_dim(
                        product,
                        start,
                        min(start + rows_per_unit, product.shape[axis]),
                        axis=axis,
                    ),
                    axis,
                    keepdims=True,
                )
                for start in starts
            ]
            return jnp.concatenate(parts, axis)

        map_rows = functools.partial(
            row_chunks.map_rows, sums_of_units, rows_per_unit=rows_per_unit
        )
        np.testing.assert_array_equal(jax.jit(map_rows)(inputs), sums_of_units(inputs))

    def test_no_more_than_a_chunk_is_computed_at_a_time(self):
        sizes = []

        def function(array):
            sizes.append(array.size)
            return array + 1

        jax.eval_shape(
            lambda array: row_chunks.map_rows(function, array, 1),
            jax.ShapeDtypeStruct((1000, 8), jnp.float32),
        )
        assert max(sizes) <= 64

    def test_results_may_have_more_rows(self):
        units = jnp.arange(120.0).reshape(60, 2)
        repeated = row_chunks.map_rows(
            lambda rows: jnp.repeat(rows, 3, axis=0), units, 1, growth=3
        )
        np.testing.assert_array_equal(repeated, np.repeat(np.asarray(units), 3, axis=0))
