"""Ready-made schedules, against their formulas in float64."""

from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax

STEPS = 1000


def values(schedule, steps) -> np.ndarray:
    return np.asarray(jax.jit(jax.vmap(schedule))(np.asarray(steps, np.int32)))


class TestExponentialGrowth:
    @pytest.mark.parametrize(
        ("a_min", "a_max", "total_steps"),
        [
            (0.1, 1e5, STEPS),
            (1e-3, 1e6, 7),
            (0.5, 0.5, 10),
            (1, 2, 1),
            (0.1, 4e4, 10**6),
        ],
    )
    def test_is_the_formula_until_the_end(self, a_min, a_max, total_steps):
        steps = np.unique(np.linspace(0, total_steps, 501).astype(int))
        expected = a_min * (a_max / a_min) ** (steps / total_steps)
        schedule = swd_jax.exponential_growth(a_min, a_max, total_steps)
        np.testing.assert_allclose(values(schedule, steps), expected, rtol=2e-6)

    def test_stays_at_a_max_from_then_on(self):
        schedule = swd_jax.exponential_growth(0.1, 1e5, STEPS)
        late = [STEPS, STEPS + 1, 2 * STEPS, 10**6, 2**31 - 1]
        np.testing.assert_array_equal(values(schedule, late), [np.float32(1e5)] * 5)

    def test_never_exceeds_a_max_and_never_falls(self):
        schedule = swd_jax.exponential_growth(0.1, 4e4, 3 * STEPS)
        grown = values(schedule, np.arange(4 * STEPS))
        assert np.all(np.diff(grown) >= 0)
        assert grown.max() == np.float32(4e4)

    def test_multiplies_by_the_same_factor_at_every_step(self):
        # 0.1 to 1e5 in six steps: ten times as much at each.
        grown = values(swd_jax.exponential_growth(0.1, 1e5, 6), range(7))
        np.testing.assert_allclose(grown, [0.1, 1, 10, 100, 1e3, 1e4, 1e5], rtol=2e-6)

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            *(
                ("a_min", value)
                for value in (0, 0.0, -0.1, np.nan, np.inf, "0.1", None)
            ),
            *(("a_max", value) for value in (0.05, -1.0, np.nan, np.inf, "1e5", True)),
            *(("total_steps", value) for value in (0, -5, 1.5, True, "10", None)),
        ],
    )
    def test_out_of_range_is_an_error_that_names_the_argument(self, argument, value):
        arguments = {"a_min": 0.1, "a_max": 1e5, "total_steps": 10} | {argument: value}
        with pytest.raises(ValueError, match=f"^{argument} must be") as error:
            swd_jax.exponential_growth(**arguments)
        assert repr(value) in str(error.value)

    def test_of_traced_numbers_is_an_error_that_says_what_to_do(self):
        @jax.jit
        def at_five(a_max):
            return swd_jax.exponential_growth(1.0, a_max, 10)(5)

        with pytest.raises(
            ValueError, match="a_max must be known.*function of the step"
        ):
            at_five(1e4)


class TestCubicSparsity:
    @pytest.mark.parametrize(
        ("final", "begin", "end"),
        [
            (0.9, 0, STEPS),
            (0.99, 100, 700),
            (0.5, 3, 4),
            (0.0, 0, 10),
            (0.95, 10, 10**6),
        ],
    )
    def test_is_the_formula_between_begin_and_end(self, final, begin, end):
        steps = np.unique(np.linspace(begin, end, 501).astype(int))
        expected = final * (1 - (1 - (steps - begin) / (end - begin)) ** 3)
        schedule = swd_jax.cubic_sparsity(final, begin, end)
        # Differences of float32 numbers near 1.
        np.testing.assert_allclose(values(schedule, steps), expected, atol=3e-7)

    def test_is_zero_before_and_final_after(self):
        schedule = swd_jax.cubic_sparsity(0.9, 100, 200)
        np.testing.assert_array_equal(values(schedule, [0, 1, 99, 100]), np.zeros(4))
        after = values(schedule, [200, 201, 10**6, 2**31 - 1])
        np.testing.assert_array_equal(after, [np.float32(0.9)] * 4)

    def test_never_falls_and_rises_ever_more_slowly(self):
        rise = np.diff(values(swd_jax.cubic_sparsity(0.9, 0, 100), range(101)))
        assert np.all(rise > 0)
        assert np.all(np.diff(rise) < 0)

    @pytest.mark.parametrize("final", [0.1, 0.29, 0.9, 0.97, 0.999])
    def test_ends_with_the_very_decimal(self, final):
        params = {"kernel": jnp.arange(1.0, 1001.0).reshape(20, 50)}
        pruned = swd_jax.prune(params, swd_jax.cubic_sparsity(final, 5, 50))
        assert np.sum(np.asarray(pruned["kernel"]) == 0) == Decimal(str(final)) * 1000

    def test_may_be_traced(self):
        @jax.jit
        def halfway(final):
            return swd_jax.cubic_sparsity(final, 0, 10)(5)

        # 0.8 (1 - 1/8)
        assert float(halfway(0.8)) == pytest.approx(0.7, rel=1e-6)

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            *(("final", value) for value in (1.0, 1, -0.1, 1.5, np.nan, "0.9", None)),
            *(("begin", value) for value in (-1, 0.5, True, "0", None, np.nan)),
            *(("end", value) for value in (10, 9, 0, -1, 20.5, True, "20", None)),
        ],
    )
    def test_out_of_range_is_an_error_that_names_the_argument(self, argument, value):
        arguments = {"final": 0.9, "begin": 10, "end": 20} | {argument: value}
        with pytest.raises(ValueError, match=f"^{argument} must be") as error:
            swd_jax.cubic_sparsity(**arguments)
        assert repr(value) in str(error.value)


