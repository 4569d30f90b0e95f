"""Structures against loops in NumPy, under every criterion and scope."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

import swd_jax
from tests.helpers import quickly, reference, structured

STRUCTURES = {
    "unstructured": swd_jax.Unstructured(),
    "blocks of 2 x 3": swd_jax.Block((2, 3)),
    "blocks of whole columns": swd_jax.Block((None, 2), norm="l2"),
    "2 of 4": swd_jax.NM(2, 4, axis=-2),
    "1 of 3 along rows": swd_jax.NM(1, 3, axis=-1),
    "outputs": swd_jax.Channel(-1, norm="mean"),
    "inputs": swd_jax.Channel(-2, norm="l1"),
    "heads of 2": swd_jax.Channel(-1, size=2),
}
EVERYTHING = {"prunable": lambda path, leaf: True}


def weights_of(shapes, dtype, seed, *, rounded=True):
    """Random weights; rounded, so that whole groups tie."""
    rng = np.random.default_rng(seed)
    leaves = [rng.normal(size=shape) for shape in shapes]
    return [(leaf.round(0) if rounded else leaf).astype(dtype) for leaf in leaves]


def expected_losses(leaves, structure, groups, sparsities, scores=np.abs):
    """What pruning takes, by brute force: a mask for each leaf."""
    found = [
        structured.groups(structure, np.asarray(scores(leaf), np.float32))
        for leaf in leaves
    ]
    lost = [None] * len(leaves)
    for group, sparsity in zip(groups, sparsities, strict=True):
        total = sum(leaves[i].size for i in group)
        budget = min(reference.pruned_count(sparsity, total), max(total - 1, 0))
        masks = reference.group_lowest(
            [found[i][0] for i in group], [found[i][1] for i in group], budget
        )
        for i, mask in zip(group, masks, strict=True):
            lost[i] = mask.ravel()[found[i][2]]
    return lost


def pruned_by(leaves, target):
    return [np.asarray(mask) for mask in swd_jax.prune_mask(leaves, target)]


# Each structure under both scopes with two sparsities, and two structures in bfloat16.
SPARSITIES = [0.0, 0.1, 0.3, 0.5]
CASES = [
    (name, scope, SPARSITIES[(i + 2 * k + i // 4) % 4], np.float32)
    for i, name in enumerate(STRUCTURES)
    for k, scope in enumerate(["global", "local"])
]
CASES += [
    ("blocks of 2 x 3", "local", 0.3, ml_dtypes.bfloat16),
    ("2 of 4", "global", 0.3, ml_dtypes.bfloat16),
]


# Each structure with one of the scopes; with the other one among the slow tests.
SPREAD_CASES = [
    pytest.param(*case, marks=[] if i % 4 in {0, 3} else pytest.mark.slow)
    for i, case in enumerate(CASES)
]


@pytest.mark.no_cover  # the next test runs the same lines once
@pytest.mark.parametrize(("name", "scope", "sparsity", "dtype"), SPREAD_CASES)
def test_pruning_is_that_of_a_loop_over_groups(name, scope, sparsity, dtype):
    structure = STRUCTURES[name]
    shapes = [(4, 8), (3, 2, 5, 6), (7, 2)]
    target = swd_jax.Target(sparsity, structure=structure, scope=scope, **EVERYTHING)
    groups = [[0, 1, 2]] if scope == "global" else [[0], [1], [2]]
    # One program for all of the random weights.
    mask_of = quickly.jit(lambda leaves: swd_jax.prune_mask(leaves, target))
    for seed in range(12):
        leaves = weights_of(shapes, dtype, seed, rounded=seed % 2 == 0)
        expected = expected_losses(leaves, structure, groups, [sparsity] * len(groups))
        kept = mask_of(leaves)
        chex.assert_trees_all_equal(kept, [~lost for lost in expected])


@pytest.mark.parametrize("name", STRUCTURES)
def test_pruning_is_the_same_compiled_with_what_is_round_it(name):
    leaves = weights_of([(4, 8), (3, 2, 5, 6), (7, 2)], np.float32, 3)
    target = swd_jax.Target(0.4, structure=STRUCTURES[name], **EVERYTHING)
    compiled = jax.jit(lambda leaves: swd_jax.prune(leaves, target))(leaves)
    expected = expected_losses(leaves, STRUCTURES[name], [[0, 1, 2]], [0.4])
    pruned = [
        np.where(lost, 0, leaf) for leaf, lost in zip(leaves, expected, strict=True)
    ]
    chex.assert_trees_all_equal(compiled, pruned)


@pytest.mark.parametrize("name", STRUCTURES)
def test_what_is_selected_is_what_loses_strictly(name):
    leaves = weights_of([(8, 6), (3, 3, 4, 8)], np.float32, 0, rounded=False)
    target = swd_jax.Target(0.5, structure=STRUCTURES[name], **EVERYTHING)
    tx = swd_jax.swd(target, weight_decay=1.0, a=1.0)
    zeros = [np.zeros_like(leaf) for leaf in leaves]
    updates, state = quickly.jit(tx.update)(zeros, tx.init(leaves), leaves)
    expected = expected_losses(leaves, STRUCTURES[name], [[0, 1]], [0.5])
    for update, leaf, lost in zip(updates, leaves, expected, strict=True):
        np.testing.assert_array_equal(update, np.where(lost, leaf, 0))
    share = sum(map(np.sum, expected)) / sum(leaf.size for leaf in leaves)
    np.testing.assert_allclose(state.selection.selected_fraction, share, rtol=1e-6)


@pytest.mark.parametrize("length", [31, 32, 33, 200, 5000])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("norm", ["rms", "l1"])
def test_norms_of_long_groups_are_exact_however_they_are_added_up(length, axis, norm):
    shape = (length, 12) if axis == 0 else (12, length)
    [leaf] = weights_of([shape], np.float32, length, rounded=False)
    structure = swd_jax.Channel(1 - axis, norm=norm)
    lengths = [length if i == axis else 1 for i in range(2)]
    found = quickly.jit(structure.scores)(np.abs(leaf))
    norms, sizes = structured.block_norms(np.abs(leaf), lengths, norm)
    np.testing.assert_array_equal(np.ravel(found), norms.ravel())
    assert structure.sizes(shape) == length == sizes.max()
    # And they are the norms, but for the rounding.
    order = 2 if norm == "rms" else 1
    plain = np.linalg.norm(leaf.astype(np.float64), order, axis=axis)
    if norm == "rms":
        plain /= np.sqrt(length)
    np.testing.assert_allclose(np.ravel(found), plain, rtol=1e-4)


def test_a_group_with_a_weight_that_is_not_finite_is_never_pruned():
    kernel = np.array([[1.0, 9, np.nan, 1], [1, 9, 1, np.inf]], np.float32)
    pruned = swd_jax.prune(
        {"kernel": kernel}, swd_jax.Target(0.75, structure=swd_jax.Channel(-1))
    )
    np.testing.assert_array_equal(
        pruned["kernel"], [[0, 0, np.nan, 1], [0, 0, 1, np.inf]]
    )


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e30])
def test_groups_are_told_apart_at_every_scale(scale):
    """Also next to one that is very much larger, as in networks that SWD trained."""
    columns = np.array([3.0, 1.0, 2.0]) * scale
    kernel = np.stack([columns, columns]).astype(np.float32)
    kernel = np.concatenate([kernel, np.full((2, 1), 1e34, np.float32)], axis=1)
    target = swd_jax.Target(0.5, structure=swd_jax.Channel(-1))
    mask = swd_jax.prune_mask({"kernel": kernel}, target)["kernel"]
    np.testing.assert_array_equal(mask[0], [True, False, False, True])


def test_of_every_m_weights_exactly_n_are_kept():
    [leaf] = weights_of([(3, 3, 16, 8)], np.float32, 1)
    target = swd_jax.Target(0.5, structure=swd_jax.NM(2, 4, axis=-2))
    kept = np.asarray(swd_jax.prune_mask({"kernel": leaf}, target)["kernel"])
    # As the hardware has it: along the inputs, which come last but one.
    per_four = kept.reshape(3, 3, 4, 4, 8).sum(axis=3)
    np.testing.assert_array_equal(per_four, 2)


# 32 and fewer are sorted; of more, the limit is found bit by bit.
@pytest.mark.parametrize(
    ("n", "m"), [(1, 2), (2, 3), (2, 4), (3, 7), (15, 16), (4, 32), (2, 33), (2, 50)]
)
@pytest.mark.parametrize("axis", [0, -1])
def test_the_best_of_many_are_those_of_a_loop(n, m, axis):
    [leaf] = weights_of([(20, 120)], np.float32, m)
    scores = np.abs(leaf)
    found = quickly.jit(swd_jax.NM(n, m, axis).scores)(scores)
    kept = structured.best_of_every(scores, n, m, axis)
    np.testing.assert_array_equal(found, np.where(kept, np.inf, scores))


@pytest.mark.parametrize(
    ("n", "m", "shape", "axis"),
    [
        (50, 256, (300, 7), 0),  # the last set has fewer members than are kept
        (255, 256, (5, 512), 1),
        (16, 64, (640, 300), 0),  # some rows at a time
        (16, 64, (300, 640), 1),
        (1, 40, (3, 50, 600, 4), 1),
    ],
)
def test_of_equal_weights_in_large_sets_the_last_are_kept(n, m, shape, axis):
    rng = np.random.default_rng(n)
    scores = rng.integers(0, 20, shape).astype(np.float32)
    scores[rng.random(shape) < 0.2] = 0
    scores.flat[:3] = np.inf, 1e-45, 3e38
    found = quickly.jit(swd_jax.NM(n, m, axis).scores)(scores)
    kept = structured.best_of_every(scores, n, m, axis)
    np.testing.assert_array_equal(found, np.where(kept, np.inf, scores))


def test_in_large_sets_nan_is_kept_first():
    scores = np.arange(80, dtype=np.float32)[None]
    scores[0, 3] = np.nan
    found = quickly.jit(swd_jax.NM(2, 80, -1).scores)(scores)
    assert np.isinf(np.asarray(found)[0, [3, 79]]).all()
    assert np.isinf(found).sum() == 2


@pytest.mark.parametrize("m", [*range(2, 17), 27, 32])
def test_any_order_of_m_weights_is_sorted(m):
    """A network that sorts all rows of zeros and ones sorts everything."""
    rng = np.random.default_rng(m)
    # From 17 on there are too many to try them all.
    numbers = np.arange(2**m) if m <= 16 else rng.integers(0, 2**m, 2**16)
    rows = (numbers[:, None] >> np.arange(m) & 1).astype(np.float32)
    n = m // 2
    found = quickly.jit(swd_jax.NM(n, m, -1).scores)(rows)
    # The ones first, and of equals the last.
    order = np.argsort(rows + np.arange(m) / (2 * m), axis=1)
    kept = np.zeros(rows.shape, bool)
    np.put_along_axis(kept, order[:, m - n :], True, axis=1)
    np.testing.assert_array_equal(np.isinf(found), kept)


def test_the_program_does_not_grow_with_the_square_of_m():
    scores = jnp.ones((512, 2))
    few, many = (
        jax.jit(swd_jax.NM(1, m, axis=-2).scores).lower(scores).as_text()
        for m in (64, 256)
    )
    assert len(many) < 1.1 * len(few)


@pytest.mark.parametrize(("n", "m", "most"), [(2, 4, 0.6), (8, 16, 0.35)])
def test_n_of_m_weights_are_found_without_storing_their_scores(n, m, most):
    """A step holds a byte for each weight, and the limit and place of each group."""
    params = {"kernel": np.ones((1024, 256), np.float32)}
    tx = swd_jax.swd(
        swd_jax.Target(0.5, structure=swd_jax.NM(n, m, axis=-2)),
        weight_decay=1.0,
        a=1.0,
    )

    def step(params, state):
        updates, state = tx.update(params, state, params)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=0).lower(params, tx.init(params)).compile()
    held = compiled.memory_analysis().temp_size_in_bytes
    assert held < most * params["kernel"].nbytes


def test_below_its_sparsity_the_worst_go_and_the_best_are_safe():
    kernel = np.array([[8.0, 7, 6, 5, 4, 3, 2, 1]], np.float32)
    target = swd_jax.Target(0.375, structure=swd_jax.NM(2, 4, axis=-1))
    mask = swd_jax.prune_mask({"kernel": kernel}, target)["kernel"]
    # Three go: of 2 and 1, and 6 and 5, the lowest. 4 and 3 are the best of theirs.
    np.testing.assert_array_equal(mask, [[1, 1, 1, 0, 1, 1, 0, 0]])


def test_a_structure_of_ones_own_needs_three_methods():
    @dataclasses.dataclass(frozen=True)
    class Diagonals:
        """Weights with the same sum of indices, from a corner on."""

        def scores(self, scores):
            n, m = scores.shape
            diagonal = jnp.add(*jnp.indices(scores.shape))
            sums = [jnp.where(diagonal == i, scores, 0).max() for i in range(n + m - 1)]
            return jnp.stack(sums)

        def sizes(self, shape):
            n, m = shape
            return np.bincount(np.add(*np.indices((n, m))).ravel()).astype(np.uint32)

        def expand(self, groups, shape):
            return groups[jnp.add(*jnp.indices(shape))]

    kernel = np.array([[9.0, 1, 3], [2, 4, 5]], np.float32)
    target = swd_jax.Target(0.5, structure=Diagonals())
    # The diagonals are 9; 1 2; 3 4; 5, of which the second goes, and then one more.
    pruned = swd_jax.prune({"kernel": kernel}, target)["kernel"]
    np.testing.assert_array_equal(pruned, [[9, 0, 3], [0, 4, 5]])
    tx = swd_jax.swd(target, weight_decay=1.0, a=1.0)
    params = {"kernel": kernel}
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_array_equal(updates["kernel"], [[9, 2, 3], [4, 4, 5]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: swd_jax.NM(4, 4, axis=-2), r"1 <= n < m <= 256, got n=4, m=4"),
        (lambda: swd_jax.NM(0, 4, axis=-2), r"got n=0, m=4"),
        (lambda: swd_jax.NM(2.0, 4), r"n of NM must be a whole number, got 2.0"),
        (lambda: swd_jax.Block(()), r"shape of Block must be a tuple of lengths"),
        (lambda: swd_jax.Block(4), r"shape of Block must be a tuple of lengths, got 4"),
        (lambda: swd_jax.Block((0, 4)), r"whole numbers of at least 1, or None"),
        (lambda: swd_jax.Block((4, 4), norm="l3"), r"norm of Block must be 'rms'"),
        (lambda: swd_jax.Channel(axis=1.5), r"axis of Channel must be a whole number"),
        (lambda: swd_jax.Channel(size=0), r"size of Channel must be at least 1, got 0"),
        (lambda: swd_jax.Channel(norm="max"), r"norm of Channel must be 'rms'"),
        (
            lambda: swd_jax.Target(0.6, structure=swd_jax.NM(2, 4, axis=-2)),
            r"sparsity is 0.6, and NM\(n=2, m=4, axis=-2\) prunes at most 1/2",
        ),
        (
            lambda: swd_jax.Target(
                0.5, structure=swd_jax.NM(2, 4, axis=-2), scope={"mlp": 0.75}
            ),
            r"sparsity is 0.75",
        ),
        (
            lambda: swd_jax.Target(0.5, structure=swd_jax.Block),
            r"structure must be Unstructured\(\), Block",
        ),
    ],
)
def test_what_no_structure_can_be_is_an_error_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        (swd_jax.Channel(axis=3), r"no axis 3 in 2 dimensions"),
        (swd_jax.NM(2, 4, axis=-3), r"no axis -3 in 2 dimensions"),
        (swd_jax.Block((1, 1, 2)), r"a block of \(1, 1, 2\) has more dimensions"),
        (swd_jax.Channel(size=4), r"size 4 does not divide the 6 indices of axis -1"),
    ],
)
@pytest.mark.parametrize(
    "use",
    [
        lambda target, params: swd_jax.prune(params, target),
        lambda target, params: swd_jax.swd(target, weight_decay=1.0, a=1.0).init(
            params
        ),
    ],
)
def test_a_leaf_without_such_groups_is_named(structure, message, use):
    params = {"layer": {"kernel": np.ones((5, 6), np.float32)}}
    target = swd_jax.Target(0.5, structure=structure)
    with pytest.raises(
        ValueError, match=r"'layer/kernel' of shape \(5, 6\).*" + message
    ):
        use(target, params)


def test_a_third_can_be_asked_for_in_decimals():
    """1 - 1/3 prints as a little more than two thirds are, as a float."""
    kernel = np.arange(1.0, 13.0, dtype=np.float32).reshape(2, 6)
    target = swd_jax.Target(1 - 1 / 3, structure=swd_jax.NM(1, 3, axis=-1))
    kept = swd_jax.prune_mask({"kernel": kernel}, target)["kernel"]
    np.testing.assert_array_equal(np.asarray(kept).reshape(4, 3).sum(axis=1), 1)


@pytest.mark.parametrize("axis", [-1, -2])
def test_group_scores_take_no_more_memory_than_the_groups_and_a_chunk(axis):
    """In a step that overwrites the weights, too."""
    kernel = jnp.zeros((1024, 2048))
    target = swd_jax.Target(0.5, structure=swd_jax.Channel(axis))
    tx = swd_jax.swd(target, weight_decay=1.0, a=1.0)

    def step(params, state):
        updates, state = tx.update(params, state, params)
        return optax.apply_updates(params, updates), state

    params = {"kernel": kernel}
    compiled = jax.jit(step, donate_argnums=0).lower(params, tx.init(params)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.05 * kernel.nbytes


@dataclasses.dataclass(frozen=True)
class LargestFirst(swd_jax.Unstructured):
    def scores(self, scores):
        return 1 / scores


@dataclasses.dataclass(frozen=True)
class FirstOfTwo(swd_jax.NM):
    def scores(self, scores):
        return jnp.where(jnp.arange(scores.shape[-1]) % 2, jnp.inf, scores)


@pytest.mark.parametrize(
    ("structure", "sparsity", "wanted"),
    [
        (LargestFirst(), 0.25, [1, 4, 0, 2]),
        (FirstOfTwo(1, 2, axis=-1), 0.5, [0, 4, 0, 2]),
    ],
)
def test_a_class_derived_from_one_of_ours_scores_in_its_own_way(
    structure, sparsity, wanted
):
    weights = {"kernel": jnp.array([[1.0, 4.0, 8.0, 2.0]])}
    pruned = swd_jax.prune(weights, swd_jax.Target(sparsity, structure=structure))
    np.testing.assert_array_equal(pruned["kernel"], [wanted])
