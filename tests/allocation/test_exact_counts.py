"""Exact counts k = floor(s n), for numbers, schedules and tracers, pool by pool."""

import itertools
from decimal import Decimal
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import swd_jax
from swd_jax._allocation import (
    exact_counts,
    sparsity_values,
)
from swd_jax._arguments import validation
from swd_jax._arrays import uint64

SIZES = (1, 7, 100, 1000, 12345, 2**31 + 11, 2**40 + 3)


HUNDREDTHS = [Fraction(i, 100) for i in range(100)]


THOUSANDTHS = [Fraction(i, 1000) for i in range(1000)]


def known_count(sparsity, size: int) -> int:
    exact = validation.as_decimal("sparsity", sparsity)
    assert exact is not None
    [count] = exact_counts.pruned_counts([exact], [size])
    return uint64.to_int(count)


@pytest.fixture(scope="module")
def traced_counts():
    """Counts of many traced float32 sparsities, for each of the sizes."""

    @jax.jit
    def counts(sparsities):
        assert isinstance(sparsities, jax.core.Tracer)
        return jax.vmap(lambda s: exact_counts.pruned_counts([s] * len(SIZES), SIZES))(
            sparsities
        )

    def as_integers(sparsities) -> dict[int, list[int]]:
        # Padded to one length, so that it is compiled once.
        padded = np.zeros(len(THOUSANDTHS), np.float32)
        padded[: len(sparsities)] = sparsities
        limbs = np.asarray(counts(padded)).astype(np.uint64)
        integers = np.sum(limbs << np.uint64([0, 16, 32, 48]), axis=-1)
        by_size = integers[: len(sparsities)].T.tolist()
        return dict(zip(SIZES, by_size, strict=True))

    return as_integers


