"""Selection against a sort: random trees, ties, zeros, subnormals, all dtypes.

And along a training run, where every search starts from the previous threshold.
"""

from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
import sklearn.datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import swd_jax
from swd_jax._allocation import exact_counts, sparsity_values
from swd_jax._arrays import sort_keys, uint64
from swd_jax._ranking import exact_k
from swd_jax._selection import (
    bracket_candidates,
    count_below,
    order_statistics,
    tie_cutoffs,
    warm_start,
)
from swd_jax._targets import resolve
from tests.helpers import reference

# Other tests run all lines of the library that these do.
pytestmark = pytest.mark.no_cover

BF16 = ml_dtypes.bfloat16

# Few combinations of shapes and dtypes, since each one is compiled.
FORMS_OF_TREES = [
    [((), np.float32)],
    [((0,), np.float32), ((3, 0), np.float16)],
    [((1,), np.float32), ((0,), BF16), ((7,), np.float32)],
    [((5, 4), np.float16)],
    [((5, 4), BF16), ((5, 4), BF16)],
    [((2, 3, 4), np.float32), ((), np.float16), ((7,), BF16), ((1, 1), np.float32)],
    [((40, 30), np.float32), ((2, 3, 4), np.float32)],
]

# Few values make ties; the others are zeros, subnormals and very large numbers.
MAGNITUDES = [0, 1e-45, 2e-45, 1e-40, 6e-8, 0.5, 1, 1.5, 6e4, 3e38, np.inf, np.nan]
few_values = st.sampled_from(MAGNITUDES).flatmap(lambda m: st.sampled_from([m, -m]))
any_values = st.floats(width=32)
sparsities = st.integers(0, 999).map(lambda i: i / 1000) | st.sampled_from(
    [0, 0.29, 0.5, 0.9, 0.999999]
)


@st.composite
def trees(draw, forms=FORMS_OF_TREES):
    leaves = []
    for shape, dtype in draw(st.sampled_from(forms)):
        values = draw(hnp.arrays(np.float32, shape, elements=few_values | any_values))
        with np.errstate(over="ignore", invalid="ignore"):
            leaves.append(values.astype(dtype))
    return leaves


def target_of_all(sparsity, **options):
    return swd_jax.Target(sparsity, prunable=lambda path, leaf: True, **options)


DECAY = {"weight_decay": 1e-3, "a": 1.0}

# Bisection takes one pass for each bit of a float32 but the sign.
MAX_PASSES = 31

thresholds_of = jax.jit(lambda ranking, counts: ranking.find_thresholds(counts))
below = jax.jit(lambda ranking, limits: ranking.masks_below(limits))


def rank(leaves, target):
    [ranked] = resolve.rank(resolve.resolve([target], leaves))
    return ranked.ranking


def counts_of(ranking, sparsity):
    return ranking.budgets([sparsity] * ranking.num_thresholds)


def selected(leaves, target):
    """Return what swd would decay, and how many weights that is in each pool."""
    if not leaves:
        return [], []
    ranking = rank(leaves, target)
    thresholds = thresholds_of(ranking, counts_of(ranking, exact(target.sparsity)))
    masks = [np.asarray(mask) for mask in below(ranking, thresholds.leaf_thresholds)]
    return masks, [uint64.to_int(row) for row in thresholds.counts_below]


def exact(sparsity):
    return Fraction(str(sparsity))


def check_selection(leaves, sparsity):
    masks, counts = selected(leaves, target_of_all(sparsity))
    expected = reference.selected(leaves, sparsity)
    for mask, expected_mask in zip(masks, expected, strict=True):
        np.testing.assert_array_equal(mask, expected_mask)
    if sum(map(np.size, leaves)):
        assert counts == [sum(int(mask.sum()) for mask in expected)]


@settings(max_examples=300)
@given(trees(), sparsities)
def test_the_selection_is_that_of_a_sort(leaves, sparsity):
    check_selection(leaves, sparsity)


@pytest.mark.slow
@settings(max_examples=5000)
@given(trees(), sparsities)
def test_the_selection_is_that_of_a_sort_in_many_cases(leaves, sparsity):
    check_selection(leaves, sparsity)


@given(trees(), sparsities)
def test_a_local_selection_is_that_of_a_sort_of_each_leaf(leaves, sparsity):
    masks, counts = selected(leaves, target_of_all(sparsity, scope="local"))
    for mask, count, leaf in zip(masks, counts, leaves, strict=True):
        [expected] = reference.selected([leaf], sparsity)
        np.testing.assert_array_equal(mask, expected)
        assert count == expected.sum()


FORMS_WITH_FLOAT64 = [
    [((5, 4), np.float64)],
    [((5, 4), np.float64), ((40, 30), np.float32), ((7,), BF16), ((7,), np.float16)],
]


