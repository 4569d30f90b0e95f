"""Numbers that users pass: read as the decimals that they print, or refused."""

from decimal import Decimal
from fractions import Fraction

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import swd_jax
from swd_jax._arguments import validation

PARAMS = {"kernel": jnp.array([[1.0, -2.0, 3.0, -4.0]])}
NO_GRADIENT = jax.tree.map(jnp.zeros_like, PARAMS)

# Anything but a finite real number of shape ().
NOT_NUMBERS = [
    *(float("nan"), float("inf"), -float("inf"), Decimal("NaN"), jnp.float32(np.nan)),
    *("0.9", b"0.9", "x", None, True, np.True_, 1j, np.complex64(0.5)),
    *([0.5], (), {}, np.array([0.5, 0.9]), jnp.array([0.5]), ...),
]


def with_ids(numbers):
    return [pytest.param(number, id=repr(number)[:24]) for number in numbers]


class TestDecimals:
    @pytest.mark.parametrize(
        "value",
        [
            0.29,
            np.float16(0.29),
            np.float32(0.29),
            np.float64(0.29),
            np.array(0.29),
            np.array(0.29, np.float32),
            jnp.float32(0.29),
            jnp.asarray(0.29),
            Fraction(29, 100),
            Decimal("0.29"),
        ],
        ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}",
    )
    def test_are_read_as_they_print_in_every_dtype(self, value):
        assert validation.as_decimal("sparsity", value) == Fraction(29, 100)

    def test_of_bfloat16_are_read_as_they_print(self):
        # bfloat16 has 8 significant bits: 0.29 * 2**9 = 148.48 is rounded to 148, and
        # 148 / 2**9 = 0.2890625 prints with six places.
        value = ml_dtypes.bfloat16(0.29)
        assert float(value) == 0.2890625
        assert validation.as_decimal("sparsity", value) == Fraction("0.289062")

    @pytest.mark.parametrize("value", [1, 0, -3, np.int32(7), jnp.int32(7), 2**40])
    def test_of_integers_are_exact(self, value):
        assert validation.as_decimal("a", value) == int(value)

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (1e-7, Fraction(1, 10**7)),
            (5e-4, Fraction(5, 10**4)),
            (1e22, Fraction(10**22)),
            (-0.0, Fraction(0)),
            (Fraction(1, 3), Fraction(1, 3)),
            (Decimal("1e-30"), Fraction(1, 10**30)),
        ],
    )
    def test_may_be_very_small_or_very_large(self, value, expected):
        assert validation.as_decimal("a", value) == expected

    @given(st.integers(0, 10**7 - 1))
    def test_of_up_to_seven_places_are_read_exactly_from_float64(self, i):
        assert validation.as_decimal("sparsity", i / 10**7) == Fraction(i, 10**7)

    @given(st.integers(0, 10**6 - 1))
    def test_of_up_to_six_places_are_read_exactly_from_float32(self, i):
        # A float32 holds six significant digits.
        value = np.float32(i / 10**6)
        assert validation.as_decimal("sparsity", value) == Fraction(i, 10**6)

    def test_of_tracers_are_none(self):
        values = []
        jax.jit(lambda s: values.append(validation.as_decimal("sparsity", s)))(0.5)
        assert values == [None]

    @pytest.mark.parametrize("value", with_ids(NOT_NUMBERS))
    def test_are_the_only_accepted_arguments(self, value):
        with pytest.raises(
            ValueError, match="^momentum must be (a number|finite), got"
        ):
            validation.as_decimal("momentum", value)


def swd(**numbers):
    return swd_jax.swd(0.5, **{"weight_decay": 0.1, "a": 1.0} | numbers)


def decoupled(**numbers):
    given_numbers = {"weight_decay": 0.1, "a": 1.0, "learning_rate": 0.1} | numbers
    return swd_jax.decoupled_swd(0.5, **given_numbers)


def proximal(**numbers):
    given_numbers = {"weight_decay": 0.1, "a": 1.0, "learning_rate": 0.1} | numbers
    return swd_jax.proximal_swd(0.5, **given_numbers)


