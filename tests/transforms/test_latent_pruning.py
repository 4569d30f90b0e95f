"""Latent pruning against NumPy, against the methods it contains, and by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax
from swd_jax.methods import latent_pruning
from tests.helpers import latent_reference, quickly

RNG = np.random.default_rng(0)
SHAPES = {"first": (20, 24), "second": (24, 10)}
START = {name: RNG.normal(size=shape) for name, shape in SHAPES.items()}
START["second"] *= 0.5
BIAS = RNG.normal(size=10)
WANTED = {name: RNG.normal(size=shape) for name, shape in SHAPES.items()}
STEPS, RATE = 60, 2.0**-5
BEGIN, END = 3, 40


def zeros_like(tree):
    return jax.tree.map(np.zeros_like, tree)


def count_zeros(tree):
    return sum(int((np.asarray(leaf) == 0).sum()) for leaf in jax.tree.leaves(tree))


def assert_same(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def gradient(params):
    """Of each weight alone: what is pruned has one too, which brings it back."""
    wanted = {name: jnp.asarray(WANTED[name], params[name].dtype) for name in SHAPES}
    found = {name: params[name] - wanted[name] for name in SHAPES}
    return found | {"bias": jnp.ones_like(params["bias"])}


def trained(tx, params, state=None, steps=STEPS, gradient=gradient):
    """Return the parameters and the last state's memory after each of some steps."""

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
        last = state[-1] if state else ()
        return (params, state), (params, getattr(last, "memory", ()))

    state = tx.init(params) if state is None else state
    run = quickly.jit(lambda carry: jax.lax.scan(step, carry, None, steps))
    (_, state), (seen, memory) = run((params, state))
    return jax.tree.map(np.asarray, (seen, memory)), state


def start(dtype):
    params = {name: jnp.asarray(START[name], dtype) for name in SHAPES}
    return params | {"bias": jnp.asarray(BIAS, dtype)}


# name: arguments of the target, and of the reference.
TARGETS = {
    "global": ({}, {}),
    "local": ({"scope": "local"}, {"prune": latent_reference.each_by_itself}),
    "min_kept": (
        {"min_kept": 200},
        {
            "prune": lambda *args, **options: latent_reference.in_one_pool(
                *args, min_kept=200, **options
            )
        },
    ),
    "normalized": (
        {"criterion": "normalized_magnitude"},
        {"score": latent_reference.normalized_magnitudes},
    ),
    "blocks": ({"structure": swd_jax.Block((2, 2))}, {"unit": (2, 2)}),
}
F32, F64 = "float32", "float64"
CASES = [
    ("global", 2.0, F64),
    ("global", 3.0, F64),
    ("local", math.inf, F64),
    ("min_kept", 2.0, F64),
    ("normalized", 2.0, F32),
    ("blocks", 3.0, F64),
    ("global", 2.0, F32),
    pytest.param("global", math.inf, F32, marks=pytest.mark.slow),
    pytest.param("local", 1.0, F64, marks=pytest.mark.slow),
    pytest.param("min_kept", 3.0, F32, marks=pytest.mark.slow),
    pytest.param("normalized", 2.0, F64, marks=pytest.mark.slow),
]
# The norms of leaves and blocks are rounded to 27 bits.
ROUNDING = {"normalized": 1e-8, "blocks": 1e-8}


def largest_difference(rounding, power):
    """Return how far latent weights may be from the reference.

    Of what is rounded just above the threshold the network gets the p-th root, and
    that comes back with the gradient.
    """
    root = 1 if math.isinf(power) else max(power, 1)
    return 10 * RATE * rounding ** (1 / root) + 30 * rounding


def to_power(weights, power):
    """Return numbers that differ as the latent weights do."""
    weights = np.asarray(weights, np.float64)
    return np.sign(weights) * np.abs(weights) ** (1 if math.isinf(power) else power)