@given(trees(FORMS_WITH_FLOAT64), sparsities)
def test_float64_leaves_are_ranked_with_the_others(leaves, sparsity):
    with jax.enable_x64(True):
        masks, _ = selected(leaves, target_of_all(sparsity))
    for mask, expected in zip(masks, reference.selected(leaves, sparsity), strict=True):
        np.testing.assert_array_equal(mask, expected)


@given(trees(), sparsities)
def test_what_is_not_finite_is_never_selected(leaves, sparsity):
    masks, _ = selected(leaves, target_of_all(sparsity))
    for mask, leaf in zip(masks, leaves, strict=True):
        assert not (mask & ~np.isfinite(leaf)).any()


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_a_hundred_thousand_weights(dtype, sparsity):
    rng = np.random.default_rng(1)
    shapes = [(3, 3, 16, 32), (300, 200), (41, 1000)]
    leaves = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    masks, _ = selected(leaves, target_of_all(sparsity))
    for mask, expected in zip(masks, reference.selected(leaves, sparsity), strict=True):
        np.testing.assert_array_equal(mask, expected)


# (Leaves share reductions from 256 leaves on, if they have at most 65,536 weights.)
FORMS_OF_MANY_LEAVES = {
    "mixed": [((3, 5), np.float32), ((3, 5), BF16), ((4,), np.float16), ((), BF16)] * 65
    + [((300, 300), np.float32)],
    "bfloat16": [((3, 5), BF16), ((2, 2, 2), BF16)] * 130 + [((300, 300), BF16)],
}


def random_weights(rng, shape, dtype):
    """Draw weights like those of a network, and some that none should have."""
    values = rng.standard_normal(shape)
    kind = rng.integers(6)
    if kind == 0:
        values = values.round(1)
    elif kind == 1:
        values = values * 10.0 ** rng.uniform(-45, 38, shape)
    elif kind == 2:
        values = rng.choice(MAGNITUDES, shape)
    elif kind == 3:
        values = values * (rng.random(shape) < 0.2)
    else:
        values = values * 10.0 ** rng.uniform(-3, 3)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return np.asarray(values).astype(np.float32).astype(dtype)


@pytest.mark.parametrize("form", FORMS_OF_MANY_LEAVES)
def test_many_small_leaves_are_ranked_as_by_a_sort(form):
    shapes = FORMS_OF_MANY_LEAVES[form]
    assert len(shapes) >= count_below._MANY
    for seed, sparsity in enumerate([0, 0.1, 0.29, 0.5, 0.77, 0.9, 0.95, 0.99] * 3):
        rng = np.random.default_rng(seed)
        leaves = [random_weights(rng, shape, dtype) for shape, dtype in shapes]
        # Up to half of the large leaf is not finite, so that other leaves matter.
        leaves[-1][: seed % 3 * 150] = np.nan
        ranking = rank(leaves, target_of_all(sparsity))
        counts = counts_of(ranking, exact(sparsity))
        [limit], _, [below], *_ = thresholds_of(ranking, counts)
        tau = reference.threshold(leaves, sparsity)
        assert np.asarray(limit).view(np.float32) == tau
        assert uint64.to_int(below) == (reference.magnitudes(leaves) < tau).sum()


FORMS_TO_START_WARM = {
    "local": [[((5, 4), np.float32), ((7,), BF16), ((2, 3, 4), np.float32)]],
    "global": [[((5, 4), BF16), ((2, 2), BF16)], [((40, 30), np.float32)]],
}

warm_thresholds_of = jax.jit(
    lambda ranking, counts, last: ranking.find_thresholds(counts, previous=last)
)
any_change = any_values | few_values | st.sampled_from([1e-3, -1e-3, 1.0, -1.0])


def as_floats(limits, dtype=jnp.float32):
    return np.asarray(sort_keys.from_key(jnp.stack(limits), dtype))


@st.composite
def beside(draw, right):
    """Draw the right threshold, a float near to it, or any other number."""
    near = np.asarray(right).view(np.int32).astype(np.int64)
    near += draw(st.sampled_from([0, 0, 1, -1, 300, -300, 1 << 16, -1 << 16]))
    near = np.clip(near, 0, 2**31 - 1).astype(np.int32).view(np.float32)
    return near if draw(st.booleans()) else np.float32(draw(any_values | few_values))


