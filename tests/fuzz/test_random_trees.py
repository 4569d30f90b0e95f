"""Random trees: what is pruned, selected and reported follows a plain rule in NumPy."""

import contextlib
import functools

import jax
import ml_dtypes
import numpy as np
import pytest

import swd_jax
from tests.fuzz import many_cases, pruning_rule
from tests.fuzz.random_trees import NARROW, WITH_FLOAT64, RandomLayout
from tests.helpers import quickly

TREES = 40
"""The trees of each layout, which share a compiled program."""

# Other tests run all lines of the library that these do.
pytestmark = pytest.mark.no_cover


FUNCTIONS = {
    "mask": swd_jax.prune_mask,
    "thresholds": swd_jax.thresholds,
    "soft": swd_jax.methods.straight_through,
    "hard": functools.partial(swd_jax.methods.straight_through, soft=False),
}


def program(layout):
    """Return a compiled function of leaves, a sparsity and the state of `swd`."""

    def compute(leaves, sparsity, state):
        params = layout.tree(leaves)
        target = layout.target(sparsity)
        tx = swd_jax.swd(target, weight_decay=1.0, a=1.0)
        updates, state = tx.update(jax.tree.map(zeros_like, params), state, params)
        found = {
            "scores": swd_jax.scores(params, target),
            "updates": updates,
            "pruned": swd_jax.prune(params, target),
            # One of these, since each takes as long to compile as the others together.
            layout.also: FUNCTIONS[layout.also](params, target),
        }
        return {name: layout.leaves(tree) for name, tree in found.items()}, state

    return quickly.jit(compute)


def zeros_like(leaf):
    return np.zeros(leaf.shape, leaf.dtype)


def expected_units(layout, leaves, scores):
    """Return units by NumPy; check the scores of the library against them.

    Norms are rounded: their scores are compared with a tolerance, and the library's own
    are what the rule is then applied to.
    """
    structure, units = layout.structure, []
    for leaf, found in zip(leaves, scores, strict=True):
        found = np.asarray(found).astype(np.float64)
        expected = pruning_rule.weight_scores(leaf)
        exact = layout.criterion == "magnitude"
        scale = scale_of(layout, leaf, expected)
        expected = expected * scale
        smallest = 2 * leaf.size * max(scale, 1) * smallest_normal(layout)
        if isinstance(structure, swd_jax.Block | swd_jax.Channel):
            numbers = pruning_rule.grid(structure, leaf.shape)
            norms = pruning_rule.norms(structure, expected, numbers)
            # A sum beyond the largest float is infinite, as the score of such a unit.
            most = np.finfo(np.float64 if has_float64(layout) else np.float32).max
            norms = np.where(norms > most, np.inf, norms)
            if leaf.size:
                assert_close(found, norms[numbers], smallest)
            # All weights of a unit have one score.
            sizes = np.bincount(numbers.ravel(), minlength=len(norms))
            of_units = np.zeros(len(norms))
            of_units[numbers.ravel()] = found.ravel()
            np.testing.assert_array_equal(found, of_units[numbers])
            of_units = np.where(np.isfinite(of_units), of_units, np.inf)
            units.append(pruning_rule.Units(of_units, sizes, numbers))
            continue
        if isinstance(structure, swd_jax.NM):
            expected = pruning_rule.without_best(structure, expected)
        if exact:
            finite = np.where(np.isfinite(found), found, np.inf)
            np.testing.assert_array_equal(finite, expected)
        else:
            assert_close(found, expected, smallest)
            expected = np.where(np.isfinite(found), found, np.inf)
        units.append(pruning_rule.units_of_weights(expected))
    return units


def smallest_normal(layout):
    """Return the smallest normal score: XLA:CPU flushes smaller products to zero."""
    return float(np.finfo(np.float64 if has_float64(layout) else np.float32).tiny)


def has_float64(layout):
    return any(np.dtype(dtype) == np.float64 for dtype in layout.dtypes)


def scale_of(layout, leaf, magnitudes):
    """Return what magnitudes are multiplied by: the reciprocal of the leaf's norm.

    The norm is clipped to numbers whose reciprocal is a normal number.
    """
    largest = magnitudes[np.isfinite(magnitudes)].max(initial=0.0)
    if layout.criterion == "magnitude" or largest == 0:
        return 1.0
    finite = magnitudes[np.isfinite(magnitudes)]
    norm = float(np.sqrt(np.sum((finite / largest) ** 2)))
    most = float(np.finfo(np.float64 if has_float64(layout) else np.float32).max)
    with np.errstate(over="ignore"):
        norm = np.float64(largest) * norm
    norm = norm if norm <= most else np.inf
    if layout.criterion == "rms_normalized_magnitude":
        norm /= np.sqrt(leaf.size)
    tiny = smallest_normal(layout)
    return 1 / min(max(norm, tiny), 1 / tiny)


def assert_close(found, expected, smallest):
    """Compare scores that were rounded, and flushed to zero below `smallest`."""
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
    finite = np.isfinite(expected)
    np.testing.assert_allclose(
        found[finite],
        expected[finite],
        rtol=1e-5,
        atol=min(smallest, np.finfo(np.float64).max),
    )


def widened(array):
    """Return float64, since NumPy knows no NaN of bfloat16."""
    return array.astype(np.float64)