@pytest.mark.parametrize(("name", "power", "dtype"), CASES)
def test_sixty_steps_agree_with_numpy(name, power, dtype):
    target_options, options = TARGETS[name]
    rising = swd_jax.cubic_sparsity(0.9, begin=BEGIN, end=END)
    rule = {"power": power, "forgetting": 0.3, "max_rescale": 1.5}
    target = swd_jax.Target(rising, **target_options)
    with jax.enable_x64(dtype == F64):
        tx = optax.chain(optax.sgd(RATE), latent_pruning(target, **rule))
        (seen, memory), _ = trained(tx, start(dtype))
    weights = [START[name] for name in SHAPES]
    remembered = [np.zeros(shape) for shape in SHAPES.values()]
    rounding = 1e-7 if dtype == F32 else ROUNDING.get(name, 1e-16)
    tolerance = largest_difference(rounding, power)
    has_returned = False
    for i in range(STEPS):
        sparsity = latent_reference.cubic(0.9, BEGIN, END, i + 1)
        updates = [
            -RATE * (w - wanted)
            for w, wanted in zip(weights, WANTED.values(), strict=True)
        ]
        old = weights
        weights, remembered = latent_reference.step(
            weights, remembered, updates, sparsity, **rule, **options
        )
        for leaf, expected, expected_memory, before in zip(
            SHAPES, weights, remembered, old, strict=True
        ):
            got = seen[leaf][i]
            np.testing.assert_array_equal(got == 0, expected == 0)
            np.testing.assert_allclose(
                to_power(got, power),
                to_power(expected, power),
                rtol=1e-3,
                atol=30 * tolerance,
            )
            np.testing.assert_allclose(
                got.astype(np.float64) + memory[leaf][i],
                expected + expected_memory,
                rtol=0,
                atol=tolerance,
            )
            has_returned |= bool(((before == 0) & (expected != 0)).any())
    # There was something to agree on.
    assert has_returned
    np.testing.assert_allclose(
        seen["bias"][-1], BIAS - STEPS * RATE, rtol=1e-5, atol=1e-5
    )


def one_update(tx, weights, memory, update=None, dtype=jnp.float32):
    """Return a row of weights after an update, and the memory."""
    params = {"kernel": jnp.asarray([weights], dtype)}
    state = tx.init(params)
    old = state.memory["kernel"]
    state = state._replace(memory={"kernel": jnp.asarray([memory], old.dtype)})
    update = np.zeros(len(weights)) if update is None else update
    updates, state = tx.update({"kernel": jnp.asarray([update], dtype)}, state, params)
    params = optax.apply_updates(params, updates)
    return np.asarray(params["kernel"][0]), np.asarray(state.memory["kernel"][0]), state