@settings(max_examples=150)
@pytest.mark.parametrize("scope", FORMS_TO_START_WARM)
@given(sparsities, st.data())
def test_the_initial_candidates_do_not_affect_the_threshold(scope, sparsity, data):
    leaves = data.draw(trees(FORMS_TO_START_WARM[scope]))
    ranking = rank(leaves, target_of_all(sparsity, scope=scope))
    counts = counts_of(ranking, exact(sparsity))
    limits, _, below, *_ = thresholds_of(ranking, counts)
    taus = [
        reference.threshold([leaves[i] for i in pool], sparsity)
        for pool in ranking.pools
    ]
    np.testing.assert_array_equal(as_floats(limits), taus)
    last = warm_start.PreviousThresholds(
        np.array([data.draw(beside(tau)) for tau in as_floats(limits)], np.float32),
        np.array([data.draw(any_change) for _ in taus], np.float32),
    )
    warm_limits, _, warm_below, _, num_passes, _ = warm_thresholds_of(
        ranking, counts, last
    )
    np.testing.assert_array_equal(as_floats(warm_limits), taus)
    np.testing.assert_array_equal(warm_below, below)
    assert num_passes <= MAX_PASSES


def test_thresholds_are_returned_unchanged_without_a_refresh():
    leaves = [jnp.array([1.0, 2.0, 3.0, 4.0])]
    ranking = rank(leaves, target_of_all(0.5))
    counts = counts_of(ranking, Fraction(1, 2))
    last = warm_start.PreviousThresholds(jnp.array([3.5]), jnp.array([0.0]))
    for refresh, threshold, count in [(True, 3.0, 2), (False, 3.5, 0)]:
        found = jax.jit(ranking.find_thresholds)(
            counts, previous=last, refresh=jnp.array(refresh)
        )
        assert as_floats(found.keys) == threshold
        # Without a refresh nothing is counted.
        assert uint64.to_int(found.counts_below[0]) == count
        assert bool(found.num_passes) == refresh


@pytest.mark.parametrize("dtype", [np.float32, BF16])
def test_unchanged_weights_take_one_pass(dtype):
    # Without ties, the count below the previous threshold equals the budget.
    magnitudes = 1 + np.arange(100) / 128  # all of them bfloat16 numbers
    leaf = np.random.default_rng(0).permutation(magnitudes).reshape(20, 5).astype(dtype)
    ranking = rank([leaf], target_of_all(0.9))
    last = warm_start.PreviousThresholds(np.float32([1 + 90 / 128]), np.float32([0.0]))
    counts = counts_of(ranking, Fraction(9, 10))
    limits, _, [below], _, num_passes, _ = warm_thresholds_of(ranking, counts, last)
    assert as_floats(limits) == 1 + 90 / 128
    assert (uint64.to_int(below), num_passes) == (90, 1)


def test_unchanged_weights_with_ties_of_a_narrow_dtype_take_one_pass():
    # The next number of the dtype is a candidate too.
    leaf = np.repeat([0.5, 1.0, 1.5], 40).reshape(12, 10).astype(BF16)
    ranking = rank([leaf], target_of_all(0.5))
    last = warm_start.PreviousThresholds(np.float32([1.0]), np.float32([0.0]))
    counts = counts_of(ranking, Fraction(1, 2))
    limits, _, [below], _, num_passes, _ = warm_thresholds_of(ranking, counts, last)
    assert (as_floats(limits), uint64.to_int(below), num_passes) == (1, 40, 1)


@pytest.mark.parametrize("last", [None, 0.0, 0.05, 3.0])
def test_a_threshold_above_a_wide_gap_takes_one_pass(last):
    # Both at a cold and at a warm start, a candidate is in the gap.
    leaf = np.linspace(1e-9, 2e-9, 90, dtype=np.float32)
    leaf = np.concatenate([leaf, np.linspace(1e3, 2e3, 10, dtype=np.float32)])
    ranking = rank([leaf.reshape(10, 10)], target_of_all(0.9))
    counts = counts_of(ranking, Fraction(9, 10))
    if last is None:
        found = thresholds_of(ranking, counts)
    else:
        known = warm_start.PreviousThresholds(np.float32([last]), np.float32([0.0]))
        found = warm_thresholds_of(ranking, counts, known)
    assert as_floats(found.keys) == 1e3
    assert found.num_passes == 1


def test_a_cold_start_takes_few_passes_on_normal_weights():
    leaf = 0.02 * np.random.default_rng(0).standard_normal((40, 30))
    ranking = rank([leaf.astype(np.float32)], target_of_all(0.5))
    for percent in range(5, 100, 5):
        counts = counts_of(ranking, Fraction(percent, 100))
        *_, num_passes, _ = thresholds_of(ranking, counts)
        # Bisection by four candidates would take 14. Measured: 2 to 6.
        assert num_passes <= 8


