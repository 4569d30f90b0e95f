"""Selection under a budget of costs, against sums over all keys in NumPy."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from swd_jax._arrays import exact_sums, uint64
from swd_jax._selection import count_below, order_statistics, tie_cutoffs
from tests.helpers import quickly

LARGEST = 100_000
KEYS = order_statistics.KeyRange(
    largest=LARGEST, trailing_zero_bits=0, interpolation_bits=10
)
GUESSES = np.array([1, 50, 1000, 70_000], np.int32)

# name: (shapes, groups, costs), where a cost is an integer, None or the name of a type.
SHAPES = [(5, 4), (7,), (2, 3, 4), (0, 3), (), (11,)]
TOGETHER = [(0, 1, 2, 3, 4, 5)]
APART = [(1, 0), (3, 5), (2, 4)]
FORMS = {
    "a number each": (SHAPES, TOGETHER, [1, 2, 7, 3, 10, 1]),
    "bytes": (SHAPES, TOGETHER, ["uint8"] * 6),
    "some of each": (SHAPES, TOGETHER, [None, 3, "uint8", "uint16", 70, "uint32"]),
    "some of each in groups": (SHAPES, APART, ["uint16", 5, None, 2, "uint8", 6]),
    "past 2**32": (SHAPES, APART, ["large", 2**40, 2**32 - 1, "large", "large", 2**44]),
    "batches": (
        [(3, 5)] * 20 + [(4,)] * 18 + [(3, 5)],
        [tuple(range(0, 39, 2)), tuple(range(1, 39, 2))],
        [None] * 4 + [1, 6, 2**40] * 4 + [6] * 22 + ["uint8"],
    ),
}


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    if request.param == "batches":
        # As in a tree of hundreds of leaves, which takes long to compile.
        monkeypatch.setattr(count_below, "_MANY", 2)
    return FORMS[request.param]


def random_costs(rng, shape, cost):
    """Costs as the engine takes them: a number stays what it is."""
    if cost is None or isinstance(cost, int):
        return cost
    if cost == "large":
        return rng.integers(2**32 - 5, 2**32, shape, "uint32")
    most = min(np.iinfo(cost).max, 10**6)
    return rng.integers(1, most, shape, cost, endpoint=True)


def random_keys(rng, shape):
    """With ties, with gaps, and some above the largest threshold there may be."""
    kind = rng.integers(4)
    if kind == 0:
        keys = rng.choice(rng.integers(0, LARGEST, 5), shape)
    elif kind == 1:
        keys = rng.integers(0, LARGEST, shape) + LARGEST * (rng.random(shape) < 0.3)
    elif kind == 2:
        keys = 1.2 ** rng.uniform(0, 64, shape)
    else:
        keys = rng.integers(0, 30, shape)
    return np.asarray(keys).astype(np.int32)


def each(costs, keys):
    """What every single element costs, as Python's integers, in a row."""
    costs = [1 if cost is None else cost for cost in costs]
    rows = [
        np.broadcast_to(np.array(cost, object), key.shape).ravel()
        for cost, key in zip(costs, keys, strict=True)
    ]
    return np.concatenate(rows)


def by_brute_force(keys, costs, budget):
    """The greatest of all keys below which costs are within the budget, and these."""
    keys = np.concatenate([leaf.ravel() for leaf in keys])
    order = np.argsort(keys, kind="stable")
    keys, costs = keys[order], costs[order]
    before = np.array([0, *itertools.accumulate(costs.tolist())], object)
    starts = np.searchsorted(keys, keys)
    threshold = min(keys[before[starts] <= budget].max(), LARGEST)
    return threshold, before[np.searchsorted(keys, threshold)]


def budgets_to_try(rng, costs):
    """Of one group: nothing, all but one, what some of it costs, and around that."""
    total = int(costs.sum())
    exact = sum(rng.permutation(costs)[: rng.integers(costs.size)].tolist())
    between = total * int(rng.integers(10**9)) // 10**9
    tried = [0, total - 1, exact, exact - 1, exact + 1, between, 1]
    return [min(max(budget, 0), total - 1) for budget in tried]