class TestByHand:
    def test_a_whole_step(self):
        """k = 2 of 5; the latent weights are 3, -1, 5, -13 and 2."""
        tx = latent_pruning(
            swd_jax.Target(0.4, prunable=""), forgetting=0.5, power=2, max_rescale=4
        )
        weights, memory, state = one_update(
            tx, [0, 0, 4, -12, 4], [3, -1, 2, 0, -2], [0, 0, -1, -1, 0]
        )
        # -1 and 2 are pruned. sigma is 2, tau 3.
        shrunk = np.array([math.sqrt(5), 0, math.sqrt(21), -math.sqrt(165), 0])
        rescale = math.sqrt(203 / 191)
        np.testing.assert_allclose(weights, rescale * shrunk, rtol=1e-6)
        # The update has the norm sqrt(2), and the kept latent weights sqrt(203).
        decay = 1 + 0.5 * math.sqrt(2 / 203)
        latents = np.array([3, -1 / decay, 5, -13, 2 / decay])
        np.testing.assert_allclose(memory, latents - rescale * shrunk, rtol=1e-5)
        assert state.selection.threshold == 3
        assert state.selection.selected_fraction == np.float32(0.4)
        np.testing.assert_allclose(state.relative_update, math.sqrt(2 / 203), rtol=1e-6)
        assert state.count == 1

    def test_of_weights_that_tie_at_the_threshold_none_is_pruned(self):
        tx = latent_pruning(0.5, forgetting=0.0, max_rescale=1)
        weights, memory, _ = one_update(tx, [1, 2, -2, 3], [0] * 4)
        expected = [0, math.sqrt(3), -math.sqrt(3), math.sqrt(8)]
        np.testing.assert_allclose(weights, expected, rtol=1e-6)
        np.testing.assert_allclose(memory[0], 1)

    @pytest.mark.parametrize("largest", [4, 5])  # by a difference, and by a sum
    def test_weights_just_above_the_threshold_grow_by_max_rescale_at_most(
        self, largest
    ):
        above = np.nextafter(np.float32(1), np.float32(2), dtype=np.float32)
        params = {"kernel": jnp.array([[1.0, above, -above, 0.5]])}
        tx = latent_pruning(0.5, forgetting=0.0, max_rescale=largest)
        updates, _ = tx.update({"kernel": jnp.zeros((1, 4))}, tx.init(params), params)
        # sqrt(above^2 - 1) is the root of 2 units in the last place.
        left = largest * math.sqrt(2 * 2.0**-23)
        np.testing.assert_allclose(
            optax.apply_updates(params, updates)["kernel"],
            [[0, left, -left, 0]],
            rtol=1e-3,
            atol=0,
        )

    def test_the_norm_of_a_leaf_grows_by_max_rescale_at_most(self):
        """3 and 1: sigma is near 3, so that the share is tiny."""
        kept = 3.001
        share = math.sqrt(1 - (3 / kept) ** 2)
        for largest in (1, 4.0, 1e6):
            tx = latent_pruning(0.5, forgetting=0.0, max_rescale=largest)
            weights, _, _ = one_update(tx, [3, kept], [0, 0])
            expected = min(kept, kept * share * largest)
            np.testing.assert_allclose(weights, [0, expected], rtol=1e-3)

    def test_a_schedule_of_forgetting_is_that_of_the_optimizer_step(self):
        rates = optax.piecewise_constant_schedule(0.0, {})
        tx = latent_pruning(
            0.5, forgetting=lambda step: jnp.where(step == 1, 1.0, rates(step))
        )
        params = {"kernel": jnp.array([[1.0, 8.0]])}
        state = tx.init(params)
        pruned = []
        for _ in range(3):
            updates = {"kernel": jnp.array([[0.0, -4.0]])}
            params = {"kernel": jnp.array([[0.0, 8.0]])}
            memory = {"kernel": jnp.array([[1.0, 0.0]])}
            _, state = tx.update(updates, state._replace(memory=memory), params)
            pruned.append(float(state.memory["kernel"][0, 0]))
        # The update has the norm 4, the kept weight is 4.
        assert pruned == [1, 0.5, 1]

    def test_a_leaf_that_keeps_nothing_forgets_nothing_and_is_finite(self):
        params = {"a": jnp.array([[1.0, 2.0]]), "b": jnp.array([[8.0, 9.0]])}
        tx = latent_pruning(swd_jax.Target(0.5, prunable=""), forgetting=10.0)
        updates = jax.tree.map(lambda w: 0.25 * w, params)
        updates, state = tx.update(updates, tx.init(params), params)
        np.testing.assert_array_equal(updates["a"], [[-1, -2]])
        np.testing.assert_array_equal(state.memory["a"], [[1.25, 2.5]])
        assert np.isfinite(updates["b"]).all()


