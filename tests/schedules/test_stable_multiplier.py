"""The multiplier at which SGD diverges, and the bound that prevents it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax
from tests.helpers import quickly

LEARNING_RATES = (1e-3, 0.1, 2.0)
MOMENTA = (0.0, 0.3, 0.5, 0.9, 0.99)
PAPER = {"learning_rate": 0.1, "weight_decay": 5e-4, "momentum": 0.9}


def step_matrices(rate: float, momentum: float, *, nesterov: bool) -> list[np.ndarray]:
    """One step of SGD on a weight under the penalty alone: not selected, selected.

    With r = lr a mu, the gradient times lr is r w. The velocity (times lr) becomes
    v' = m v + r w; the weight w - v', or with Nesterov's momentum w - (r w + m v').
    """

    def matrix(r: float) -> np.ndarray:
        velocity = np.array([r, momentum])  # of (w, v)
        penalty = r * np.array([1, 0])
        step = penalty + momentum * velocity if nesterov else velocity
        return np.array([np.array([1, 0]) - step, velocity])

    return [matrix(0.0), matrix(rate)]


def largest_weight_found(matrices: list[np.ndarray], steps: int) -> float:
    """Search for a selection, step by step, that makes a weight grow from rest at 1.

    Of all the states (w, v) that are reached after each step, those that go farthest in
    any of 180 directions are followed, each with and without the penalty.
    """
    angles = np.linspace(0, np.pi, 180, endpoint=False)
    directions = np.stack([np.cos(angles), np.sin(angles)])
    directions[1] /= 1 - matrices[0][1, 1]  # a velocity moves a weight v / (1 - m)
    states, largest = np.array([[1.0], [0.0]]), 1.0
    for _ in range(steps):
        states = np.concatenate([matrix @ states for matrix in matrices], axis=1)
        largest = max(largest, np.abs(states[0]).max())
        if largest > 10:
            break
        farthest = np.argmax(np.abs(directions.T @ states), axis=1)
        states = states[:, np.unique(farthest)]
    return largest


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", MOMENTA)
class TestLargestStableMultiplier:
    @pytest.mark.parametrize("learning_rate", LEARNING_RATES)
    @pytest.mark.parametrize("weight_decay", [5e-4, 0.1])
    def test_is_the_limit_of_the_product(
        self, learning_rate, weight_decay, momentum, nesterov
    ):
        limit = swd_jax.schedules.largest_stable_multiplier(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            momentum=momentum,
            nesterov=nesterov,
        )
        rate = learning_rate * weight_decay * limit
        m = momentum
        # (w, v) -> (p, q) as on the page on the chain; the energy is p^2 + c q^2.
        ahead = m if nesterov else 1.0
        left = m * ahead / (1 - m)
        energy = np.array([[1, -left], [-left, left**2 + left / (1 - m)]])
        if m == 0:  # the velocity has no effect
            energy = np.diag([1.0, 0.0])
        for share in (0.01, 0.3, 0.7, 1.0):
            for matrix in step_matrices(share * rate, m, nesterov=nesterov):
                lost = energy - matrix.T @ energy @ matrix
                assert np.linalg.eigvalsh(lost).min() > -1e-9 * np.abs(energy).max()


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.5, 0.9])
def test_no_selection_diverges_at_the_limit_and_some_do_well_above(momentum, nesterov):
    limit = swd_jax.schedules.largest_stable_multiplier(
        learning_rate=1.0, weight_decay=1.0, momentum=momentum, nesterov=nesterov
    )
    matrices = step_matrices(limit, momentum, nesterov=nesterov)
    # The energy starts at 1, and w^2 <= (1 + m) E.
    assert largest_weight_found(matrices, 400) <= np.sqrt(1 + momentum) + 1e-6
    matrices = step_matrices(6 * limit, momentum, nesterov=nesterov)
    assert largest_weight_found(matrices, 1000) > 10


@pytest.mark.parametrize("nesterov", [False, True])
def test_matrices_of_the_search_are_steps_of_optax(nesterov):
    """Two steps from rest at 1, selected and then not, by `optax.sgd` itself."""
    rate, momentum = 0.3, 0.9
    tx = optax.sgd(1.0, momentum=momentum, nesterov=nesterov)
    weight = jnp.ones(())
    state = tx.init(weight)
    not_selected, selected = step_matrices(rate, momentum, nesterov=nesterov)
    expected = np.array([1.0, 0.0])
    for gradient_of, matrix in ((rate, selected), (0.0, not_selected)):
        updates, state = tx.update(gradient_of * weight, state, weight)
        weight = optax.apply_updates(weight, updates)
        expected = matrix @ expected
        assert float(weight) == pytest.approx(expected[0], rel=1e-6)


class TestLimit:
    def test_for_the_papers_numbers(self):
        # 2 (1 - 0.9)^2 / 1.9 / (0.1 * 5e-4) = 0.02 / 1.9 / 5e-5; with Nesterov's
        # momentum 1.72 in place of 1.9.
        limit = swd_jax.schedules.largest_stable_multiplier(**PAPER)
        assert limit == pytest.approx(400 / 1.9)
        limit = swd_jax.schedules.largest_stable_multiplier(**PAPER, nesterov=True)
        assert limit == pytest.approx(400 / 1.72)

    @pytest.mark.parametrize(("rate", "decay"), [(0, 5e-4), (0.1, 0), (0.0, 0.0)])
    def test_is_infinite_where_nothing_moves(self, rate, decay):
        limit = swd_jax.schedules.largest_stable_multiplier(
            learning_rate=rate, weight_decay=decay
        )
        assert limit == np.inf

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            *(
                ("learning_rate", value)
                for value in (-0.1, np.nan, np.inf, "0.1", None)
            ),
            *(("weight_decay", value) for value in (-5e-4, np.nan, "x", True)),
            *(("momentum", value) for value in (-0.1, 1.0, 1.5, np.nan, "0.9", None)),
        ],
    )
    @pytest.mark.parametrize("bounded", [False, True])
    def test_of_numbers_out_of_range_is_an_error_that_names_them(
        self, bounded, argument, value
    ):
        numbers = {"learning_rate": 0.1, "weight_decay": 5e-4, "momentum": 0.9}
        numbers[argument] = value
        with pytest.raises(ValueError, match=f"^{argument} must be"):
            if bounded:
                swd_jax.bound_multiplier(1.0, **numbers)
            else:
                swd_jax.schedules.largest_stable_multiplier(**numbers)


TOTAL = 300


def at_every_step(schedule, steps=TOTAL + 100) -> np.ndarray:
    return np.asarray(quickly.jit(jax.vmap(schedule))(np.arange(steps, dtype=np.int32)))


class TestBoundMultiplier:
    # 95 % of 400 / 1.9.
    HELD_AT = 200

    def test_leaves_the_rule_untouched_below_and_holds_it_above(self):
        a = swd_jax.exponential_growth(0.1, 1e5, TOTAL)
        with pytest.warns(UserWarning, match="held at 95%"):
            bounded = swd_jax.bound_multiplier(a, **PAPER)
        original, values = at_every_step(a), at_every_step(bounded)
        below = original < self.HELD_AT
        # 0.1 * 10 ** (6 t / 300) passes 200 at t = 50 log10(2,000) = 165.05.
        np.testing.assert_array_equal(np.flatnonzero(below), np.arange(166))
        np.testing.assert_array_equal(values[below], original[below])
        np.testing.assert_allclose(values[~below], self.HELD_AT, rtol=1e-6)

    def test_warns_of_about_the_step_from_which_it_holds(self):
        a = swd_jax.exponential_growth(0.1, 1e5, TOTAL)
        with pytest.warns(UserWarning, match="from about step") as warned:
            swd_jax.bound_multiplier(a, **PAPER)
        (message,) = [str(warning.message) for warning in warned]
        # The bound is probed at steps 2 to 3 % apart.
        step = int(re.search(r"step (\d+)", message)[1])
        assert 166 <= step <= 166 * 1.03
        assert "reaches 1e+05" in message
        assert "sure to be stable up to 211:" in message
        assert "proximal_swd" in message

    def test_says_where_it_was_called(self):
        with pytest.warns(UserWarning, match="multiplier") as warned:
            swd_jax.bound_multiplier(1e5, **PAPER)
        assert warned[0].filename == __file__

    # Warnings are errors in this suite, so these cases show that there is none.
    @pytest.mark.parametrize(
        "a",
        [
            0,
            199.9,
            swd_jax.exponential_growth(0.1, 199, TOTAL),
            optax.constant_schedule(1.0),
        ],
    )
    def test_neither_warns_nor_changes_what_stays_below(self, a):
        bounded = swd_jax.bound_multiplier(a, **PAPER)
        expected = at_every_step(a if callable(a) else lambda step: jnp.float32(a))
        np.testing.assert_array_equal(at_every_step(bounded), expected)

    def test_follows_a_learning_rate_that_falls(self):
        # As in the paper, the rate falls by ten at a third and two thirds. At the end
        # the bound is 20,000; a constant 1,900 exceeds it in the first third only.
        rate = optax.piecewise_constant_schedule(0.1, {100: 0.1, 200: 0.1})
        numbers = PAPER | {"learning_rate": rate}
        a = swd_jax.exponential_growth(0.1, 1.9e4, TOTAL)
        bounded = swd_jax.bound_multiplier(a, **numbers)  # does not warn
        np.testing.assert_array_equal(at_every_step(bounded), at_every_step(a))
        with pytest.warns(UserWarning, match="from about step 0 on"):
            bounded = swd_jax.bound_multiplier(1900, **numbers)
        values = at_every_step(bounded)
        # Step 100 is left out: optax 0.2 counts a boundary to the part before it.
        np.testing.assert_allclose(values[:100], self.HELD_AT, rtol=1e-6)
        np.testing.assert_array_equal(
            values[101:], np.full(TOTAL - 1, 1900, np.float32)
        )

    def test_warns_of_a_warm_up_that_exceeds_the_limit_later(self):
        rate = optax.linear_schedule(0.0, 0.1, 1000)
        with pytest.warns(UserWarning, match=r"step (7[2-9]\d)") as warned:
            swd_jax.bound_multiplier(277, **PAPER | {"learning_rate": rate})
        # 200 at 0.1 is 277 at 0.0722, so from step 722 on.
        step = int(re.search(r"step (\d+)", str(warned[0].message))[1])
        assert 722 <= step <= 722 * 1.03

    @pytest.mark.parametrize("zero", ["learning_rate", "weight_decay"])
    def test_bounds_nothing_where_nothing_moves(self, zero):
        bounded = swd_jax.bound_multiplier(1e30, **PAPER | {zero: 0.0})
        assert float(bounded(0)) == np.float32(1e30)

    def test_is_another_for_nesterovs_momentum(self):
        with pytest.warns(UserWarning, match="multiplier"):
            bounded = swd_jax.bound_multiplier(1e5, **PAPER, nesterov=True)
        # Both limits are equal without momentum; here it is 400 / 1.72.
        assert float(bounded(0)) == pytest.approx(0.95 * 400 / 1.72, rel=1e-6)

    @pytest.mark.parametrize(
        "traced", ["a", "learning_rate", "weight_decay", "momentum"]
    )
    def test_takes_traced_numbers_without_a_warning(self, traced):
        numbers = {"a": 1e5} | PAPER

        @quickly.jit
        def bounded(value):
            return swd_jax.bound_multiplier(**numbers | {traced: value})(7)

        assert float(bounded(numbers[traced])) == pytest.approx(self.HELD_AT, rel=1e-6)

    def test_works_under_inject_hyperparams(self):
        def make(learning_rate):
            a = swd_jax.bound_multiplier(
                1e5, learning_rate=learning_rate, weight_decay=5e-4, momentum=0.9
            )
            sgd = optax.sgd(learning_rate, momentum=0.9)
            return optax.chain(swd_jax.swd(0.5, weight_decay=5e-4, a=a), sgd)

        params = {"kernel": jnp.array([[1.0, 2.0]])}
        with pytest.warns(UserWarning, match="multiplier"):
            # `inject_hyperparams` calls `make` once with the concrete number.
            tx = optax.inject_hyperparams(make)(learning_rate=0.1)
            state = tx.init(params)
        _, state = quickly.jit(tx.update)(params, state, params)
        multiplier = optax.tree_utils.tree_get(state, "multiplier")
        assert float(multiplier) == pytest.approx(self.HELD_AT, rel=1e-6)

    def test_of_equal_arguments_is_equal(self):
        def make(weight_decay):
            numbers = PAPER | {
                "learning_rate": jnp.float32(0.1),
                "weight_decay": weight_decay,
            }
            return swd_jax.bound_multiplier(
                swd_jax.exponential_growth(0.1, 100, TOTAL), **numbers
            )

        assert make(5e-4) == make(5e-4)
        assert hash(make(5e-4)) == hash(make(5e-4))
        assert make(5e-4) != make(4e-4)

    @pytest.mark.parametrize("value", [-1.0, np.nan, "x", None])
    def test_of_an_invalid_a_is_an_error(self, value):
        with pytest.raises(ValueError, match="^a must be"):
            swd_jax.bound_multiplier(value, **PAPER)


class TestTraining:
    """A small least-squares problem: every weight is drawn to a value of its own.

    SGD alone is stable: the curvature is 0.1, and training starts at the solution.
    """

    SOLUTION = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)

    def trained(self, tx, steps) -> np.ndarray:
        @quickly.jit
        def train():
            def step(_, carry):
                params, state = carry
                gradient = {"kernel": 0.1 * (params["kernel"] - self.SOLUTION)}
                updates, state = tx.update(gradient, state, params)
                return optax.apply_updates(params, updates), state

            params = {"kernel": jnp.asarray(self.SOLUTION)}
            carry = jax.lax.fori_loop(0, steps, step, (params, tx.init(params)))
            return carry[0]["kernel"]

        return np.asarray(train())

    def coupled(self, a, rate=0.1):
        return optax.chain(
            swd_jax.swd(0.5, weight_decay=5e-4, a=a), optax.sgd(rate, momentum=0.9)
        )

    def test_with_the_papers_multiplier_and_a_constant_rate_diverges(self):
        a = swd_jax.exponential_growth(0.1, 1e5, 300)
        weights = self.trained(self.coupled(a), 500)
        # lr a mu = 5 at the end exceeds 3.8. Not `>=`, because weights may be NaN.
        assert not np.max(np.abs(weights)) < 1e6

    def test_with_a_bound_stays_finite_and_brings_the_selected_weights_to_zero(self):
        # The rate falls to zero, so that the bound rises to 1e5 and beyond: a mu = 50,
        # against a curvature of 0.1, leaves 1/500 of a weight.
        rate = optax.cosine_decay_schedule(0.1, 500)
        a = swd_jax.exponential_growth(0.1, 1e5, 450)
        with pytest.warns(UserWarning, match="sure to be stable"):
            a = swd_jax.bound_multiplier(a, **PAPER | {"learning_rate": rate})
        weights = np.sort(np.abs(self.trained(self.coupled(a, rate), 500)).ravel())
        assert weights[-1] < 2 * np.abs(self.SOLUTION).max()
        # Pruning the smaller half would change next to nothing.
        assert np.linalg.norm(weights[:32]) < 5e-3 * np.linalg.norm(weights)

    @pytest.mark.parametrize(
        ("momentum", "nesterov"), [(0.9, False), (0.9, True), (0.99, False)]
    )
    def test_with_a_bound_and_no_loss_no_weight_grows(self, momentum, nesterov):
        numbers = PAPER | {"momentum": momentum, "nesterov": nesterov}
        with pytest.warns(UserWarning, match="sure to be stable"):
            a = swd_jax.bound_multiplier(1e6, **numbers)
        tx = optax.chain(
            swd_jax.swd(0.9, weight_decay=5e-4, a=a),
            optax.sgd(0.1, momentum=momentum, nesterov=nesterov),
        )

        @quickly.jit
        def largest_at_each_step(weights):
            def step(carry, _):
                weights, state = carry
                updates, state = tx.update(jnp.zeros_like(weights), state, weights)
                weights = optax.apply_updates(weights, updates)
                return (weights, state), jnp.abs(weights)

            carry = weights, tx.init(weights)
            return jax.lax.scan(step, carry, length=300)[1]

        start = np.random.default_rng(0).standard_normal((20, 50)).astype(np.float32)
        sizes = np.asarray(largest_at_each_step(jnp.asarray(start)))
        assert sizes.max() <= np.abs(start).max()
        # A tenth is left alone, and the others have shrunk.
        assert np.median(sizes[-1]) < 0.5 * np.median(np.abs(start))

    @pytest.mark.parametrize("a", [1e5, 1e30, 3e38])
    @pytest.mark.parametrize(
        ("form", "momentum"),
        [
            (swd_jax.proximal_swd, 0.0),
            (swd_jax.proximal_swd, 0.9),
            (swd_jax.decoupled_swd, 0.0),
            (swd_jax.decoupled_swd, 0.9),
        ],
    )
    def test_after_the_optimizer_no_multiplier_is_too_large(self, form, momentum, a):
        tx = optax.chain(
            optax.sgd(0.1, momentum=momentum),
            form(0.5, weight_decay=100.0, a=a, learning_rate=0.1),
        )
        weights = np.sort(np.abs(self.trained(tx, 300)).ravel())
        assert np.all(np.isfinite(weights))
        assert weights[-1] < 2 * np.abs(self.SOLUTION).max()
        assert weights[31] < 0.1 * weights[32]