def hostile_keys(rng, size):
    """Yield keys with distributions that mislead interpolation."""
    top = 0x7F800000
    somewhere = int(rng.integers(1 << 24, top - (1 << 24)))
    either = rng.choice([-1, 1], size)
    few = rng.integers(0, top, 5)
    yield "equal", np.full(size, somewhere)
    yield "nearly all equal", np.where(rng.random(size) < 0.01, few[0], somewhere)
    yield "few values", rng.choice(few, size)
    yield "uniform", rng.integers(0, top, size)
    yield "consecutive", somewhere + rng.permutation(size)
    yield "consecutive from zero", np.arange(size)
    yield "not finite", np.where(rng.random(size) < 0.5, top + 5, few[0])
    # Exponents of the floats, or of the keys themselves, are uniform.
    yield "geometric", (2.0 ** rng.uniform(-126, 127, size)).astype("f4").view("i4")
    yield "geometric keys", 2.0 ** rng.uniform(0, 31, size)
    # Keys accumulate at one key, at all scales.
    yield "converging", somewhere + either * 2.0 ** rng.uniform(0, 30, size)
    yield "converging from above", somewhere + 2.0 ** rng.uniform(0, 30, size)
    yield "converging from below", somewhere - 2.0 ** rng.uniform(0, 30, size)
    for apart in (1, 1000, 1 << 20, 1 << 28):
        cluster = somewhere + np.where(rng.random(size) < 0.7, 0, apart)
        yield f"two clusters {apart} apart", cluster + rng.integers(0, 50, size)


ALL_BITS = order_statistics.KeyRange(
    largest=sort_keys.largest_key(np.float32),
    trailing_zero_bits=0,
    interpolation_bits=23,
)


@jax.jit
def search_in_one_leaf(keys, budgets, candidates, slack=None):
    return order_statistics.find_order_statistics(
        lambda leaf: leaf,
        [keys],
        [(0,)],
        budgets,
        ALL_BITS,
        initial_candidates=candidates,
        slack=slack,
    )


def hostile_searches(seeds, slack=None):
    """Yield the name of a case, its keys in their order, k, and what is found."""
    usual = warm_start.initial_candidates(None, jnp.dtype("float32"), ALL_BITS, 1)
    wrong = np.int32([[-5], [0], [ALL_BITS.largest], [2**31 - 1]])
    given = None if slack is None else uint64.from_int(slack)[None]
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        for name, keys in hostile_keys(rng, 1000):
            keys = np.clip(keys, 0, ALL_BITS.largest + 5).astype(np.int32)
            for k in [0, 1, 250, 500, 900, 997, 998, 999]:
                budget = np.asarray(uint64.from_int(k))[None]
                for candidates in (usual, wrong):
                    found = search_in_one_leaf(keys, budget, candidates, given)
                    yield name, np.sort(keys), k, found


def test_hostile_keys_take_at_most_one_pass_per_bit():
    max_passes = 0
    for name, row, k, ([key], [below], num_passes, _) in hostile_searches(seeds=4):
        assert key == min(row[k], ALL_BITS.largest), name
        assert uint64.to_int(below) == (row < key).sum(), name
        assert num_passes <= MAX_PASSES, name
        max_passes = max(max_passes, int(num_passes))
    assert max_passes > 20  # they are hostile


@pytest.mark.parametrize("slack", [1, 10, 200])
def test_with_slack_the_count_is_near_enough_or_the_next_key_would_be_too_many(slack):
    num_near, num_short = 0, 0
    for name, row, k, found in hostile_searches(seeds=2, slack=slack):
        [key], [below], num_passes, [width] = found
        count = (row < key).sum()
        assert uint64.to_int(below) == count, name
        assert count <= k, name
        if count < k - slack:
            # As an exact search: all that follow tie with the threshold.
            assert key == min(row[k], ALL_BITS.largest), name
            num_short += 1
        num_near += k - slack <= count < k
        assert num_passes <= MAX_PASSES, name
        assert 0 <= width <= 1 << ALL_BITS.interpolation_bits, name
    assert num_near > 50
    assert num_short > 50


def test_the_width_of_the_slack_is_its_distance_in_keys():
    # One key every 1000, of which 40 per cent of 2000 are to be found, give or take 20.
    keys = (1000 * np.arange(2000) + 0x3F800000).astype(np.int32)
    found = search_in_one_leaf(
        keys,
        uint64.from_int(800)[None],
        np.int32([[0], [1 << 20], [1 << 30], [1 << 30]]),
        uint64.from_int(20)[None],
    )
    assert abs(int(found.slack_widths[0]) - 20_000) < 1_000