FORMS_AND_ARGUMENTS = [
    *((swd, name) for name in ("weight_decay", "a")),
    *((decoupled, name) for name in ("weight_decay", "a", "learning_rate")),
    *((proximal, name) for name in ("weight_decay", "a", "learning_rate")),
]


@pytest.mark.parametrize(("form", "argument"), FORMS_AND_ARGUMENTS)
class TestCoefficients:
    """Coefficients of every form are at least 0, as numbers and as schedules."""

    @pytest.mark.parametrize(
        "value", with_ids([-0.1, -1, np.float32(-1e-30), jnp.array(-2.0)])
    )
    def test_below_zero_are_errors(self, form, argument, value):
        with pytest.raises(ValueError, match=f"^{argument} must be at least 0, got"):
            form(**{argument: value})

    @pytest.mark.parametrize("value", with_ids(NOT_NUMBERS))
    def test_that_are_no_numbers_are_errors(self, form, argument, value):
        with pytest.raises(ValueError, match=f"^{argument} must be (a number|finite)"):
            form(**{argument: value})

    @pytest.mark.parametrize(
        "schedule",
        [
            optax.constant_schedule(-0.5),
            optax.linear_schedule(-0.5, 1.0, 10),
            lambda step: -0.5,
        ],
    )
    def test_of_schedules_that_start_below_zero_are_errors(
        self, form, argument, schedule
    ):
        words = f"^{argument} must be at least 0, got a schedule that starts at -0.5"
        with pytest.raises(ValueError, match=words):
            form(**{argument: schedule})

    def test_of_schedules_that_settle_below_zero_are_errors(self, form, argument):
        words = f"^{argument} must be at least 0, got a schedule that is -0.* at step"
        with pytest.raises(ValueError, match=words):
            form(**{argument: optax.linear_schedule(1.0, -1.0, 100)})

    def test_of_schedules_that_never_settle_are_left_alone(self, form, argument):
        form(**{argument: lambda step: 1 - step / 1000})

    def test_of_schedules_that_start_at_nan_are_errors(self, form, argument):
        with pytest.raises(ValueError, match=f"^{argument} must be finite"):
            form(**{argument: lambda step: jnp.log(step - 1.0)})


def decayed(form, **numbers):
    """Return the update without a gradient; a form selects 1 and -2 of 4 weights."""
    tx = form(**numbers)
    return tx.update(NO_GRADIENT, tx.init(PARAMS), PARAMS)[0]["kernel"]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        # lr, a and mu are one half each: a mu = 1/4, lr a mu = 1/8.
        (swd, [[1 / 4, -2 / 4, 0, 0]]),  # + a mu w
        (decoupled, [[-1 / 8, 2 / 8, 0, 0]]),  # - lr a mu w
        (proximal, [[-1 / 9, 2 / 9, 0, 0]]),  # w / (1 + 1/8) - w
    ],
)
class TestCoefficientsOfEveryType:
    @staticmethod
    def halves(form, half):
        names = [name for of, name in FORMS_AND_ARGUMENTS if of is form]
        return dict.fromkeys(names, half)

    @pytest.mark.parametrize(
        "half",
        with_ids([Fraction(1, 2), Decimal("0.5"), np.float64(0.5), jnp.float32(0.5)]),
    )
    def test_act_like_a_float(self, form, expected, half):
        updates = decayed(form, **self.halves(form, half))
        np.testing.assert_allclose(updates, expected, rtol=1e-6)

    def test_may_be_integers_of_any_size(self, form, expected):
        del expected
        updates = decayed(form, a=10**20, weight_decay=0)
        np.testing.assert_array_equal(updates, np.zeros((1, 4)))

    def test_may_be_traced(self, form, expected):
        traced = jax.jit(lambda half: decayed(form, **self.halves(form, half)))
        np.testing.assert_allclose(traced(0.5), expected, rtol=1e-6)

    def test_may_be_zero_which_decays_nothing(self, form, expected):
        del expected
        updates = decayed(form, a=0)
        np.testing.assert_array_equal(updates, np.zeros((1, 4)))