class TestSpecialCases:
    @pytest.mark.parametrize("sparsity", [0.9])
    def test_without_forgetting_it_is_straight_through_training(self, sparsity):
        """Latent weights with the gradients of the network, to the bit."""
        hard = lambda params: swd_jax.methods.straight_through(
            params, sparsity, soft=False
        )

        @quickly.jit
        def dense_run(latents):
            def step(latents, _):
                grads = gradient(hard(latents))
                latents = jax.tree.map(lambda v, g: v - RATE * g, latents, grads)
                return latents, hard(latents)

            return jax.lax.scan(step, latents, None, STEPS)

        latents = start("float32")
        last, expected = dense_run(latents)
        tx = optax.chain(
            optax.sgd(RATE), latent_pruning(sparsity, forgetting=0, power=math.inf)
        )
        params = hard(latents)
        state = tx.init(params)
        remembered = {name: latents[name] - params[name] for name in SHAPES}
        memory = state[-1].memory | remembered
        state = (*state[:-1], state[-1]._replace(memory=memory))
        (seen, memory), _ = trained(tx, params, state)
        assert_same(seen, expected)
        for name in SHAPES:
            np.testing.assert_array_equal(seen[name][-1] + memory[name][-1], last[name])
        moved = np.asarray(seen["first"][0] == 0) != np.asarray(seen["first"][-1] == 0)
        assert moved.any()

    @pytest.mark.parametrize("sparsity", ["0.9"])
    def test_without_rescaling_and_with_power_3_it_is_feather(self, sparsity):
        """As NumPy trains latent weights, with the largest pruned one as threshold."""
        with jax.enable_x64(True):
            tx = optax.chain(
                optax.sgd(RATE),
                latent_pruning(float(sparsity), forgetting=0, power=3.0, max_rescale=1),
            )
            (seen, _), _ = trained(tx, start("float64"))
        latents = np.concatenate([START[name].ravel() for name in SHAPES])
        wanted = np.concatenate([WANTED[name].ravel() for name in SHAPES])
        weights = latents
        k = int(float(sparsity) * latents.size)
        for i in range(STEPS):
            latents = latents - RATE * (weights - wanted)
            sigma = np.sort(np.abs(latents))[k - 1]
            cubes = np.maximum(np.abs(latents) ** 3 - sigma**3, 0)
            weights = np.sign(latents) * np.cbrt(cubes)
            cubes *= np.sign(latents)
            got = np.concatenate([seen[name][i].ravel() for name in SHAPES])
            np.testing.assert_array_equal(got == 0, weights == 0)
            np.testing.assert_allclose(to_power(got, 3), cubes, rtol=0, atol=1e-6)

    def test_one_step_of_feather_is_that_of_straight_through(self):
        row = [0.5, 1.0, np.nextafter(np.float32(1), np.float32(2)), 2.0, -5.0]
        tx = latent_pruning(
            swd_jax.Target(0.4, prunable=""), forgetting=0, power=3, max_rescale=1
        )
        weights, _, _ = one_update(tx, row, [0] * 5)
        through = swd_jax.methods.straight_through(
            jnp.asarray(row), swd_jax.Target(0.4, prunable=""), power=3
        )
        np.testing.assert_allclose(weights, through, rtol=1e-5)

    def test_with_very_large_forgetting_it_is_gradual_magnitude_pruning(self):
        """That prunes before the update, and this after it, for the next step."""
        # A leaf that keeps nothing would forget nothing.
        rising = swd_jax.Target(
            swd_jax.cubic_sparsity(0.9, begin=BEGIN, end=END), scope="local"
        )
        rate = 2.0**-12
        gradual = optax.chain(
            optax.sgd(rate), swd_jax.methods.magnitude_pruning(rising)
        )
        latent = optax.chain(
            optax.sgd(rate),
            latent_pruning(rising, forgetting=1e30, power=math.inf),
        )
        (expected, _), _ = trained(gradual, start("float32"))
        (seen, memory), _ = trained(latent, start("float32"))
        for name in SHAPES:
            got, wanted = seen[name][:-1], expected[name][:-1]
            np.testing.assert_array_equal(got == 0, expected[name][1:] == 0)
            np.testing.assert_allclose(
                got, np.where(got == 0, 0, wanted), rtol=1e-5, atol=1e-6
            )
            assert np.abs(memory[name]).max() < 1e-6