class TestStaircase:
    """Sparsity that rises at a few steps."""

    def test_each_round_keeps_the_same_part(self):
        schedule = swd_jax.schedules.staircase_sparsity(0.999, [5, 10, 15])
        values = [float(schedule(step)) for step in (0, 4, 5, 9, 10, 14, 15, 10**6)]
        expected = [0, 0, 0.9, 0.9, 0.99, 0.99, 0.999, 0.999]
        np.testing.assert_allclose(values, expected, rtol=1e-6)

    def test_its_final_count_is_exact(self):
        target = swd_jax.Target(swd_jax.schedules.staircase_sparsity(0.29, [3]))
        pruned = swd_jax.prune(
            {"kernel": jnp.arange(1.0, 101.0).reshape(10, 10)}, target
        )
        assert int((pruned["kernel"] == 0).sum()) == 29

    def test_the_final_sparsity_may_be_traced(self):
        at = jax.jit(lambda s, t: swd_jax.schedules.staircase_sparsity(s, [2, 4])(t))
        got = [float(at(0.96, step)) for step in (1, 2, 4)]
        np.testing.assert_allclose(got, [0, 0.8, 0.96], rtol=1e-6)

    @pytest.mark.parametrize("steps", [[], [5, 5], [5, 3], [-1], [1.5]])
    def test_steps_that_do_not_rise_are_an_error(self, steps):
        with pytest.raises(ValueError, match="steps must be"):
            swd_jax.schedules.staircase_sparsity(0.5, steps)

    @pytest.mark.parametrize("final", [1.0, -0.1])
    def test_a_final_sparsity_out_of_range_is_an_error(self, final):
        with pytest.raises(ValueError, match=r"final must be in \[0, 1\)"):
            swd_jax.schedules.staircase_sparsity(final, [1])


class TestRewind:
    """A learning rate that goes back at each pruning."""

    def test_it_is_the_schedule_again_from_where_it_goes_back_to(self):
        schedule = optax.cosine_decay_schedule(0.1, 30)
        again = swd_jax.schedules.rewind(schedule, [30, 50], to=10)
        for step, original in [
            (0, 0),
            (29, 29),
            (30, 10),
            (49, 29),
            (50, 10),
            (75, 35),
        ]:
            assert float(again(step)) == float(schedule(original))

    def test_under_jit_it_does_the_same(self):
        again = swd_jax.schedules.rewind(
            optax.linear_schedule(1.0, 0.0, 10), [10], to=5
        )
        got = jax.jit(jax.vmap(again))(jnp.arange(16))
        expected = [1 - t / 10 for t in range(10)] + [0.5 - t / 10 for t in range(6)]
        np.testing.assert_allclose(got, expected, atol=1e-6)

    def test_a_number_is_no_schedule(self):
        with pytest.raises(ValueError, match="schedule must be a schedule"):
            swd_jax.schedules.rewind(0.1, [1], to=0)

    def test_where_it_goes_back_to_is_a_step(self):
        with pytest.raises(ValueError, match="to must be a whole number"):
            swd_jax.schedules.rewind(optax.constant_schedule(0.1), [1], to=-1)
