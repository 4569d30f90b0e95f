"""The target sparsity: k = floor(s n), exactly, for numbers, schedules and tracers."""

from decimal import Decimal
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import swd_jax
from swd_jax._allocation import exact_counts
from swd_jax._arguments import validation
from swd_jax._arrays import uint64

# One weight, a few, many, more than 2**31 and more than 2**40 (the last two odd).
SIZES = (1, 7, 100, 1000, 12345, 2**31 + 11, 2**40 + 3)
HUNDREDTHS = [Fraction(i, 100) for i in range(100)]
THOUSANDTHS = [Fraction(i, 1000) for i in range(1000)]


def known_count(sparsity, weights: int) -> int:
    exact = validation.as_decimal("sparsity", sparsity)
    assert exact is not None
    return uint64.to_int(exact_counts.pruned_count(exact, weights))


@pytest.fixture(scope="module")
def traced_counts():
    """k for many float32 sparsities that are traced, and one known n."""

    @jax.jit
    def counts(sparsities):
        assert isinstance(sparsities, jax.core.Tracer)
        by_size = jax.vmap(
            lambda s: jnp.stack([exact_counts.pruned_count(s, n) for n in SIZES])
        )
        return by_size(sparsities)

    def as_integers(sparsities) -> dict[int, list[int]]:
        # Always as many, so that it is compiled once.
        padded = np.zeros(len(THOUSANDTHS), np.float32)
        padded[: len(sparsities)] = sparsities
        limbs = np.asarray(counts(padded)).astype(np.uint64)
        integers = np.sum(limbs << np.uint64([0, 16, 32, 48]), axis=-1)
        of_given = integers[: len(sparsities)].T.tolist()
        return dict(zip(SIZES, of_given, strict=True))

    return as_integers


class TestCount:
    """Against exact fractions; Python's integers know no limit."""

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
        traced = jax.jit(lambda s: exact_counts.pruned_count(s, 0))(0.9)
        assert uint64.to_int(traced) == 0

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
            traced = jax.jit(lambda s: exact_counts.pruned_count(_at(s), 2**31 + 11))
            expected = 997 * (2**31 + 11) // 1000
            assert uint64.to_int(traced(np.float64(0.997))) == expected


def _at(sparsity):
    return exact_counts.sparsity_at(sparsity, None)