def test_the_threshold_is_the_greatest_key_within_the_budget(form):
    shapes, groups, kinds = form
    fixed = [cost if isinstance(cost, int) else None for cost in kinds]
    arrays = [i for i, cost in enumerate(kinds) if isinstance(cost, str)]

    @quickly.jit
    def found(keys, given, budgets):
        costs = [given[arrays.index(i)] if i in arrays else c for i, c in indexed]
        guesses = np.broadcast_to(GUESSES[:, None], (len(GUESSES), len(groups)))
        return order_statistics.find_order_statistics(
            lambda leaf: leaf,
            keys,
            groups,
            budgets,
            KEYS,
            initial_candidates=jnp.asarray(guesses),
            costs=costs,
        )

    indexed = list(enumerate(fixed))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        keys = [random_keys(rng, shape) for shape in shapes]
        costs = [random_costs(rng, s, k) for s, k in zip(shapes, kinds, strict=True)]
        given = [costs[i] for i in arrays]
        members = [[keys[i] for i in group] for group in groups]
        their_costs = [
            each([costs[i] for i in group], part)
            for group, part in zip(groups, members, strict=True)
        ]
        tried = [budgets_to_try(rng, costs) for costs in their_costs]
        for budgets in zip(*tried, strict=True):
            wide = np.stack([uint64.from_int(budget) for budget in budgets])
            limits, below, *_ = found(keys, given, wide)
            got = [
                (int(x), uint64.to_int(y)) for x, y in zip(limits, below, strict=True)
            ]
            assert got == [
                by_brute_force(*of_group)
                for of_group in zip(members, their_costs, budgets, strict=True)
            ]


def test_a_cost_that_all_have_changes_no_reading():
    # Estimates of where to look are shares of what the bracket costs. Times a power of
    # two they are exactly the same.
    rng = np.random.default_rng(0)
    keys = (1000 * rng.standard_normal((50, 40)) ** 2).astype(np.int32)
    counts = [200, 1000, 1700, 1980]
    readings = []
    for cost, each_costs in [(None, 1), (4, 4), (np.full((50, 40), 4, np.uint8), 4)]:
        found = quickly.jit(
            lambda keys, budgets, cost: order_statistics.find_order_statistics(
                lambda leaf: leaf,
                [keys],
                [(0,)],
                budgets,
                KEYS,
                initial_candidates=jnp.asarray(GUESSES[:, None]),
                costs=[cost],
            ),
            static_argnums=() if isinstance(cost, np.ndarray) else 2,
        )
        searches = [
            found(keys, uint64.from_int(each_costs * k)[None], cost) for k in counts
        ]
        assert [int(search.keys[0]) for search in searches] == [
            np.sort(keys.ravel())[k] for k in counts
        ]
        readings.append([int(search.num_passes) for search in searches])
    assert readings[0] == readings[1] == readings[2]


@pytest.mark.parametrize("kind", [None, 3, 2**40, "uint8", "uint16", "uint32", "large"])
def test_what_is_true_costs_what_its_elements_do(kind):
    rng = np.random.default_rng(0)
    masks = [rng.random((2, *shape)) < 0.5 for shape in SHAPES]
    costs = [random_costs(rng, shape, kind) for shape in SHAPES]
    fixed = costs if not isinstance(costs[0], np.ndarray) else None

    @quickly.jit
    def count(masks, costs):
        return exact_sums.count_true([list(pair) for pair in masks], fixed or costs)

    sums = count(masks, [] if fixed else costs)
    for pair, cost, got in zip(masks, costs, sums, strict=True):
        for mask, wide in zip(pair, got, strict=True):
            expected = sum(each([cost], [mask])[mask.ravel()].tolist())
            assert uint64.to_int(wide) == expected


def test_leaves_with_costs_of_each_kind_are_counted_together():
    masks = [[np.array([True, False, True])], [np.ones((2, 2), bool)], [np.array(True)]]
    costs = [np.array([3, 100, 2**32 - 1], np.uint32), None, 2**50]
    sums = exact_sums.count_true(masks, costs)
    assert [uint64.to_int(wide) for [wide] in sums] == [2**32 + 2, 4, 2**50]


def test_cutoffs_take_the_first_that_the_quota_pays_for():
    kinds = [None, 3, "uint8", "uint16", 2**40, "large"]

    @quickly.jit
    def cutoffs_of(masks, arrays, quotas):
        costs = [None, 3, arrays[0], arrays[1], 2**40, arrays[2]]
        return tie_cutoffs.find_tie_cutoffs(
            lambda mask: mask, masks, SHAPES, quotas, costs=costs
        )

    for seed in range(30):
        rng = np.random.default_rng(seed)
        masks = [rng.random(shape) < 0.5 for shape in SHAPES]
        costs = [random_costs(rng, s, k) for s, k in zip(SHAPES, kinds, strict=True)]
        spent = [
            np.cumsum(each([cost], [mask]) * mask.ravel())
            for cost, mask in zip(costs, masks, strict=True)
        ]
        most = [max([0, *sums.tolist()]) for sums in spent]
        quotas = [m * int(rng.integers(0, 1100)) // 1000 for m in most]
        if seed == 0:
            quotas = [0] * len(masks)
        wide = np.stack([uint64.from_int(quota) for quota in quotas])
        cutoffs = cutoffs_of(masks, [costs[2], costs[3], costs[5]], wide)
        for mask, sums, quota, cutoff in zip(
            masks, spent, quotas, cutoffs, strict=True
        ):
            before = np.asarray(tie_cutoffs.is_before(mask.shape, cutoff))
            paid = (sums <= quota).reshape(mask.shape).astype(bool)
            np.testing.assert_array_equal(before & mask, paid & mask)