def bits(array):
    array = np.asarray(array)
    return array.view(f"u{array.dtype.itemsize}")


def check_tree(layout, leaves, sparsity, found, fraction):
    """Compare what the library computed with the rule."""
    units = expected_units(layout, leaves, found["scores"])
    expected = pruning_rule.prune(
        leaves,
        units,
        layout.pools(),
        layout.pool_sparsities(sparsity),
        layout.min_kept,
    )
    for i, leaf in enumerate(leaves):
        pruned, selected = expected.pruned[i], expected.selected[i]
        of_leaf = {name: np.asarray(arrays[i]) for name, arrays in found.items()}
        zero = np.zeros((), leaf.dtype)
        result = np.where(pruned, zero, leaf)
        np.testing.assert_array_equal(bits(of_leaf["pruned"]), bits(result))
        # XLA:CPU flushes subnormal sums and products to zero.
        magnitudes = pruning_rule.weight_scores(leaf)
        tiny = float(ml_dtypes.finfo(leaf.dtype).tiny)
        is_normal = magnitudes >= tiny

        def assert_equal_normal(first, second, is_normal=is_normal):
            first, second = widened(first)[is_normal], widened(second)[is_normal]
            np.testing.assert_array_equal(first, second)

        assert of_leaf["updates"].dtype == leaf.dtype
        assert_equal_normal(of_leaf["updates"], np.where(selected, leaf, zero))
        match layout.also:
            case "mask":
                np.testing.assert_array_equal(of_leaf["mask"], ~pruned)
            case "thresholds":
                tau, greatest = of_leaf["thresholds"], expected.thresholds[i]
                # Among leaves at their limits a greater threshold selects no more.
                scores = units[i].scores if layout.min_kept else []
                assert tau == greatest or layout.min_kept, expected
                assert tau <= greatest, expected
                assert not any(tau <= score < greatest for score in scores), expected
            case "hard":
                assert_equal_normal(of_leaf["hard"], result)
            case "soft":
                soft = widened(of_leaf["soft"])
                assert of_leaf["soft"].dtype == leaf.dtype
                assert not np.any(soft[pruned])
                # A kept weight is not zero: its factor is 2**-53 or more.
                assert np.all(soft[~pruned & (magnitudes > tiny * 2.0**53)] != 0)
                is_finite = is_normal & np.isfinite(magnitudes)
                assert np.all(np.abs(soft)[is_finite] <= magnitudes[is_finite])
    total = max(sum(leaf.size for leaf in leaves), 1)
    share = sum(int(mask.sum()) for mask in expected.selected) / total
    np.testing.assert_allclose(fraction, share, rtol=1e-6)
    return expected


def check_report(layout, leaves, sparsity, expected):
    """Compare masks outside of jit and the counts of a report with the rule."""
    params, target = layout.tree(leaves), layout.target(sparsity)
    masks = layout.leaves(swd_jax.prune_mask(params, target))
    for mask, pruned in zip(masks, expected.pruned, strict=True):
        np.testing.assert_array_equal(mask, ~pruned)
    summary = swd_jax.summarize(params, target)
    assert summary.weights == sum(leaf.size for leaf in leaves)
    for row, leaf, pruned in zip(summary.leaves, leaves, expected.pruned, strict=True):
        is_zero = bits(leaf) << 1 == 0
        assert row.weights == leaf.size
        assert row.zeros == np.count_nonzero(is_zero)
        assert row.pruned == np.count_nonzero(is_zero | pruned)
        finite = np.isfinite(leaf.astype(np.float64))
        assert row.non_finite == np.count_nonzero(~finite)
        assert row.emptied == (leaf.size > 0 and row.pruned == leaf.size)
    for name in ("zeros", "pruned", "non_finite"):
        rows = sum(getattr(row, name) for row in summary.leaves)
        assert getattr(summary, name) == rows


def check(layout, trees=TREES, reports=1):
    """Check many trees of one layout, each with a state that the last one left."""
    compute = program(layout)
    first = layout.tree(layout.weights())
    state = swd_jax.swd(layout.target(0.0), weight_decay=1.0, a=1.0).init(first)
    for number in range(trees):
        leaves, sparsity = layout.weights(), layout.sparsity()
        # A concrete sparsity is a constant of the program, a traced one an argument.
        try:
            found, state = compute(leaves, np.float32(sparsity), state)
            fraction = float(state.selection.selected_fraction)
            expected = check_tree(layout, leaves, sparsity, found, fraction)
            if number < reports:
                check_report(layout, leaves, sparsity, expected)
        except Exception as error:
            error.add_note(f"tree {number}, sparsity {sparsity}: {leaves}")
            raise


DTYPES = {"narrow": NARROW, "float64": WITH_FLOAT64}


def run(dtypes, seeds, **options):
    x64 = jax.enable_x64(True) if dtypes == "float64" else contextlib.nullcontext()
    with x64:
        many_cases.check_all(
            functools.partial(RandomLayout, dtypes=DTYPES[dtypes]),
            functools.partial(check, **options),
            seeds,
        )


def test_a_few_trees_follow_the_rule():
    run("narrow", range(1), trees=10, reports=0)


@pytest.mark.fuzz
@pytest.mark.parametrize("dtypes", DTYPES)
def test_many_trees_follow_the_rule(dtypes):
    run(dtypes, many_cases.seeds(125))
