"""The growth of the multiplier, against its formula in float64."""

from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
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
            (0.1, 1e6, 10**9),
            (1e-3, 1e6, 2**31 - 1),
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
            # What float32 and the optimizers' counts do not reach.
            *(("a_max", value) for value in (1e39, 4e37)),
            *(("total_steps", value) for value in (0, -5, 1.5, True, "10", None)),
            *(("total_steps", value) for value in (2**31, 10**10)),
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

    def test_of_equal_arguments_is_equal(self):
        def make(a_max):
            return swd_jax.exponential_growth(jnp.float32(0.1), a_max, np.int64(10))

        assert make(1e5) == make(np.float64(1e5)) == make(Decimal("1e5"))
        assert hash(make(1e5)) == hash(make(100_000))
        assert make(1e5) != make(1e4)
        assert make(1e5) == swd_jax.exponential_growth(
            a_min=0.1, a_max=1e5, total_steps=10
        )
