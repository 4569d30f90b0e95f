"""Schedules of the sparsity, against their formulas in float64."""

from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swd_jax

STEPS = 1000


def values(schedule, steps) -> np.ndarray:
    return np.asarray(jax.jit(jax.vmap(schedule))(np.asarray(steps, np.int32)))


class TestCubicSparsity:
    @pytest.mark.parametrize(
        ("final", "begin", "end"),
        [
            (0.9, 0, STEPS),
            (0.99, 100, 700),
            (0.5, 3, 4),
            (0.0, 0, 10),
            (0.95, 10, 10**6),
            (0.9, 0, 10**9),
            (0.9, 10**8, 2**31 - 1),
            (0.9, 2**31 - 10, 2**31 - 1),
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
            *(
                ("end", value)
                for value in (10, 9, 0, -1, 20.5, True, "20", None, 2**31)
            ),
        ],
    )
    def test_out_of_range_is_an_error_that_names_the_argument(self, argument, value):
        arguments = {"final": 0.9, "begin": 10, "end": 20} | {argument: value}
        with pytest.raises(ValueError, match=f"^{argument} must be") as error:
            swd_jax.cubic_sparsity(**arguments)
        assert repr(value) in str(error.value)

    def test_of_equal_arguments_is_equal(self):
        first = swd_jax.cubic_sparsity(0.9, 0, 100)
        second = swd_jax.cubic_sparsity(jnp.float32(0.9), begin=np.int32(0), end=100)
        assert first == second
        assert hash(first) == hash(second)
        assert first != swd_jax.cubic_sparsity(0.9, 0, 101)


class TestStaircase:
    """A sparsity that rises at a few steps."""

    def test_each_round_keeps_the_same_fraction(self):
        schedule = swd_jax.schedules.staircase_sparsity(0.999, [5, 10, 15])
        levels = [float(schedule(step)) for step in (0, 4, 5, 9, 10, 14, 15, 10**6)]
        expected = [0, 0, 0.9, 0.9, 0.99, 0.99, 0.999, 0.999]
        np.testing.assert_allclose(levels, expected, rtol=1e-6)

    def test_its_final_count_is_exact(self):
        target = swd_jax.Target(swd_jax.schedules.staircase_sparsity(0.29, [3]))
        pruned = swd_jax.prune(
            {"kernel": jnp.arange(1.0, 101.0).reshape(10, 10)}, target
        )
        assert int((pruned["kernel"] == 0).sum()) == 29

    def test_the_final_sparsity_may_be_traced(self):
        at = jax.jit(lambda s, t: swd_jax.schedules.staircase_sparsity(s, [2, 4])(t))
        levels = [float(at(0.96, step)) for step in (1, 2, 4)]
        np.testing.assert_allclose(levels, [0, 0.8, 0.96], rtol=1e-6)

    def test_steps_may_be_the_last_ones_that_are_counted(self):
        steps = [10**9, 2**31 - 1]
        schedule = swd_jax.schedules.staircase_sparsity(0.96, steps)
        levels = values(schedule, [0, 10**9 - 1, 10**9, 2**31 - 2, 2**31 - 1])
        np.testing.assert_allclose(levels, [0, 0, 0.8, 0.8, 0.96], rtol=1e-6)

    @pytest.mark.parametrize("steps", [[], [5, 5], [5, 3], [-1], [1.5], [2**31]])
    def test_steps_that_do_not_rise_are_an_error(self, steps):
        with pytest.raises(ValueError, match="steps must be"):
            swd_jax.schedules.staircase_sparsity(0.5, steps)

    @pytest.mark.parametrize("final", [1.0, -0.1])
    def test_a_final_sparsity_out_of_range_is_an_error(self, final):
        with pytest.raises(ValueError, match=r"final must be in \[0, 1\)"):
            swd_jax.schedules.staircase_sparsity(final, [1])

    def test_of_equal_arguments_is_equal(self):
        first = swd_jax.schedules.staircase_sparsity(0.9, [5, 10])
        second = swd_jax.schedules.staircase_sparsity(
            np.float32(0.9), np.array([5, 10])
        )
        assert first == second
        assert hash(first) == hash(second)
        assert first != swd_jax.schedules.staircase_sparsity(0.9, [5])

    def test_keeps_its_steps_whatever_happens_to_the_list(self):
        steps = [5, 10]
        schedule = swd_jax.schedules.staircase_sparsity(0.9, steps)
        steps[0] = 0
        assert float(schedule(0)) == 0