def test_with_slack_most_steps_of_a_training_read_the_weights_once():
    # Weights that move by the learning rate in one direction, and at random.
    rng = np.random.default_rng(0)
    num, sparsity, tolerance = 50_000, 0.9, Fraction(1, 1000)
    weights = rng.normal(size=num).astype(np.float32)
    direction = rng.choice([-1, 1], num).astype(np.float32)
    tx = swd_jax.swd(sparsity, **DECAY, tolerance=tolerance)
    update = jax.jit(tx.update)
    state = tx.init({"kernel": jnp.asarray(weights)[None]})
    passes = []
    for _ in range(40):
        params = {"kernel": jnp.asarray(weights)[None]}
        last = state.selection
        ranking = rank([weights[None]], target_of_all(sparsity))
        found = tracked_search(
            ranking,
            counts_of(ranking, exact(sparsity)),
            uint64.from_int(int(tolerance * num))[None],
            jax.tree.map(
                jnp.atleast_1d,
                warm_start.PreviousThresholds(
                    last.threshold, last.threshold_change, last.tracking
                ),
            ),
        )
        passes.append(int(found.num_passes))
        _, state = update(params, state, params)
        k = exact_counts.known_count(Fraction("0.9"), num)
        selected = (np.abs(weights) < np.asarray(state.selection.threshold)).sum()
        assert k - int(tolerance * num) <= selected <= k
        weights = weights + np.float32(0.002) * (
            direction + rng.normal(size=num).astype(np.float32)
        )
    # The first two steps have no direction to go on in.
    assert np.mean(np.array(passes[2:]) == 1) >= 0.8


tracked_search = jax.jit(
    lambda ranking, counts, slack, previous: ranking.find_thresholds(
        counts, slack=slack, previous=previous
    )
)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("scale", [1.0, 1e-39])
def test_between_renewals_the_state_of_the_selection_stays_as_it_is(
    scope, dtype, scale
):
    # Subnormal thresholds too are stored in the state to the last bit.
    rng = np.random.default_rng(0)
    first = [scale * rng.normal(size=(6, s)) for s in (5, 4)]
    tx = swd_jax.swd(swd_jax.Target(0.5, scope=scope), **DECAY, update_every=3)
    update = jax.jit(tx.update)
    state = tx.init([jnp.asarray(leaf, dtype) for leaf in first])
    for step in range(10):
        before = jax.device_get(state)
        params = [np.asarray(leaf * 1.25**step, jnp.dtype(dtype)) for leaf in first]
        _, state = update(params, state, params)
        after = jax.device_get(state)
        if step % 3:
            for name in ("threshold", "threshold_change", "selected_fraction"):
                old, new = (getattr(state.selection, name) for state in (before, after))
                assert old.tobytes() == new.tobytes(), name
        else:
            pools = [[leaf] for leaf in params] if scope == "local" else [params]
            taus = [reference.threshold(pool, 0.5) for pool in pools]
            np.testing.assert_array_equal(
                np.atleast_1d(after.selection.threshold), taus
            )
            assert min(taus) > 0
            selected = sum(
                (reference.magnitudes(pool) < tau).sum()
                for pool, tau in zip(pools, taus, strict=True)
            )
            assert round(after.selection.selected_fraction * 54) == selected
            if scale == 1 and step:
                assert (after.selection.threshold_change > 0).all()


SHAPES_OF_MASKS = [
    [()],
    [(0,)],
    [(1,), (3, 0)],
    [(7,), (), (2, 3, 4)],
    [(5, 4), (40, 30), (1, 1)],
]


@jax.jit
def cutoffs_of(masks, quotas):
    shapes = [mask.shape for mask in masks]
    return tie_cutoffs.find_tie_cutoffs(lambda mask: mask, masks, shapes, quotas)


@settings(max_examples=50)
@given(st.sampled_from(SHAPES_OF_MASKS), st.data())
def test_tie_cutoffs_take_the_first_of_each_leaf(shapes, data):
    masks = [data.draw(hnp.arrays(bool, shape)) for shape in shapes]
    quotas = [data.draw(st.integers(0, int(mask.sum()))) for mask in masks]
    emulated = jnp.stack([jnp.asarray(uint64.from_int(quota)) for quota in quotas])
    cutoffs = cutoffs_of([jnp.asarray(mask) for mask in masks], emulated)
    for mask, quota, cutoff in zip(masks, quotas, cutoffs, strict=True):
        before = np.asarray(tie_cutoffs.is_before(mask.shape, cutoff))
        first = (np.cumsum(mask) <= quota).reshape(mask.shape) & mask
        if any(quotas):
            np.testing.assert_array_equal(before & mask, first)
        else:
            assert not before.any()


def equations(jaxpr):
    """Yield all equations of a jaxpr and of nested ones, for the CPU."""
    for equation in jaxpr.eqns:
        yield equation
        platforms = equation.params.get("branches_platforms")
        if platforms:
            [branch] = [
                i for i, names in enumerate(platforms) if "cpu" in (names or ())
            ]
            yield from equations(equation.params["branches"][branch].jaxpr)
            continue
        for value in equation.params.values():
            for inner in value if isinstance(value, list | tuple) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


