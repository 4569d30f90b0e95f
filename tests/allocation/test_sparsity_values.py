"""The target sparsity: what is accepted, and its value at a step."""

from decimal import Decimal
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax
from swd_jax._allocation import (
    sparsity_values,
)


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
    with pytest.raises(ValueError, match="^(sparsity|target) must|^sparsity"):
        use(sparsity)


@pytest.mark.parametrize("sparsity", [0, 0.0, 0.999999, Fraction(1, 3), Decimal("0.9")])
def test_a_sparsity_in_its_range_is_kept_as_it_is(sparsity):
    assert swd_jax.Target(sparsity).sparsity is sparsity


@pytest.mark.parametrize("start", [1.0, -0.5, np.nan, 7])
def test_a_schedule_that_starts_outside_the_range_is_an_error(start):
    with pytest.raises(ValueError, match=r"^sparsity.* (must be|got)"):
        swd_jax.Target(optax.constant_schedule(start))


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


class TestSchedule:
    """The value that a schedule settles on, or has at a step."""

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
        value = sparsity_values.settled_value("sparsity", schedule)
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
        value = sparsity_values.sparsity_at(optax.linear_schedule(0.0, 0.9, 9), step)
        assert float(value) == pytest.approx(int(step) / 10, rel=1e-6)

    @pytest.mark.parametrize("percent", [0, 29, 57, 58, 99])
    def test_is_read_as_the_decimal_it_means(self, percent):
        # In float32 and in float64, some of these times 100 are below the integer.
        params = {"kernel": jnp.arange(1.0, 101.0).reshape(10, 10)}
        pruned = swd_jax.prune(params, optax.constant_schedule(percent / 100))
        assert np.sum(np.asarray(pruned["kernel"]) == 0) == percent

    def test_may_be_traced_together_with_its_step(self):
        # 128ths are exact in binary and have seven decimal places.
        params = {"kernel": jnp.arange(1.0, 129.0).reshape(8, 16)}
        schedule = lambda step: jnp.minimum(step, 127) / 128
        at = jax.jit(lambda step: swd_jax.prune(params, schedule, step=step)["kernel"])
        for step in (0, 29, 58, 127):
            assert np.sum(np.asarray(at(step)) == 0) == step

    def test_that_reaches_one_still_leaves_a_weight(self):
        # It does not settle, so that nothing is known of it beforehand.
        params = {"kernel": jnp.arange(1.0, 5.0).reshape(2, 2)}
        schedule = lambda step: step / 10
        pruned = swd_jax.prune(params, schedule, step=10)["kernel"]
        np.testing.assert_array_equal(pruned, [[0, 0], [0, 4]])

    @pytest.mark.parametrize(
        ("schedule", "words"),
        [
            (optax.linear_schedule(0.0, 1.0, 10), "is 1 at step"),
            (optax.linear_schedule(0.0, 90.0, 1000), r"is .* at step .*\. Is it 0.9\?"),
            (optax.linear_schedule(0.5, -0.5, 10), "is -0"),
            (lambda step: jnp.where(step == 4, 7.0, 0.5), "is 7 at step 4"),
        ],
    )
    def test_that_leaves_the_range_is_an_error_at_construction(self, schedule, words):
        with pytest.raises(ValueError, match=f"^sparsity, .* a schedule that {words}"):
            swd_jax.Target(schedule)

    @pytest.mark.parametrize(
        "schedule",
        [
            optax.linear_schedule(0.9, 0.0, 1000),
            optax.piecewise_constant_schedule(0.8, {1000: 0.5}),
        ],
    )
    def test_that_falls_is_warned_of(self, schedule):
        with pytest.warns(
            UserWarning, match=r"schedule falls from 0\.[89].* settles on"
        ):
            swd_jax.Target(schedule)

    def test_that_is_made_for_the_steps_of_a_run_is_left_alone(self):
        swd_jax.Target(lambda step: 0.9 * step / 1000)
        swd_jax.Target(lambda step: [0.0, 0.5, 0.9][int(step)])

    def test_may_be_traced_where_the_target_is_made(self):
        @jax.jit
        def prune(final):
            params = {"kernel": jnp.arange(1.0, 5.0).reshape(2, 2)}
            schedule = lambda step: jnp.where(step > 9, final, 0.0)
            return swd_jax.prune(params, schedule, step=20)

        assert (prune(0.75)["kernel"] == 0).sum() == 3


@pytest.mark.parametrize(
    "sparsity", [jnp.float32(0.9), np.array(0.9), jnp.bfloat16(0.9), np.float64(0.9)]
)
def test_an_array_becomes_a_hashable_scalar_of_the_same_decimal(sparsity):
    converted = sparsity_values.as_sparsity(sparsity)
    assert converted.dtype == sparsity.dtype
    assert str(converted) == str(sparsity)
    hash(converted)
    assert sparsity_values.as_sparsity(converted) is converted


@pytest.mark.parametrize(
    "sparsity",
    [0.9, 0, Fraction(1, 3), Decimal("0.9"), swd_jax.cubic_sparsity(0.9, 0, 9)],
)
def test_anything_else_stays_as_it_is(sparsity):
    assert sparsity_values.as_sparsity(sparsity) is sparsity


def test_a_tracer_stays_as_it_is():
    converted = []
    jax.jit(lambda s: converted.append(sparsity_values.as_sparsity(s) is s))(0.9)
    assert converted == [True]
