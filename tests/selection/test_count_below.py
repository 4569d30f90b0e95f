"""One pass over the leaves, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swd_jax._arrays import exact_sums, uint64, variadic_reduce
from swd_jax._selection import count_below

MAX_INT = 2**31 - 1
SHAPES = [(5, 4), (7,), (0, 3), (2, 3, 4), (), (5, 4), (7,), (5, 4)]
# Pools, and the leaves within a pool, are in the order of the caller.
POOLS = {
    "all together": [(0, 1, 2, 3, 4, 5, 6, 7)],
    "each leaf alone": [(i,) for i in range(len(SHAPES))],
    "some": [(5, 0), (2,), (7, 3, 1), (6,), (4,)],
}
NUM_THRESHOLDS = [1, 2, 4, 9]


@pytest.fixture
def in_batches(monkeypatch):
    """Batch leaves as in a tree of hundreds, which would take long to compile."""
    monkeypatch.setattr(count_below, "_MANY", 2)


def leaves_of(shapes, rng):
    return [rng.integers(0, 12, shape).astype(np.int32) for shape in shapes]


def thresholds_of(pools, number, rng):
    """Draw thresholds among the keys, below all of them, and above all of them."""
    thresholds = [rng.integers(0, 14, number).astype(np.int32) for _ in pools]
    for pool_thresholds in thresholds:
        pool_thresholds[0] = rng.choice([0, 5, 14])
    return thresholds


def reference(keys, pools, thresholds, costs):
    below, next_key = [], []
    for pool, limits in zip(pools, thresholds, strict=True):
        row = np.concatenate([keys[i].ravel() for i in pool])
        cost = np.concatenate([np.full(keys[i].size, costs[i]) for i in pool])
        below.append([int(cost[row < limit].sum()) for limit in limits])
        next_key.append(
            [np.min(row[row >= limit], initial=MAX_INT) for limit in limits]
        )
    return np.transpose(below), np.transpose(next_key)


def check(shapes, pools, number, costs=None, seeds=5):
    tally = jax.jit(lambda keys, limits: count_below.tally(keys, pools, limits, costs))
    expected_costs = [
        1 if cost is None else cost for cost in costs or [None] * len(shapes)
    ]
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        keys = leaves_of(shapes, rng)
        limits = thresholds_of(pools, number, rng)
        below, next_key = tally(keys, limits)
        expected, expected_next = reference(keys, pools, limits, expected_costs)
        actual = [[uint64.to_int(wide) for wide in row] for row in below]
        np.testing.assert_array_equal(actual, expected)
        np.testing.assert_array_equal(next_key, expected_next)


@pytest.mark.parametrize("number", NUM_THRESHOLDS)
def test_any_number_of_thresholds_is_counted_in_one_pass(number):
    check(SHAPES, POOLS["some"], number)


@pytest.mark.parametrize("pools", POOLS)
def test_pools_are_counted_separately(pools):
    check(SHAPES, POOLS[pools], 3)


@pytest.mark.parametrize("pools", POOLS)
def test_pools_with_batches_are_counted_separately(pools, in_batches):
    check(SHAPES, POOLS[pools], 3)


@pytest.mark.parametrize("many", [1, 1000])
def test_without_next_keys_the_counts_are_the_same(many, monkeypatch):
    monkeypatch.setattr(count_below, "_MANY", many)
    rng = np.random.default_rng(0)
    keys = leaves_of(SHAPES, rng)
    limits = thresholds_of(POOLS["some"], 3, rng)
    below, next_key = count_below.tally(
        keys, POOLS["some"], limits, find_next_keys=False
    )
    expected, _ = reference(keys, POOLS["some"], limits, [1] * len(SHAPES))
    actual = [[uint64.to_int(wide) for wide in row] for row in below]
    np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(next_key, np.transpose(limits))


MANY = [(3, 4)] * 35 + [(0, 4)] * 3 + [(), ()] + [(3, 4)] * 5 + [(4, 3)] * 16


@pytest.mark.parametrize(
    "costs",
    [None, [1, 5, None] * 20 + [2**20]],
    ids=["no cost", "a cost per leaf"],
)
def test_batches_hold_leaves_of_one_shape_and_one_cost(costs, in_batches):
    positions = np.random.default_rng(0).permutation(len(MANY)).tolist()
    check(MANY, [positions[:40], positions[40:]], 4, costs)


def reductions(shapes, pools, costs=None, **options):
    """Return the number of joint reductions in one pass."""
    keys = [jax.ShapeDtypeStruct(shape, jnp.int32) for shape in shapes]
    limits = [jax.ShapeDtypeStruct((4,), jnp.int32)] * len(pools)
    jaxpr = jax.make_jaxpr(
        lambda k, x: count_below.tally(k, pools, x, costs, **options)
    )(keys, limits)
    names = [equation.params.get("name") for equation in jaxpr.eqns]
    return names.count(variadic_reduce._reduce_jointly.__name__)


def test_each_of_few_leaves_has_its_own_reduction():
    few = count_below._MANY - 1
    assert reductions([(3, 4)] * few, [range(few)]) == few


def test_sixteen_of_many_small_leaves_share_a_reduction():
    number = count_below._MANY
    shapes = [(3, 4)] * number
    assert reductions(shapes, [range(number)]) == -(-number // 16)
    # Each of two pools of 16 n + 1 leaves has one more.
    more = [(3, 4)] * (number + 34)
    half = number // 2 + 17
    assert half % 16 == 1
    pools = [range(half), range(half, 2 * half)]
    assert reductions(more, pools) == 2 * (half // 16 + 1)


def test_larger_leaves_share_a_reduction_in_a_search_that_runs_once():
    number = count_below._MANY
    small, large = count_below._SMALL, count_below._SMALL_ONCE
    for size, runs_once, is_shared in (
        (small + 1, False, False),
        (small + 1, True, True),
        (large, True, True),
        (large + 1, True, False),
    ):
        expected = -(-number // 16) if is_shared else number
        shapes = [(size,)] * number
        assert reductions(shapes, [range(number)], runs_once=runs_once) == expected


def test_leaves_that_differ_share_no_reduction(in_batches):
    # In shape, in cost, or with a cost for each element.
    assert reductions([(3, 4), (4, 3), (12,)], [range(3)]) == 3
    assert reductions([(3, 4)] * 4, [range(4)], [1, 2, 1, None]) == 3
    element_costs = np.ones((3, 4), np.uint8)
    assert reductions([(3, 4)] * 3, [range(3)], [element_costs, element_costs, 1]) == 3


def test_large_leaves_share_no_reduction(in_batches):
    # The limit is 65,536 elements.
    assert reductions([(256, 256)] * 4, [range(4)]) == 1
    assert reductions([(257, 256)] * 4, [range(4)]) == 4


def test_counts_past_2_to_the_32_do_not_wrap(in_batches):
    keys = [jnp.zeros((3, 4), jnp.int32)] * 5
    limits = [jnp.array([1], jnp.int32)]
    for costs in ([2**40] * 5, [np.full((3, 4), 2**32 - 1, np.uint32)] * 5):
        below, _ = count_below.tally(keys, [range(5)], limits, costs)
        assert uint64.to_int(below[0, 0]) == 60 * int(np.max(costs[0]))


def test_a_leaf_too_large_for_one_sum_is_counted_with_the_others(monkeypatch):
    # The limit is lowered, since a leaf of 2**32 elements does not fit into a test.
    monkeypatch.setattr(exact_sums, "_WRAPS_FROM", 21)
    check(SHAPES, POOLS["some"], 3, seeds=2)