GATHERING = {
    "sort",
    "top_k",
    "cumsum",
    "scatter-add",
    "concatenate",
    "gather",
    "reshape",
}


@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("criterion", ["magnitude", "normalized_magnitude"])
def test_weights_are_not_sorted_gathered_or_concatenated(scope, criterion):
    leaves = [jnp.ones((64, 50)), jnp.ones((3, 3, 8, 16)), jnp.ones((100, 100))]
    target = target_of_all(0.9, scope=scope, criterion=criterion)
    functions = [
        lambda p: swd_jax.prune(p, target),
        lambda p: swd_jax.prune_mask(p, target),
    ]
    tx = swd_jax.swd(target, weight_decay=1e-3, a=1.0)
    functions.append(lambda p: tx.update(p, tx.init(p), p))
    for function in functions:
        for equation in equations(jax.make_jaxpr(function)(leaves).jaxpr):
            if equation.primitive.name in GATHERING:
                assert all(value.aval.size < 1000 for value in equation.invars), (
                    equation
                )


FORMS = {
    "swd": swd_jax.swd(0.9, **DECAY),
    "renewed every 10 steps": swd_jax.swd(0.9, **DECAY, update_every=10),
    "local": swd_jax.swd(swd_jax.Target(0.9, scope="local"), **DECAY),
    "normalized": swd_jax.swd(
        swd_jax.Target(0.9, criterion="normalized_magnitude"), **DECAY
    ),
    "proximal": swd_jax.proximal_swd(0.9, **DECAY, learning_rate=0.1),
}


def temporary_share(tx, dtype, donate):
    """Return the temporary memory of a step over that of the weights."""
    shapes = [(500, 1000), (3, 3, 128, 256), (1000, 400)]
    params = [jnp.ones(shape, dtype) for shape in shapes]

    def step(params, state, updates):
        updates, state = tx.update(updates, state, params)
        return jax.tree.map(lambda p, u: p + u, params, updates), state

    compiled = (
        jax.jit(step, donate_argnums=donate)
        .lower(params, tx.init(params), params)
        .compile()
    )
    weights = sum(leaf.nbytes for leaf in params)
    return compiled.memory_analysis().temp_size_in_bytes / weights


donations = pytest.mark.parametrize(
    "donate", [(), (0, 1)], ids=["not donated", "donated"]
)
dtypes = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])


@donations
@dtypes
@pytest.mark.parametrize("form", FORMS)
def test_a_step_needs_a_hundredth_of_the_weights_in_temporary_memory(
    form, dtype, donate
):
    assert temporary_share(FORMS[form], dtype, donate) < 0.01


@donations
@dtypes
def test_before_adam_it_needs_a_hundredth_more_than_ordinary_decay(dtype, donate):
    # XLA:CPU stores the sum of a bfloat16 gradient and another array.
    selective = optax.chain(swd_jax.swd(0.9, **DECAY), optax.adam(1e-3))
    ordinary = optax.chain(optax.add_decayed_weights(1e-3), optax.adam(1e-3))
    shares = [temporary_share(tx, dtype, donate) for tx in (selective, ordinary)]
    assert shares[0] < shares[1] + 0.01


@pytest.mark.parametrize("ties", [False, True])
def test_pruning_needs_a_hundredth_of_the_weights_in_temporary_memory(ties):
    shapes = [(500, 1000), (3, 3, 128, 256), (1000, 400)]
    params = [jnp.zeros(shape) for shape in shapes]
    ranking = rank(params, target_of_all(0.9))

    def zeroed(ranking):
        budgets = counts_of(ranking, Fraction(9, 10))
        exact = exact_k.find_thresholds_with_ties(ranking.units, budgets)
        if ties:
            masks = ranking.exact_k_masks(exact)
        else:
            masks = ranking.masks_below(exact.leaf_thresholds)
        pairs = zip(ranking.weights, masks, strict=True)
        return [jnp.where(mask, 0.0, leaf) for leaf, mask in pairs]

    compiled = jax.jit(zeroed).lower(ranking).compile()
    weights = sum(leaf.nbytes for leaf in params)
    assert compiled.memory_analysis().temp_size_in_bytes < 0.01 * weights


MANY_LEAVES = [jnp.ones((40, 30))] * 300


