"""Sums and extremes of whole leaves, against NumPy and Python's integers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swd_jax._arrays import exact_sums, uint64

SHAPES = [(), (0,), (1,), (2,), (3, 0), (40, 30), (2, 3, 4)]
DTYPES = ["uint8", "uint16", "uint32"]


@pytest.fixture
def summed_by_rows(monkeypatch):
    """Sum by rows, as for leaves of 2**32 elements, which fit into no test."""
    monkeypatch.setattr(exact_sums, "_WRAPS_FROM", 10)


def integers(shape, dtype, seed=0):
    """Draw integers, with the largest of the dtype among them."""
    largest = np.iinfo(dtype).max
    rng = np.random.default_rng(seed)
    values = rng.integers(0, largest, shape, dtype, endpoint=True)
    return np.where(rng.random(shape) < 0.3, largest, values).astype(dtype)


def to_ints(numbers):
    return [[uint64.to_int(number) for number in row] for row in np.asarray(numbers)]


def total(values):
    return int(np.sum(values, dtype=object))


def test_masks_are_counted_leaf_by_leaf():
    numbers = [
        jnp.arange(12).reshape(3, 4),
        jnp.arange(5),
        jnp.zeros((0, 3)),
        jnp.ones(()),
    ]
    counts = exact_sums.count_true([[leaf < 3, leaf < 1] for leaf in numbers])
    assert to_ints(counts) == [[3, 1], [3, 1], [0, 0], [1, 0]]


def test_a_single_mask_is_counted():
    counts = exact_sums.count_true([[jnp.array([True, False, True])]])
    assert to_ints(counts) == [[2]]


def test_leaves_too_large_for_one_sum_are_counted_by_rows(summed_by_rows):
    mask = np.random.default_rng(0).random((7, 5, 3)) < 0.4
    small = np.array([True, False])
    counts = exact_sums.count_true(
        [[jnp.asarray(mask), ~jnp.asarray(mask)], [small, ~small]]
    )
    assert to_ints(counts) == [[mask.sum(), (~mask).sum()], [1, 1]]


def sum_as_float(values) -> jax.Array:
    return exact_sums.sums_as_float32([values])[0]


def largest(keys: jax.Array) -> jax.Array:
    return exact_sums.max_keys([keys])[0]


def test_a_leaf_past_2_to_the_32_is_traced_without_64_bit_types():
    shape = jax.ShapeDtypeStruct((61, 256, 7168, 2048), jnp.bool_)
    counts = jax.eval_shape(lambda mask: exact_sums.count_true([[mask, ~mask]]), shape)
    assert counts.shape == (1, 2, 4)
    assert counts.dtype == jnp.uint32


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [(shape, "uint32") for shape in SHAPES] + [((40, 30), d) for d in DTYPES[:2]],
)
def test_integers_are_summed_exactly(shape, dtype):
    values = integers(shape, dtype)
    assert uint64.to_int(exact_sums.sum_integers(values)) == total(values)


@pytest.mark.parametrize("dtype", ["uint8", "uint32"])
def test_integers_of_a_large_leaf_are_summed_exactly(dtype, summed_by_rows):
    values = integers((7, 5, 3), dtype)
    assert uint64.to_int(exact_sums.sum_integers(values)) == total(values)


@pytest.mark.parametrize("shape", [(2**25,), (2**25, 1), (1, 2**25)])
def test_a_long_row_is_summed_exactly(shape):
    # 2**25 times 255 exceeds 32 bits, though a digit of each row fits.
    values = jnp.full(shape, 255, jnp.uint8)
    assert uint64.to_int(jax.jit(exact_sums.sum_integers)(values)) == 255 << 25
    assert float(jax.jit(sum_as_float)(values)) == 255 << 25


@pytest.mark.parametrize("shape", SHAPES)
def test_the_float_of_a_sum_is_nearly_the_nearest(shape):
    values = integers(shape, "uint32")
    actual = sum_as_float(values)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(float(actual), float(total(values)), rtol=3e-7)


def test_the_float_of_a_large_leafs_sum_is_nearly_the_nearest(summed_by_rows):
    values = integers((7, 5, 3), "uint32")
    actual = sum_as_float(values)
    np.testing.assert_allclose(float(actual), float(total(values)), rtol=3e-7)


def test_the_float_of_a_sum_depends_on_neither_order_nor_shape():
    values = integers((60, 40), "uint32")
    row = values.ravel()
    shuffled = np.random.default_rng(1).permutation(row)
    layouts = [values, row, np.sort(row), shuffled, shuffled.reshape(2, 30, 40)]
    sums = {float(sum_as_float(layout)) for layout in layouts}
    assert len(sums) == 1


def test_leaves_of_all_sizes_are_summed_together(summed_by_rows):
    # They have different numbers of digits, and some sums exceed 32 bits.
    leaves = [
        integers(shape, "uint32") for shape in [*SHAPES[1:], (7, 5, 3), (70_000,)]
    ]
    actual = exact_sums.sums_as_float32(leaves)
    assert actual.shape == (len(leaves),)
    np.testing.assert_allclose(
        actual, [float(total(leaf)) for leaf in leaves], rtol=3e-7
    )


def test_max_keys_are_of_each_leaf():
    leaves = [integers(shape, "uint16").astype(np.int32) for shape in SHAPES]
    actual = exact_sums.max_keys([jnp.asarray(leaf) for leaf in leaves])
    np.testing.assert_array_equal(actual, [np.max(leaf, initial=0) for leaf in leaves])


def test_true_elements_are_counted_as_the_largest_key_is_found(summed_by_rows):
    leaves = [integers(shape, "uint16").astype(np.int32) for shape in SHAPES]
    rng = np.random.default_rng(1)
    masks = [rng.random(shape) < 0.6 for shape in SHAPES]
    keys, counts = exact_sums.max_keys_and_counts(
        [jnp.asarray(leaf) for leaf in leaves], [jnp.asarray(mask) for mask in masks]
    )
    np.testing.assert_array_equal(keys, [np.max(leaf, initial=0) for leaf in leaves])
    assert to_ints(counts[:, None]) == [[int(mask.sum())] for mask in masks]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_largest_key_of_an_empty_leaf_is_zero(shape):
    keys = np.random.default_rng(0).integers(0, 2**31, shape, "int32")
    actual = largest(jnp.asarray(keys))
    assert actual.shape == ()
    assert actual.dtype == jnp.int32
    assert actual == np.max(keys, initial=0)


@pytest.mark.parametrize("value", [0, 5, 2**31 - 1])
def test_the_largest_key_may_be_at_either_end_of_the_range(value):
    assert largest(jnp.full((2, 3), value, jnp.int32)) == value


def test_the_largest_key_of_a_large_leaf(summed_by_rows):
    keys = integers((7, 5, 3), "uint16").astype(np.int32)
    keys[6, 4, 1] = 70_000
    assert largest(jnp.asarray(keys)) == 70_000


class TestSumsAndMinima:
    """Two sums and two minima of a leaf in one pass."""

    @pytest.fixture
    def leaf(self):
        rng = np.random.default_rng(2)
        ones = [(rng.random((7, 5, 3)) < s).astype(np.uint32) for s in (0.3, 0.9)]
        keys = rng.integers(5, 2**31 - 1, (2, 7, 5, 3)).astype(np.int32)
        return ones, list(keys)

    @staticmethod
    def check(leaf, cost):
        indicators, keys = leaf
        sums, minima = exact_sums.sums_and_minima(
            list(map(jnp.asarray, indicators)), cost, list(map(jnp.asarray, keys))
        )
        assert [int(minimum) for minimum in minima] == [np.min(key) for key in keys]
        costs = 1 if cost is None else np.asarray(cost, object)
        [actual] = to_ints(
            exact_sums.scale_counts(exact_sums.stack_sums([sums]), [cost])
        )
        assert actual == [total(costs * row.astype(object)) for row in indicators]
        return sums

    def test_without_a_cost(self, leaf):
        # The sums cannot wrap round and stay 32-bit integers.
        assert self.check(leaf, None).shape == (2,)

    def test_of_a_large_leaf(self, leaf, summed_by_rows):
        self.check(leaf, None)

    @pytest.mark.parametrize("cost", [1, 3, 2**40])
    def test_with_one_cost(self, leaf, cost):
        self.check(leaf, cost)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_with_a_cost_for_each_element(self, leaf, dtype):
        self.check(leaf, integers(leaf[0][0].shape, dtype))

    def test_with_a_cost_for_each_element_of_a_large_leaf(self, leaf, summed_by_rows):
        self.check(leaf, integers(leaf[0][0].shape, "uint32"))


def test_the_minimum_of_an_empty_leaf_is_the_largest_integer():
    ones, keys = jnp.zeros((3, 0), jnp.uint32), jnp.zeros((3, 0), jnp.int32)
    sums, [minimum] = exact_sums.sums_and_minima([ones], None, [keys])
    assert sums.tolist() == [0]
    assert minimum == 2**31 - 1


def test_32_bit_and_emulated_sums_are_stacked():
    counts = jnp.array([3, 2**32 - 1], jnp.uint32)
    emulated = jnp.stack([jnp.asarray(uint64.from_int(i)) for i in (5, 2**40)])
    assert to_ints(exact_sums.stack_sums([counts])) == [[3, 2**32 - 1]]
    both = to_ints(exact_sums.stack_sums([counts, emulated]))
    assert both == [[3, 2**32 - 1], [5, 2**40]]


def test_counts_are_multiplied_by_the_cost_of_each_leaf():
    counts = [[0, 7], [2**32 - 1, 3], [5, 6], [8, 9]]
    emulated = exact_sums.stack_sums([jnp.array(row, jnp.uint32) for row in counts])
    costs_in_counts = jnp.ones(2, jnp.uint32)  # a leaf of which these are costs already
    assert exact_sums.scale_counts(emulated, [None, 1, None, costs_in_counts]) is (
        emulated
    )
    costs = [2**31 + 5, 2**31 + 5, None, costs_in_counts]
    scaled = to_ints(exact_sums.scale_counts(emulated, costs))
    large = 2**31 + 5
    assert scaled == [[0, 7 * large], [(2**32 - 1) * large, 3 * large], [5, 6], [8, 9]]