class TestCount:
    """Counts against exact fractions and Python's unbounded integers."""

    @pytest.mark.parametrize("weights", SIZES)
    @pytest.mark.parametrize("grid", [HUNDREDTHS, THOUSANDTHS], ids=len)
    def test_of_a_known_sparsity_is_the_floor(self, weights, grid):
        assert [known_count(float(s), weights) for s in grid] == [
            s.numerator * weights // s.denominator for s in grid
        ]

    @pytest.mark.parametrize("grid", [HUNDREDTHS, THOUSANDTHS], ids=len)
    def test_of_a_traced_sparsity_is_the_floor_of_the_same_decimal(
        self, traced_counts, grid
    ):
        for weights, counts in traced_counts([float(s) for s in grid]).items():
            assert counts == [s.numerator * weights // s.denominator for s in grid]

    @given(st.lists(st.integers(0, 10**7 - 1), max_size=20))
    def test_of_a_traced_sparsity_is_exact_to_seven_places(self, traced_counts, many):
        for weights, counts in traced_counts([i / 10**7 for i in many]).items():
            assert counts == [i * weights // 10**7 for i in many]

    @given(st.fractions(0, 1).filter(lambda s: s < 1), st.integers(1, 2**41))
    def test_of_any_fraction_is_the_floor(self, sparsity, weights):
        expected = sparsity.numerator * weights // sparsity.denominator
        assert known_count(sparsity, weights) == expected

    def test_of_a_third_is_not_that_of_its_rounded_decimal(self):
        assert known_count(Fraction(1, 3), 3 * 10**9) == 10**9
        assert known_count(1 / 3, 3 * 10**9) == 10**9 - 1  # 0.333...3 of them

    @pytest.mark.parametrize(
        "sparsity",
        [
            0.29,
            np.float32(0.29),
            np.float64(0.29),
            jnp.float32(0.29),
            Fraction(29, 100),
            Decimal("0.29"),
        ],
        ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}",
    )
    def test_of_29_hundredths_of_100_weights_is_29(self, sparsity):
        # In floating-point arithmetic 0.29 * 100 is 28.999999999999996.
        assert int(0.29 * 100) == 28
        params = {"kernel": jnp.arange(1.0, 101.0).reshape(10, 10)}
        pruned = swd_jax.prune(params, sparsity)["kernel"].ravel()
        np.testing.assert_array_equal(pruned[:29], np.zeros(29))
        np.testing.assert_array_equal(pruned[29:], np.arange(30, 101))

    @pytest.mark.parametrize("weights", SIZES)
    def test_leaves_at_least_one_weight(self, weights):
        almost_one = Fraction(2**60 - 1, 2**60)
        assert known_count(almost_one, weights) == weights - 1

    def test_of_no_weights_is_zero(self):
        assert known_count(0.9, 0) == 0
        traced = jax.jit(lambda s: exact_counts.pruned_counts([s], [0]))(0.9)
        assert uint64.to_int(traced[0]) == 0

    @pytest.mark.parametrize(
        ("sparsity", "count"),
        [
            (-0.5, 0),
            (-np.inf, 0),
            (np.nan, 0),
            (-0.0, 0),
            (1.0, 99),
            (1.5, 99),
            (3e38, 99),
            (np.inf, 99),
        ],
    )
    def test_of_a_traced_sparsity_out_of_range_is_clipped(
        self, traced_counts, sparsity, count
    ):
        assert traced_counts([sparsity])[100] == [count]

    def test_of_a_traced_sparsity_is_the_same_under_64_bits(self):
        with jax.enable_x64(True):
            size = 2**31 + 11
            traced = jax.jit(lambda s: exact_counts.pruned_counts([_at(s)], [size]))
            [count] = traced(np.float64(0.997))
            assert uint64.to_int(count) == 997 * size // 1000

    @given(values=st.lists(st.floats(width=32), max_size=20))
    def test_of_a_known_float_is_that_of_a_traced_one(self, traced_counts, values):
        traced = traced_counts(values)
        for i, value in enumerate(values):
            known = sparsity_values.sparsity_at(lambda step, v=value: v, 3)
            for weights, counts in traced.items():
                [count] = exact_counts.pruned_counts([known], [weights])
                assert uint64.to_int(count) == counts[i]


def _at(sparsity):
    return sparsity_values.sparsity_at(sparsity, None)


class TestPools:
    """Counts of all pools together are those of each pool alone."""

    # Floats stand for values of schedules, which are traced.
    SPARSITIES = (
        0.29,
        Fraction(29, 100),
        0.999,
        Fraction(1, 3),
        0.29,
        Fraction(0),
        1.0,
    )

    @staticmethod
    def integers(counts) -> list[int]:
        return [uint64.to_int(count) for count in counts]

    def test_known_and_traced_sparsities_may_be_mixed(self):
        @jax.jit
        def counts(values):
            # Both pools of 0.29 have the same tracer, as if they shared a schedule.
            sparsities = [
                s if isinstance(s, Fraction) else values[s] for s in self.SPARSITIES
            ]
            return exact_counts.pruned_counts(sparsities, SIZES)

        values = {s: s for s in self.SPARSITIES if not isinstance(s, Fraction)}
        exact = [
            Fraction(str(s)) if isinstance(s, float) else s for s in self.SPARSITIES
        ]
        expected = [
            min(s.numerator * n // s.denominator, n - 1)
            for s, n in zip(exact, SIZES, strict=True)
        ]
        assert self.integers(counts(values)) == expected

    def test_traced_sparsities_may_be_one_array(self):
        counts = jax.jit(lambda s: exact_counts.pruned_counts(s, SIZES))
        hundredths = np.arange(90, 90 + len(SIZES))
        expected = [int(h) * n // 100 for h, n in zip(hundredths, SIZES, strict=True)]
        result = counts((hundredths / 100).astype(np.float32))
        assert self.integers(result) == expected


def num_equations(jaxpr) -> int:
    """Count the equations of a jaxpr and of all jaxprs in their parameters."""
    parameters = [jax.tree.leaves(eqn.params) for eqn in jaxpr.eqns]
    inner = [p for p in itertools.chain(*parameters) if hasattr(p, "eqns")]
    return len(jaxpr.eqns) + sum(map(num_equations, inner))


class TestEquations:
    """The number of equations that a schedule of the sparsity adds to an update.

    Computed for one pool at a time, the counts of 100 leaves took 265,000 equations.
    """

    # Each pool of the mapping has half of the leaves.
    PARAMS = {
        f"{layer:03}": {
            "up": jax.ShapeDtypeStruct((2, 2), jnp.float32),
            "down": jax.ShapeDtypeStruct((2, 2), jnp.float32),
        }
        for layer in range(500)
    }

    def count(self, sparsity, scope) -> int:
        target = swd_jax.Target(sparsity, scope=scope)
        tx = swd_jax.swd(target, weight_decay=5e-4, a=1.0)
        state = jax.eval_shape(tx.init, self.PARAMS)
        return num_equations(jax.make_jaxpr(tx.update)(self.PARAMS, state, self.PARAMS))

    @pytest.mark.parametrize("scope", ["local", "erk", "mapping"])
    def test_do_not_depend_on_the_number_of_leaves(self, scope):
        schedule = swd_jax.cubic_sparsity(0.9, 0, 100)
        known, scheduled = scope, scope
        if scope == "mapping":
            known, scheduled = {"up": 0.5}, {"up": schedule}
        added = self.count(schedule, scheduled) - self.count(0.9, known)
        assert 0 < added < 2000