def test_sixteen_small_leaves_share_a_reduction():
    tx = swd_jax.swd(0.9, **DECAY)
    jaxpr = jax.make_jaxpr(tx.update)(MANY_LEAVES, tx.init(MANY_LEAVES), MANY_LEAVES)
    [loop] = [e for e in equations(jaxpr.jaxpr) if e.primitive.name == "while"]
    inside = list(equations(loop.params["body_jaxpr"].jaxpr))
    assert sum(e.primitive.name == "reduce" for e in inside) == 19  # 300 / 16
    # The other reductions are of counts: a number of four limbs per candidate.
    others = [e for e in inside if e.primitive.name.startswith("reduce_")]
    assert others
    assert max(value.aval.size for e in others for value in e.invars) <= 19 * 4 * 4


LARGE_LEAVES = [jnp.ones((64, 50)), jnp.ones((3, 3, 8, 16)), jnp.ones((100, 100))]
TREES = {**dict.fromkeys(FORMS, LARGE_LEAVES), "swd of many leaves": MANY_LEAVES}


@pytest.mark.parametrize("form", TREES)
def test_no_array_is_larger_than_a_leaf_for_each_candidate(form):
    params, tx = TREES[form], FORMS[form.removesuffix(" of many leaves")]
    jaxpr = jax.make_jaxpr(tx.update)(params, tx.init(params), params)
    # The search stores one emulated number for each leaf and candidate.
    own = bracket_candidates.NUM_CANDIDATES * uint64.LIMBS * len(params)
    most = max(leaf.size for leaf in params) * bracket_candidates.NUM_CANDIDATES
    for equation in equations(jaxpr.jaxpr):
        for value in equation.outvars:
            assert value.aval.size <= max(most, own), equation


def test_a_step_is_traced_once_however_often_it_starts_warm():
    traces = []
    tx = swd_jax.swd(0.5, **DECAY)

    @jax.jit
    def step(params, state):
        traces.append(1)
        return tx.update(params, state, params)

    params = [jnp.arange(1.0, 21.0).reshape(5, 4)]
    state, thresholds = tx.init(params), []
    for _ in range(5):
        params, state = step(params, state)
        thresholds.append(float(state.selection.threshold))
    # Of the weights 1 to 20, those below 11 grow by a thousandth a step.
    assert thresholds == [11.0] * 5
    assert traces == [1]


def test_a_stack_of_layers_past_2_to_the_32_weights_is_traced():
    params = {"kernel": jax.ShapeDtypeStruct((80, 8192, 28672), jnp.bfloat16)}
    tx = swd_jax.swd(0.9, weight_decay=1e-3, a=1.0)
    state = jax.eval_shape(tx.init, params)
    updates, after = jax.eval_shape(tx.update, params, state, params)
    assert updates == params
    assert after == state
    [k] = exact_counts.pruned_counts([Fraction("0.9")], [80 * 8192 * 28672])
    assert uint64.to_int(k) == 80 * 8192 * 28672 * 9 // 10


def test_infinite_weights_are_not_selected():
    masks, counts = selected([np.full((3, 3), np.inf, np.float32)], target_of_all(0.9))
    assert counts == [0]
    assert not masks[0].any()


SHAPES_OF_DIGITS = {
    "kernel 1": (64, 50),
    "bias 1": (50,),
    "kernel 2": (50, 30),
    "bias 2": (30,),
    "kernel 3": (30, 10),
    "bias 3": (10,),
}
STEPS = 500


def random_network(seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=shape).astype(np.float32) / np.float32(shape[0]) ** 0.5
        for name, shape in SHAPES_OF_DIGITS.items()
    }