@pytest.mark.parametrize("form", [swd, decoupled, proximal])
class TestUpdateEvery:
    @pytest.mark.parametrize(
        "value", with_ids([0, -1, 1.5, 0.5, np.int32(0), True, False])
    )
    def test_that_is_no_whole_number_from_one_is_an_error(self, form, value):
        words = "^update_every must be a whole number of at least 1, got"
        with pytest.raises(ValueError, match=words):
            form(update_every=value)

    @pytest.mark.parametrize("value", with_ids(NOT_NUMBERS))
    def test_that_is_no_number_is_an_error(self, form, value):
        with pytest.raises(ValueError, match="^update_every must be"):
            form(update_every=value)


@pytest.mark.parametrize(
    ("form", "value"),
    [
        (swd, 2),
        (swd, np.int64(2)),
        (swd, jnp.int32(2)),
        (swd, 2.0),
        (decoupled, 2),
        (proximal, 2),
    ],
)
def test_update_every_is_the_period_of_threshold_refreshes(form, value):
    tx = form(update_every=value)
    state, update = tx.init(PARAMS), jax.jit(tx.update)
    thresholds = []
    for scale in (1.0, 2.0, 4.0):
        params = {"kernel": scale * PARAMS["kernel"]}
        _, state = update(NO_GRADIENT, state, params)
        thresholds.append(float(state.selection.threshold))
    # The threshold of 1, 2, 3, 4 at s = 0.5 is 3; it is refreshed at steps 0 and 2.
    assert thresholds == [3.0, 3.0, 12.0]


class TestSchedules:
    def test_a_number_is_the_same_at_every_step(self):
        assert validation.value_at_step(0.5, 7) == 0.5

    def test_a_schedule_is_evaluated_at_the_step(self):
        assert float(
            validation.value_at_step(optax.linear_schedule(0.0, 1.0, 10), 3)
        ) == (pytest.approx(0.3))

    def test_a_schedule_has_a_concrete_value_at_a_concrete_step_under_jit(
        self,
    ):
        values = []

        @jax.jit
        def traced(x):
            values.append(float(validation.value_at_step(lambda step: step / 4, 3)))
            return x

        traced(1.0)
        assert values == [0.75]

    def test_a_schedule_has_a_traced_value_at_a_traced_step(self):
        value = jax.jit(lambda step: validation.value_at_step(lambda t: t / 4, step))(3)
        assert float(value) == 0.75


class TestNumbersOfSteps:
    """Whole floats are numbers of steps everywhere, others nowhere."""

    MAKERS = {
        "exponential_growth": lambda n: swd_jax.exponential_growth(0.1, 10.0, n),
        "cubic_sparsity": lambda n: swd_jax.cubic_sparsity(0.5, 0, n),
        "staircase": lambda n: swd_jax.schedules.staircase_sparsity(0.5, [n]),
    }

    @pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
    def test_may_be_whole_floats(self, make):
        assert make(1e4) == make(10_000) == make(np.float32(1e4))

    def test_may_be_whole_floats_for_transformations(self):
        state = swd_jax.sparsify(0.5, 1e4, begin=1e3, end=2e3).init(PARAMS)
        assert (state.rise_end, state.total_steps) == (2000, 10_000)
        for make in (
            lambda n: swd(update_every=n),
            lambda n: swd_jax.methods.magnitude_pruning(0.5, update_every=n),
            lambda n: swd_jax.methods.rigl(
                optax.sgd(0.1), 0.5, until=n, update_every=10
            ),
        ):
            exact, whole = (
                jax.make_jaxpr(tx.update)(PARAMS, tx.init(PARAMS), PARAMS)
                for tx in map(make, (100, 1e2))
            )
            assert str(exact) == str(whole)

    @pytest.mark.parametrize(
        "make",
        [
            *MAKERS.values(),
            lambda n: swd_jax.sparsify(0.5, n),
            lambda n: swd(update_every=n),
            lambda n: swd_jax.methods.rigl(optax.sgd(0.1), 0.5, until=n),
        ],
    )
    def test_with_a_fraction_are_errors(self, make):
        with pytest.raises(ValueError, match="must be a whole number of at least"):
            make(1000.5)