class TestNarrowTypes:
    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_without_updates_latent_weights_stay_for_a_thousand_steps(self, dtype):
        params = {name: jnp.asarray(START[name], dtype) for name in SHAPES}
        zero = lambda params: jax.tree.map(jnp.zeros_like, params)
        tx = optax.chain(optax.identity(), latent_pruning(0.8, forgetting=0.5))
        (seen, memory), _ = trained(tx, params, steps=1000, gradient=zero)
        for name in SHAPES:
            assert memory[name].dtype == jnp.float32
            latents = seen[name].astype(np.float32) + memory[name]
            np.testing.assert_array_equal(latents[1:], latents[:1].repeat(999, 0))
            start = np.asarray(params[name]).astype(np.float32)
            np.testing.assert_allclose(latents[-1], start, rtol=1e-6)
            # The first updates were rounded; what they missed is made up for at once.
            np.testing.assert_array_equal(seen[name][-1], seen[name][4])

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_updates_too_small_for_a_weight_add_up(self, dtype):
        """As they do in float32: 400 steps of a 4096th of the weight."""
        rate = 2.0**-12 if dtype == "bfloat16" else 2.0**-14
        shrink = lambda params: jax.tree.map(lambda w: rate * w, params)
        row = {"kernel": jnp.asarray(RNG.uniform(1, 2, (1, 64)), dtype)}
        wide = jax.tree.map(lambda w: w.astype(jnp.float32), row)
        tx = optax.chain(
            optax.scale(-1.0),
            latent_pruning(0.0, forgetting=0.5),
        )
        (expected, _), _ = trained(tx, wide, steps=400, gradient=shrink)
        (seen, memory), _ = trained(tx, row, steps=400, gradient=shrink)
        (plain, _), _ = trained(optax.identity(), row, steps=400, gradient=shrink)
        np.testing.assert_array_equal(plain["kernel"][-1], row["kernel"])
        got = seen["kernel"][-1].astype(np.float32)
        moved = 1 - got / np.asarray(row["kernel"], np.float32)
        assert moved.min() > 300 * rate
        latents = got + memory["kernel"][-1]
        np.testing.assert_allclose(
            latents, expected["kernel"][-1], rtol=float(jnp.finfo(dtype).eps) * 0.5
        )

    @pytest.mark.parametrize(
        ("dtypes", "update_dtype", "memory", "memory_dtypes"),
        [
            (("bfloat16", "bfloat16"), None, None, ("float32", "float32")),
            (("float16", "float16"), None, None, ("float32", "float32")),
            (("bfloat16", "float32"), None, None, ("float32", "float32")),
            (("float32", "float32"), "bfloat16", None, ("float32", "float32")),
            (("bfloat16", "bfloat16"), None, "bfloat16", ("bfloat16", "bfloat16")),
            (("float64", "float32"), None, None, ("float64", "float32")),
            (("float64", "float64"), None, jnp.float32, ("float32", "float32")),
        ],
    )
    def test_zeros_are_exact(self, dtypes, update_dtype, memory, memory_dtypes):
        """floor(0.9 x 720) of them at every step, in weights of any type."""
        with jax.enable_x64("float64" in dtypes):
            params = {
                name: jnp.asarray(START[name], dtype)
                for name, dtype in zip(SHAPES, dtypes, strict=True)
            }
            tx = optax.chain(
                optax.identity(),
                latent_pruning(0.9, forgetting=0.5, memory=memory),
            )

            def updates(params):
                return {
                    name: (RATE * (jnp.asarray(WANTED[name], w.dtype) - w)).astype(
                        update_dtype or w.dtype
                    )
                    for name, w in params.items()
                }

            (seen, memories), _ = trained(tx, params, steps=20, gradient=updates)
        found = tuple(str(memories[name].dtype) for name in SHAPES)
        assert found == memory_dtypes
        assert tuple(str(seen[name].dtype) for name in SHAPES) == dtypes
        zeros = sum((seen[name] == 0).sum(axis=(1, 2)) for name in SHAPES)
        np.testing.assert_array_equal(zeros[1:], 648)
        changes = (seen["first"][1:] == 0) != (seen["first"][:-1] == 0)
        assert changes.any()

    def test_a_float16_update_takes_the_smallest_bfloat16_weight_to_zero(self):
        tx = latent_pruning(0.5, forgetting=0.0)
        params = {"kernel": jnp.array([[1e-9, 1.0]], jnp.bfloat16)}
        updates = {"kernel": jnp.zeros((1, 2), jnp.float16)}
        updates, _ = tx.update(updates, tx.init(params), params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_array_equal(params["kernel"] == 0, [[True, False]])


def test_parameters_that_something_else_changes_are_taken_as_they_are():
    """An average, say: the latent weights are those plus the memory."""
    tx = latent_pruning(0.8, forgetting=0.5, max_rescale=2)
    params = start("float32")
    state, update = tx.init(params), quickly.jit(tx.update)
    names = [*SHAPES]
    for change in (lambda w: w, lambda w: 1.5 * w, lambda w: w[::-1], np.zeros_like):
        params = {name: jnp.asarray(change(w)) for name, w in params.items()}
        grads = {name: -RATE * g for name, g in gradient(params).items()}
        wide = [
            [np.asarray(tree[name], np.float64) for name in names]
            for tree in (params, state.memory, grads)
        ]
        expected, remembered = latent_reference.step(
            *wide, "0.8", power=2, forgetting=0.5, max_rescale=2
        )
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        for name, weights, memory in zip(names, expected, remembered, strict=True):
            np.testing.assert_allclose(params[name], weights, atol=2e-5)
            np.testing.assert_allclose(state.memory[name], memory, atol=2e-5)


class TestNotFinite:
    TX = latent_pruning(swd_jax.Target(0.5, prunable=""), forgetting=1.0)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("where", ["weights", "update"])
    def test_it_is_kept_and_the_others_are_pruned_as_ever(self, where, bad):
        """Of 8 weights 4 are pruned, none of which is the bad one."""
        row = np.array([1.0, -2, 3, 4, -5, 6, 7])
        update = np.full(7, 0.125)
        latents = row + update
        sigma = 4.125
        shrunk = latents[4:] * np.sqrt(1 - (sigma / latents[4:]) ** 2)
        weight = bad if where == "weights" else 0.5
        change = bad if where == "update" else 0.0
        got, remembered, state = one_update(
            self.TX, [*row, weight], [0] * 8, [*update, change]
        )
        np.testing.assert_array_equal(got[:4], 0)
        factors = got[4:7] / shrunk
        assert 1 <= factors[0] <= 4
        np.testing.assert_allclose(factors, factors[0], rtol=1e-5)
        np.testing.assert_allclose(got[4:7] + remembered[4:7], latents[4:], rtol=1e-6)
        decays = latents[:4] / remembered[:4]
        assert 1 <= decays[0] <= 2
        np.testing.assert_allclose(decays, decays[0], rtol=1e-5)
        assert not np.isfinite(got[7])
        assert np.isfinite(state.relative_update)
        assert state.selection.selected_fraction == 0.5

    def test_weights_whose_squares_overflow_or_vanish_are_pruned_and_finite(self):
        for scale in (1e30, 1e-30):
            row = scale * np.array([1.0, 2, 3, 4])
            weights, memory, _ = one_update(self.TX, row, [0] * 4, 0.1 * row)
            assert np.isfinite(weights).all()
            assert np.isfinite(memory).all()
            np.testing.assert_array_equal(weights == 0, [True, True, False, False])


ERRORS = [
    ({"power": 0}, r"power must be a number greater than 0, got 0"),
    ({"power": -1.0}, r"power must be .*got -1\.0"),
    ({"power": math.nan}, r"power must be .*got nan"),
    ({"power": True}, r"power must be .*got True"),
    ({"power": "2"}, r"power must be .*got '2'"),
    ({"max_rescale": 0.5}, r"max_rescale must be a number of at least 1, got 0\.5"),
    ({"max_rescale": math.inf}, r"max_rescale must be finite, got inf"),
    ({"max_rescale": "4"}, r"max_rescale must be a number, got '4'"),
    ({"forgetting": -0.1}, r"forgetting must be at least 0, got -0\.1"),
    ({"forgetting": math.nan}, r"forgetting must be finite, got nan"),
    (
        {"forgetting": optax.constant_schedule(-1.0)},
        r"forgetting must be at least 0, got a schedule that starts at -1",
    ),
    ({"memory": "int8"}, r"memory must be a floating-point dtype.*float32.*'int8'"),
    ({"memory": "float33"}, r"memory must be a dtype, .*got 'float33'"),
]


@pytest.mark.parametrize(("options", "message"), ERRORS)
def test_an_argument_that_makes_no_sense_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        latent_pruning(0.5, **{"forgetting": 0.1, **options})


def test_a_traced_max_rescale_is_an_error():
    def make(largest):
        latent_pruning(0.5, forgetting=0.1, max_rescale=largest)

    with pytest.raises(ValueError, match="max_rescale is traced.*static_args"):
        jax.eval_shape(make, 2.0)


@pytest.mark.parametrize("memory", [{}, {"first": np.zeros((20, 24))}])
def test_the_memory_of_other_parameters_is_an_error_that_lists_the_leaves(memory):
    params = start("float32")
    tx = latent_pruning(0.5, forgetting=0.1)
    state = tx.init(params)._replace(memory=memory)
    with pytest.raises(
        ValueError, match=r"(?s)^state\.memory has arrays at other leaves.*second"
    ):
        tx.update(params, state, params)


def test_float32_weights_are_pruned_where_float64_is_enabled_and_nothing_promoted():
    tx = latent_pruning(0.5, forgetting=0.1)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        params = {"kernel": jax.ShapeDtypeStruct((4, 4), "float32")}
        state = jax.eval_shape(tx.init, params)
        updates, _ = jax.eval_shape(tx.update, params, state, params)
    assert updates["kernel"].dtype == jnp.float32


def test_numbers_can_be_injected_and_changed():
    """0.29 of 100 is 29 also for an injected, traced 0.29."""
    params = {"kernel": jnp.arange(1.0, 101.0).reshape(10, 10)}
    updates = jax.tree.map(lambda w: -w / 64, params)
    options = {"power": math.inf, "max_rescale": 2.0}
    injected = optax.inject_hyperparams(
        latent_pruning, static_args=("power", "max_rescale")
    )(0.29, forgetting=0.5, **options)
    state, update = injected.init(params), quickly.jit(injected.update)
    for sparsity, forgetting in ((0.29, 0.5), (0.57, 4.0)):
        state.hyperparams["target"] = jnp.asarray(sparsity)
        state.hyperparams["forgetting"] = jnp.asarray(forgetting)
        start_state = state
        found, state = update(updates, start_state, params)
        plain = latent_pruning(sparsity, forgetting=forgetting, **options)
        expected, after = plain.update(updates, start_state.inner_state, params)
        np.testing.assert_allclose(found["kernel"], expected["kernel"], rtol=1e-6)
        np.testing.assert_allclose(
            state.inner_state.memory["kernel"], after.memory["kernel"], atol=1e-5
        )
        new = optax.apply_updates(params, found)
        assert count_zeros(new) == round(100 * sparsity)
