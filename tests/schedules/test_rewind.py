"""Rewinding of the learning rate, against the original schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax


class TestRewind:
    """A learning rate that goes back to an earlier value at each pruning."""

    def test_repeats_the_schedule_from_the_step_it_goes_back_to(self):
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

    def test_is_the_same_under_jit(self):
        again = swd_jax.schedules.rewind(
            optax.linear_schedule(1.0, 0.0, 10), [10], to=5
        )
        values = jax.jit(jax.vmap(again))(jnp.arange(16))
        expected = [1 - t / 10 for t in range(10)] + [0.5 - t / 10 for t in range(6)]
        np.testing.assert_allclose(values, expected, atol=1e-6)

    @pytest.mark.parametrize(
        ("steps", "to", "expected"),
        [
            ([10], 10, [0, 10, 10**9, 2**31 - 1]),
            ([10**9], 5, [0, 10, 5, 5 + 2**31 - 1 - 10**9]),
        ],
    )
    def test_of_very_late_steps_does_not_wrap_round(self, steps, to, expected):
        # 1 / (1 + t / 10**6) would be negative of a count that has wrapped round.
        again = swd_jax.schedules.rewind(lambda t: 1 / (1 + t * 1e-6), steps, to)
        found = jax.jit(jax.vmap(again))(jnp.array([0, 10, 10**9, 2**31 - 1]))
        expected = 1 / (1 + np.array(expected, np.float64) * 1e-6)
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    def test_of_a_number_is_an_error(self):
        with pytest.raises(ValueError, match="schedule must be a schedule"):
            swd_jax.schedules.rewind(0.1, [1], to=0)

    def test_to_a_negative_step_is_an_error(self):
        with pytest.raises(ValueError, match="to must be a whole number"):
            swd_jax.schedules.rewind(optax.constant_schedule(0.1), [1], to=-1)

    def test_of_equal_arguments_is_equal(self):
        schedule = optax.cosine_decay_schedule(0.1, 30)
        first = swd_jax.schedules.rewind(schedule, [30, 50], to=10)
        second = swd_jax.schedules.rewind(schedule, (30, np.int64(50)), to=np.int32(10))
        assert first == second
        assert hash(first) == hash(second)
        assert first != swd_jax.schedules.rewind(schedule, [30, 50], to=11)