def loss(params, images, labels):
    for i in (1, 2):
        images = jax.nn.relu(images @ params[f"kernel {i}"] + params[f"bias {i}"][None])
    logits = images @ params["kernel 3"] + params["bias 3"][None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def kernels(params):
    return [np.asarray(leaf) for name, leaf in params.items() if "kernel" in name]


def each_kernel(function):
    def changed(params):
        return {
            name: function(leaf) if "kernel" in name else leaf
            for name, leaf in params.items()
        }

    return changed


def partly_nan(kernel):
    return np.where(np.arange(kernel.shape[-1]) % 7 == 3, np.nan, kernel)


class Upset(NamedTuple):
    """A change of the weights that the state of `swd` does not follow."""

    start: int
    stop: int  # the step at which the weights are restored; never if equal to start
    changed: Any  # params -> params


UPSETS = [
    Upset(0, 3, each_kernel(lambda kernel: np.full_like(kernel, 0.125))),
    Upset(150, 150, lambda params: random_network(seed=1)),
    Upset(200, 201, each_kernel(lambda kernel: 1000 * kernel)),
    Upset(220, 221, each_kernel(lambda kernel: kernel / 1000)),
    # After a step with some of the weights NaN, all of them are.
    Upset(250, 253, each_kernel(partly_nan)),
    Upset(300, 303, each_kernel(np.zeros_like)),
]
LEARNING_RATE_DROPS = {100: 0.5, 350: 0.2}
SETTLING = 2  # steps until threshold and change are those of undisturbed weights again

LEARNING_RATE = {
    "sgd": optax.piecewise_constant_schedule(0.1, LEARNING_RATE_DROPS),
    "adam": optax.piecewise_constant_schedule(0.003, LEARNING_RATE_DROPS),
}


def rising(step):
    """Return a sparsity in 64ths, which float32 and short decimals hold exactly."""
    return jnp.minimum(step // 5, 58) / 64


# name: (optimizer, sparsity, the same at a step)
RUNS = {
    "sgd": (optax.sgd(LEARNING_RATE["sgd"], momentum=0.9), 0.9, lambda step: 0.9),
    "adam": (optax.adam(LEARNING_RATE["adam"]), 0.9, lambda step: 0.9),
    "sgd, rising": (
        optax.sgd(LEARNING_RATE["sgd"], momentum=0.9),
        rising,
        lambda step: min(step // 5, 58) / 64,
    ),
}


class Step(NamedTuple):
    """A step of the run."""

    sparsity: float
    weights: list[np.ndarray]
    before: swd_jax.SwdState
    after: swd_jax.SwdState
    num_passes: int
    undisturbed: bool


@pytest.fixture(scope="module", params=RUNS)
def run(request):
    """Train a network for 500 steps, with disturbances."""
    optimizer, sparsity, sparsity_at = RUNS[request.param]
    a = swd_jax.exponential_growth(0.1, 1e5, STEPS)
    tx = optax.chain(swd_jax.swd(sparsity, weight_decay=5e-4, a=a), optimizer)

    @jax.jit
    def step(params, state, images, labels):
        # The update runs the same search but does not return the number of passes.
        ranking = rank(params, swd_jax.Target(0.0))
        counts = counts_of(
            ranking, sparsity_values.sparsity_at(sparsity, state[0].count)
        )
        last = warm_start.PreviousThresholds(
            state[0].selection.threshold[None],
            state[0].selection.threshold_change[None],
        )
        num_passes = ranking.find_thresholds(counts, previous=last).num_passes
        gradients = jax.grad(loss)(params, images, labels)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, num_passes

    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    params = random_network()
    state, history, saved = tx.init(params), [], None
    for i in range(STEPS):
        for upset in UPSETS:
            if i == upset.stop and upset.stop > upset.start:
                params, state = saved[0], (state[0], saved[1])
            if i == upset.start:
                saved = params, state[1]
                params = upset.changed(jax.tree.map(np.asarray, params))
        batch = slice(i % 14 * 128, i % 14 * 128 + 128)
        before, weights = state[0], kernels(params)
        params, state, num_passes = step(params, state, images[batch], labels[batch])
        near = [u for u in UPSETS if u.start <= i <= u.stop + SETTLING]
        after, before = jax.device_get((state[0], before))
        history.append(
            Step(sparsity_at(i), weights, before, after, int(num_passes), not near)
        )
    return history


def test_along_a_training_run_every_threshold_is_that_of_a_sort(run):
    weights = sum(leaf.size for leaf in run[0].weights)
    for i, step in enumerate(run):
        tau = reference.threshold(step.weights, step.sparsity)
        assert step.after.selection.threshold == tau, i
        selected = (reference.magnitudes(step.weights) < tau).sum()
        assert round(step.after.selection.selected_fraction * weights) == selected, i
        assert selected <= reference.pruned_count(step.sparsity, weights)


def test_the_run_has_thresholds_that_are_hard_to_find(run):
    # The run has equal, zero, infinite and very different thresholds.
    at = [float(step.after.selection.threshold) for step in run]
    assert at[0] == 0.125
    assert at[200] > 100 * at[199]
    assert at[201] < at[200] / 100
    assert at[220] < at[219] / 100
    assert np.isnan(run[250].weights[0]).any()
    assert np.isfinite(run[250].weights[0]).any()
    assert np.isinf(at[251])
    assert np.isfinite(at[253])
    assert at[300] == 0
    # Training goes on, and the selected weights shrink.
    assert at[-1] < at[303]


def test_a_warm_start_takes_few_passes_during_training(run):
    num_passes = [step.num_passes for step in run if step.undisturbed]
    assert len(num_passes) > 450
    assert np.mean(num_passes) <= 4  # 1.5 to 2.5 when this was written
    assert max(step.num_passes for step in run) <= MAX_PASSES


def test_the_change_is_the_difference_of_thresholds(run):
    for step in run[1:]:
        old, new = step.before.selection.threshold, step.after.selection.threshold
        if np.isfinite(old) and np.isfinite(new):
            assert step.after.selection.threshold_change == new - old
        else:
            assert step.after.selection.threshold_change == 0
    assert run[0].after.selection.threshold_change == 0