@pytest.mark.parametrize(
    "sparsity",
    [
        *(1.0, 1, -0.1, 1.5, np.float32(1), jnp.float32(-0.1), Fraction(1), Decimal(1)),
        *(float("nan"), float("inf"), -float("inf"), Decimal("NaN")),
        *(
            "0.9",
            None,
            True,
            False,
            0.5j,
            np.array([0.5, 0.9]),
            jnp.array([0.5]),
            [0.5],
        ),
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    "use",
    [
        swd_jax.Target,
        lambda s: swd_jax.swd(s, weight_decay=0.1, a=1.0),
        lambda s: swd_jax.prune({"kernel": jnp.ones((2, 2))}, s),
        lambda s: swd_jax.summarize({"kernel": jnp.ones((2, 2))}, s),
    ],
    ids="Target swd prune summarize".split(),
)
def test_a_sparsity_outside_its_range_is_an_error_that_names_it(use, sparsity):
    with pytest.raises(ValueError, match="^sparsity"):
        use(sparsity)


@pytest.mark.parametrize("sparsity", [0, 0.0, 0.999999, Fraction(1, 3), Decimal("0.9")])
def test_a_sparsity_in_its_range_is_kept_as_it_is(sparsity):
    assert swd_jax.Target(sparsity).sparsity is sparsity


@pytest.mark.parametrize("start", [1.0, -0.5, np.nan, 7])
def test_a_schedule_that_starts_outside_the_range_is_an_error(start):
    with pytest.raises(ValueError, match=r"^sparsity.* (must be|got)"):
        swd_jax.Target(optax.constant_schedule(start))


class TestSchedule:
    """The values that a schedule settles on, or has at a step."""

    @pytest.mark.parametrize(
        ("schedule", "final"),
        [
            (optax.constant_schedule(0.9), 0.9),
            (optax.linear_schedule(0.0, 0.8, 1000), 0.8),
            (optax.polynomial_schedule(0.0, 0.7, 3, 10_000, 500), 0.7),
            (optax.piecewise_constant_schedule(0.1, {100: 2.0, 200: 3.0}), 0.6),
            (
                optax.join_schedules(
                    [optax.constant_schedule(0.0), optax.linear_schedule(0.2, 0.5, 50)],
                    [100],
                ),
                0.5,
            ),
            (swd_jax.cubic_sparsity(0.95, 100, 1000), 0.95),
            (lambda step: 0.25, 0.25),
            (lambda step: jnp.where(step < 1000, 0.0, 0.75), 0.75),
        ],
    )
    def test_that_settles_is_known_by_its_final_value(self, schedule, final):
        value = exact_counts.settled_value("sparsity", schedule)
        assert float(value) == pytest.approx(final, rel=1e-6)
        # 100 weights, so k is the number of hundredths.
        params = {"kernel": jnp.arange(1.0, 101.0).reshape(10, 10)}
        zeros = np.sum(np.asarray(swd_jax.prune(params, schedule)["kernel"]) == 0)
        assert zeros == round(100 * final)

    @pytest.mark.parametrize(
        "schedule",
        [
            lambda step: 0.5 + 0.4 * jnp.sin(step),
            optax.linear_schedule(0.0, 0.9, 2**31 - 1),
            lambda step: jnp.where(step > 2**30, jnp.nan, 0.5),
        ],
        ids=["restarts", "slow", "nan"],
    )
    def test_that_never_settles_is_an_error_that_asks_for_the_step(self, schedule):
        params = {"kernel": jnp.ones((2, 2))}
        with pytest.raises(ValueError, match="sparsity .*never settles.* step=..."):
            swd_jax.prune(params, schedule)
        assert np.isfinite(swd_jax.prune(params, schedule, step=3)["kernel"]).all()

    def test_of_a_table_that_ends_is_an_error_that_asks_for_the_step(self):
        table = np.array([0.0, 0.5, 0.75])

        def schedule(step):
            return table[int(step)]

        params = {"kernel": jnp.arange(1.0, 5.0).reshape(2, 2)}
        words = "sparsity .*cannot be found: index .* out of bounds.* step=..."
        with pytest.raises(ValueError, match=words):
            swd_jax.prune(params, schedule)
        pruned = swd_jax.prune(params, schedule, step=2)["kernel"]
        np.testing.assert_array_equal(pruned, [[0, 0], [0, 4]])

    @pytest.mark.parametrize("step", [0, 3, np.int32(3), jnp.int32(3)])
    def test_has_at_a_step_the_value_of_that_step(self, step):
        value = exact_counts.sparsity_at(optax.linear_schedule(0.0, 0.9, 9), step)
        assert float(value) == pytest.approx(int(step) / 10, rel=1e-6)

    @given(values=st.lists(st.floats(width=32), max_size=20))
    def test_is_read_alike_whether_it_is_traced_or_known(self, traced_counts, values):
        traced = traced_counts(values)
        for i, value in enumerate(values):
            known = exact_counts.sparsity_at(lambda step, v=value: v, 3)
            for weights, counts in traced.items():
                count = exact_counts.pruned_count(known, weights)
                assert uint64.to_int(count) == counts[i]

    @pytest.mark.parametrize("percent", [0, 29, 57, 58, 99])
    def test_is_read_as_the_decimal_it_means(self, percent):
        # In float32 and in float64, some of these times 100 are below the integer.
        params = {"kernel": jnp.arange(1.0, 101.0).reshape(10, 10)}
        pruned = swd_jax.prune(params, optax.constant_schedule(percent / 100))
        assert np.sum(np.asarray(pruned["kernel"]) == 0) == percent

    def test_may_be_traced_together_with_its_step(self):
        # 128ths are exact in binary and have seven decimal places.
        params = {"kernel": jnp.arange(1.0, 129.0).reshape(8, 16)}
        schedule = optax.linear_schedule(0.0, 1.0, 128)
        at = jax.jit(lambda step: swd_jax.prune(params, schedule, step=step)["kernel"])
        for step in (0, 29, 58, 127):
            assert np.sum(np.asarray(at(step)) == 0) == step

    def test_that_reaches_one_still_leaves_a_weight(self):
        params = {"kernel": jnp.arange(1.0, 5.0).reshape(2, 2)}
        pruned = swd_jax.prune(params, optax.linear_schedule(0.0, 1.0, 10))["kernel"]
        np.testing.assert_array_equal(pruned, [[0, 0], [0, 4]])


@pytest.mark.parametrize(
    ("sparsity", "reported"),
    [
        (Fraction(1, 4), 0.25),
        (Decimal("0.9"), 0.9),
        (jnp.float32(0.9), 0.9),  # not 0.8999999762
        (optax.constant_schedule(0.9), 0.9),
    ],
    ids=["Fraction", "Decimal", "float32", "schedule"],
)
def test_a_report_shows_the_decimal_that_was_meant(sparsity, reported):
    report = swd_jax.summarize({"kernel": jnp.ones((2, 2))}, sparsity)
    assert report.target_sparsity == reported
