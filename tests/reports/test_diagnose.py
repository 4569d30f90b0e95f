"""The warnings, each where it is due and where it is not, worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import swd_jax
from swd_jax import methods
from swd_jax._transforms.selective_decay import SwdState
from swd_jax.reports import diagnose

# ||.|| is sqrt(9 + 16 + 144 + 7056) = 85. At 0.75, 3, 4 and 12 go: 13 / 85.
PARAMS = {"kernel": jnp.array([[3.0, -4.0, 12.0, 84.0]])}
SWD = {"weight_decay": 0.1, "a": 2.0}


LABELS = {"a": "t", "b": "f"}


def swd():
    return swd_jax.swd(0.5, **SWD)


def decoupled():
    return swd_jax.decoupled_swd(0.5, **SWD, learning_rate=0.1)


def proximal():
    return swd_jax.proximal_swd(0.5, **SWD, learning_rate=0.1)


def sparsify(total_steps=100, end=50):
    return swd_jax.sparsify(0.75, total_steps, end=end)


def keep_pruned():
    return swd_jax.keep_pruned({"kernel": jnp.array([[False, False, True, True]])})


def falling(step):
    return 0.1 / (1 + step)


def trained(tx, params=PARAMS, steps=1, gradient=0.01):
    def step(params, state):
        gradients = jax.tree.map(lambda p: jnp.full_like(p, gradient), params)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step) if steps > 1 else step
    state = tx.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def of_state(states, kind):
    leaves = jax.tree.leaves(states, is_leaf=lambda node: isinstance(node, kind))
    return next(leaf for leaf in leaves if isinstance(leaf, kind))


def only(warnings):
    (warning,) = warnings
    return warning


class TestPlaceOfSwd:
    LEGAL = {
        "before adam": lambda: optax.chain(
            optax.clip_by_global_norm(1.0), swd(), optax.adam(1e-3)
        ),
        "before sgd": lambda: optax.chain(swd(), optax.sgd(0.1)),
        "before sgd with a schedule": lambda: optax.chain(
            swd(), optax.sgd(falling, momentum=0.9)
        ),
        "with decay": lambda: optax.chain(
            optax.add_decayed_weights(5e-4), swd(), optax.sgd(0.1, momentum=0.9)
        ),
        "before adamw": lambda: optax.chain(swd(), optax.adamw(1e-3)),
        "in the middle": lambda: optax.chain(
            optax.scale_by_adam(), swd(), optax.scale_by_learning_rate(1e-3)
        ),
        "in the middle with a schedule": lambda: optax.chain(
            optax.trace(0.9), swd(), optax.scale_by_learning_rate(falling)
        ),
        "in the middle, nested": lambda: optax.chain(
            optax.chain(optax.scale_by_adam(), optax.identity(), swd()),
            optax.scale(-1e-3),
        ),
        "decoupled": lambda: optax.chain(optax.adam(falling), decoupled()),
        "proximal": lambda: optax.chain(optax.sgd(0.1, momentum=0.9), proximal()),
        "alone": swd,
        "a learning rate elsewhere": lambda: optax.chain(
            optax.clip(1.0), optax.add_decayed_weights(1e-4), swd()
        ),
        "MultiSteps": lambda: optax.MultiSteps(
            optax.chain(swd(), optax.adam(1e-3)), every_k_schedule=1
        ),
        "inject_hyperparams": lambda: optax.inject_hyperparams(
            lambda learning_rate: optax.chain(swd(), optax.sgd(learning_rate))
        )(learning_rate=0.1),
        "masked": lambda: optax.chain(
            optax.masked(swd(), {"kernel": True}), optax.adam(1e-3)
        ),
        "partition": lambda: optax.chain(
            optax.partition(
                {"a": optax.chain(swd(), optax.adam(1e-3)), "b": optax.adam(1e-3)},
                {"kernel": "a"},
            ),
        ),
        "two of them": lambda: optax.chain(swd(), swd(), optax.adam(1e-3)),
        "with keep_pruned": lambda: optax.chain(swd(), optax.adam(1e-3), keep_pruned()),
        "named_chain, which is a dict": lambda: optax.named_chain(
            ("z", swd()), ("a", optax.adam(1e-3))
        ),
    }
    WRONG = {
        "after adam": lambda: optax.chain(optax.adam(1e-3), swd()),
        "after sgd": lambda: optax.chain(optax.sgd(0.1), swd()),
        "after sgd with momentum": lambda: optax.chain(optax.sgd(0.1, 0.9), swd()),
        "after sgd with a schedule": lambda: optax.chain(optax.sgd(falling), swd()),
        "after lion": lambda: optax.chain(optax.lion(1e-4), swd()),
        "after adafactor": lambda: optax.chain(optax.adafactor(1e-3), swd()),
        "after the learning rate": lambda: optax.chain(
            optax.scale_by_adam(), optax.scale_by_learning_rate(1e-3), swd()
        ),
        "nested": lambda: optax.chain(
            optax.chain(optax.clip(1.0), optax.adamw(1e-3)), optax.chain(swd())
        ),
        "before keep_pruned": lambda: optax.chain(
            optax.adam(1e-3), swd(), keep_pruned()
        ),
        "MultiSteps": lambda: optax.MultiSteps(
            optax.chain(optax.adam(1e-3), swd()), every_k_schedule=1
        ),
        "inject_hyperparams inside": lambda: optax.chain(
            optax.inject_hyperparams(optax.sgd)(learning_rate=0.1), swd()
        ),
        "inject_hyperparams around": lambda: optax.inject_hyperparams(
            lambda learning_rate: optax.chain(optax.adam(learning_rate), swd())
        )(learning_rate=0.1),
        "masked": lambda: optax.chain(
            optax.adam(1e-3), optax.masked(swd(), {"kernel": True})
        ),
        "partition": lambda: optax.partition(
            {"a": optax.chain(optax.adam(1e-3), swd()), "b": optax.adam(1e-3)},
            {"kernel": "a"},
        ),
        "apply_if_finite": lambda: optax.apply_if_finite(
            optax.chain(optax.adam(1e-3), swd()), 3
        ),
        "after dadapt_adamw": lambda: optax.chain(optax.contrib.dadapt_adamw(), swd()),
        "after prodigy": lambda: optax.chain(optax.contrib.prodigy(), swd()),
    }

    @pytest.mark.parametrize("name", LEGAL)
    def test_no_alarm(self, name):
        params, state = trained(self.LEGAL[name]())
        assert diagnose(params, 0.5, state) == ()

    @pytest.mark.parametrize("name", WRONG)
    def test_alarm(self, name):
        params, state = trained(self.WRONG[name]())
        warning = only(diagnose(params, 0.5, state))
        assert warning.startswith("swd stands last, after an optimizer")
        assert "grow at every step, now by 0.2 of themselves" in warning  # 0.1 * 2
        assert "optax.chain(swd(...), optimizer)" in warning
        assert "decoupled_swd or proximal_swd" in warning

    def test_before_the_first_step_there_is_no_coefficient_to_tell(self):
        state = optax.chain(optax.adam(1e-3), swd()).init(PARAMS)
        assert "grow at every step, until" in only(diagnose(PARAMS, 0.5, state))

    def test_what_is_warned_of_is_true(self):
        # Each step adds 0.2 w: 3 and 4 grow by 1.2 a step, past 12 after 8 and 7.
        chain = optax.chain(optax.sgd(0.1), swd())
        params, _ = trained(chain, steps=2, gradient=0.0)
        np.testing.assert_allclose(
            params["kernel"], [[3 * 1.44, -4 * 1.44, 12, 84]], rtol=1e-6
        )

    @pytest.mark.parametrize("form", [decoupled, proximal])
    def test_the_forms_after_the_optimizer_before_it(self, form):
        params, state = trained(optax.chain(form(), optax.adam(1e-3)))
        warning = only(diagnose(params, 0.5, state))
        assert warning.startswith("decoupled_swd (or proximal_swd) stands before an")
        assert "selected weights grow" in warning
        assert "optax.chain(optimizer, decoupled_swd(...))" in warning

    @pytest.mark.parametrize("order", [1, -1])
    def test_a_state_that_does_not_tell_its_form_is_not_alarming(self, order):
        links = [decoupled(), optax.adam(1e-3)][::order]
        params, state = trained(optax.chain(*links))
        state = [SwdState(*s) if isinstance(s, SwdState) else s for s in state]
        assert diagnose(params, 0.5, tuple(state)) == ()

    @pytest.mark.parametrize("form", [swd, decoupled, proximal])
    def test_the_form_survives_scan_and_old_states(self, form):
        tx = form()

        def step(state, _):
            return tx.update(PARAMS, state, PARAMS)[1], None

        new = tx.init(PARAMS)
        old = SwdState(*new)
        for state in (new, old):
            after, _ = jax.lax.scan(step, state, length=2)
            assert type(after) is type(state)
            assert int(after.count) == 2
        assert isinstance(new, SwdState)
        assert type(jax.tree.map(jnp.copy, new)) is type(new)


class TestOptimizersThatDoNotSuitSwd:
    @pytest.mark.parametrize(
        ("optimizer", "words"),
        [
            (lambda: optax.contrib.muon(0.1), "as Muon does"),
            (lambda: optax.contrib.momo(0.1), "of the loss, which has no penalty"),
            (lambda: optax.contrib.momo_adam(0.1), "of the loss, which has no penalty"),
            (lambda: optax.lbfgs(), "of the loss, which has no penalty"),  # noqa: PLW0108
        ],
    )
    def test_swd_before_them(self, optimizer, words):
        state = optax.chain(swd(), optimizer()).init(PARAMS)
        warning = only(diagnose(PARAMS, 0.5, state))
        assert warning.startswith("swd stands before an optimizer that")
        assert words in warning
        inside = swd_jax.sparsify(0.5, 100, optimizer=optimizer()).init(PARAMS)
        assert diagnose(PARAMS, 0.5, inside) == ()


class TestPlaceOfPruning:
    ALL = {
        "sparsify": sparsify,
        "latent_pruning": lambda: methods.latent_pruning(0.75, forgetting=0.1),
        "magnitude_pruning": lambda: methods.magnitude_pruning(0.75),
        "keep_pruned": keep_pruned,
    }

    @pytest.mark.parametrize("name", ALL)
    @pytest.mark.parametrize(
        "after",
        [
            lambda: optax.adam(1e-3),
            lambda: optax.sgd(0.1),
            lambda: optax.sgd(0.1, 0.9),
            lambda: optax.ema(0.9),
            lambda: optax.scale_by_schedule(falling),
            lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=0.1),
        ],
    )
    def test_before_an_optimizer(self, name, after):
        tx = optax.chain(optax.trace(0.9), self.ALL[name](), after())
        state = tx.init(PARAMS)
        warning = only(diagnose(PARAMS, 0.75, state))
        assert warning.startswith(f"{name} ")
        assert "stands before an optimizer, or before its learning rate" in warning
        assert warning.endswith(f"Put it last: optax.chain(optimizer, {name}(...)).")

    @pytest.mark.parametrize("name", ALL)
    @pytest.mark.parametrize(
        "wrap",
        [
            lambda tx: optax.chain(optax.adam(1e-3), tx),
            lambda tx: optax.chain(optax.sgd(0.1), tx, optax.identity()),
            lambda tx: optax.chain(optax.adam(1e-3), tx, keep_pruned()),
            lambda tx: optax.MultiSteps(optax.chain(optax.adam(1e-3), tx), 1),
            lambda tx: optax.chain(optax.adam(1e-3), optax.zero_nans(), tx),
            lambda tx: optax.chain(
                optax.adam(1e-3), optax.masked(tx, {"kernel": True})
            ),
        ],
    )
    def test_no_alarm(self, name, wrap):
        params, state = trained(wrap(self.ALL[name]()), steps=60)
        assert diagnose(params, 0.75, state) == ()

    def test_a_learning_rate_of_a_number_shows_in_the_zeros(self):
        # A scale has no state, but undoes the zeros: the state says 75 %.
        tx = optax.chain(
            optax.scale_by_adam(), sparsify(), optax.scale_by_learning_rate(0.1)
        )
        params, state = trained(tx, steps=60)
        warning = only(diagnose(params, 0.75, state))
        assert warning.startswith("sparsify left a sparsity of 0.75 at its last step, ")
        assert "the parameters have 0: what stands after it in the chain" in warning


class TestRise:
    def test_the_run_ends_before_the_target_is_reached(self):
        state = sparsify(1000, end=700).init(PARAMS)
        assert only(diagnose(PARAMS, 0.75, state, total_steps=699)) == (
            "sparsify reaches its target at step 700, but the run ends at step 699. "
            "Tell it the length of the run: sparsify(..., total_steps=699)."
        )
        assert diagnose(PARAMS, 0.75, state, total_steps=700) == ()
        assert diagnose(PARAMS, 0.75, state, total_steps=2000) == ()
        assert diagnose(PARAMS, 0.75, state) == ()

    def test_going_on_past_the_end_is_fine(self):
        tx = optax.chain(optax.sgd(0.1), sparsify(10, end=5))
        params, state = trained(tx, steps=15)
        assert diagnose(params, 0.75, state) == ()

    def test_zeros_that_are_gone(self):
        tx = optax.chain(optax.sgd(0.1), sparsify(10, end=5))
        params, state = trained(tx, steps=6)
        averaged = jax.tree.map(lambda a, b: (a + b) / 2, params, PARAMS)
        warning = only(diagnose(averaged, 0.75, state))
        assert (
            "left a sparsity of 0.75 at its last step, and the parameters have 0:"
            in (warning)
        )
        assert "prune(params, target)" in warning
        assert diagnose(params, 0.75, state) == ()
        # While the sparsity rises they are not missed yet.
        _, state = trained(tx, steps=4)
        assert not any("left a" in w for w in diagnose(averaged, 0.75, state))

    @pytest.mark.parametrize(
        ("count", "pace", "is_warned"),
        [
            # What is left of 100 steps, times the pace, against 13 / 85 = 0.153.
            (40, 0.0025, True),  # 60 * 0.0025 = 0.15
            (40, 0.0026, False),  # 0.156
            (9, 0.0001, False),  # the first tenth may be a warmup
            (10, 0.0001, True),  # 0.009
            (50, 0.0001, False),  # the target is reached
            (40, 0.0, False),  # unknown
        ],
    )
    def test_weights_that_hardly_move(self, count, pace, is_warned):
        state = sparsify(100, end=50).init(PARAMS)
        state = state._replace(
            count=jnp.int32(count), relative_update=jnp.float32(pace)
        )
        warnings = diagnose(PARAMS, 0.75, (state,))
        warnings = [text for text in warnings if "hardly move" in text]
        assert len(warnings) == is_warned
        if is_warned:
            assert f"the {100 - count} steps that are left" in warnings[0]
            assert "still takes 0.15 of it" in warnings[0]
            assert "raise the learning rate, or train for more steps" in warnings[0]

    def test_a_longer_run_lets_them_move(self):
        state = sparsify(100, end=50).init(PARAMS)
        state = state._replace(count=jnp.int32(40), relative_update=jnp.float32(0.0025))
        # 62 * 0.0025 = 0.155
        texts = diagnose(PARAMS, 0.75, state, total_steps=102)
        assert not any("hardly move" in text for text in texts)

    def test_a_schedule_that_is_not_done(self):
        # At step 50 of 100: 0.75 (1 - 0.5 ** 3) = 0.656, of four weights 2.
        target = swd_jax.Target(swd_jax.cubic_sparsity(0.75, 0, 100))
        state = methods.magnitude_pruning(target).init(PARAMS)
        assert only(diagnose(PARAMS, target, state, total_steps=50)) == (
            "The target's schedule has come to a sparsity of 0.5 at step 50, the end "
            "of the run, and goes on to 0.75. Let it end by step 50, or train for "
            "longer."
        )
        assert diagnose(PARAMS, target, state, total_steps=100) == ()
        assert diagnose(PARAMS, target, state) == ()


class TestPenalty:
    @staticmethod
    def state_at(count):
        state = swd_jax.swd(0.75, weight_decay=0.1, a=2.0).init(PARAMS)
        return state._replace(count=jnp.int32(count), multiplier=jnp.float32(2))

    def test_too_small_at_the_end(self):
        warning = only(diagnose(PARAMS, 0.75, self.state_at(90), total_steps=100))
        assert warning == (
            "At step 90 of 100 pruning would still take 0.15 of the norm of the "
            "weights: the penalty of swd is too small. Raise a_max (the multiplier is "
            "2), or use sparsify, which needs no multiplier."
        )

    def test_no_alarm(self):
        assert diagnose(PARAMS, 0.75, self.state_at(89), total_steps=100) == ()
        assert diagnose(PARAMS, 0.75, self.state_at(90)) == ()
        # At 0.5, 3 and 4 go: 5 / 85 is less than 0.1.
        assert diagnose(PARAMS, 0.5, self.state_at(100), total_steps=100) == ()

    def test_a_leaf_that_the_residual_of_all_hides(self):
        # 0.01 and 3 go: 3 / 5 of the head, 3 of about 1000 of all.
        params = {
            "body": jnp.array([[0.01, 1000.0]]),
            "head": jnp.array([[3.0, 4.0]]),
        }
        state = swd_jax.swd(0.5, weight_decay=0.1, a=2.0).init(params)
        state = state._replace(count=jnp.int32(95))
        assert diagnose(params, 0.5, state) == ()
        warning = only(diagnose(params, 0.5, state, total_steps=100))
        assert "take 0.6 of the norm of 'head', though only 0.003 of" in warning
        assert "prunable=... if it is frozen" in warning


class TestLeaves:
    """Leaves that a chain cannot reach, or that should not be ranked."""

    LAYERS = {
        "a": {"kernel": PARAMS["kernel"]},
        "b": {"kernel": PARAMS["kernel"] + 1},
    }

    def test_that_begin_at_zero(self):
        params = {**self.LAYERS, "lora_b": {"kernel": jnp.zeros((1, 4))}}
        warning = only(diagnose(params, 0.5, swd().init(params)))
        assert warning.startswith("All weights of 'lora_b/kernel' are zero at the st")
        assert "Rank every leaf by itself, scope='local', or leave such" in warning
        local = swd_jax.Target(0.5, scope="local")
        state = swd_jax.swd(local, **SWD).init(params)
        assert diagnose(params, local, state) == ()
        assert diagnose(self.LAYERS, 0.5, swd().init(self.LAYERS)) == ()
        assert diagnose(params, 0.5, sparsify().init(params)) == ()  # no penalty

    def test_that_begin_at_zero_decay_to_zero(self):
        # Its updates of 0.01 never reach the weights of "large", so that it is always
        # selected; by itself it keeps its two larger weights.
        params = {"large": jnp.full((1, 4), 5.0), "lora_b": jnp.zeros((1, 4))}
        gradients = {
            "large": jnp.zeros((1, 4)),
            "lora_b": jnp.array([[-1.0, -2, -3, -4]]),
        }
        for scope, kept in (("global", 0), ("local", 2)):
            target = swd_jax.Target(0.5, scope=scope)
            tx = optax.chain(
                optax.sgd(0.01),
                swd_jax.proximal_swd(
                    target, weight_decay=1.0, a=1e6, learning_rate=0.01
                ),
            )

            @jax.jit
            def run(params, tx=tx):
                def step(_, carry):
                    updates, state = tx.update(gradients, carry[1], carry[0])
                    return optax.apply_updates(carry[0], updates), state

                return jax.lax.fori_loop(0, 20, step, (params, tx.init(params)))[0]

            assert int(jnp.sum(run(params)["lora_b"] > 0.1)) == kept

    @pytest.mark.parametrize(
        ("freeze", "is_warned"),
        [
            (
                lambda tx: optax.partition({"t": tx, "f": optax.set_to_zero()}, LABELS),
                1,
            ),
            (
                lambda tx: optax.chain(
                    optax.masked(tx, {"a": True, "b": False}),
                    optax.masked(optax.set_to_zero(), {"a": False, "b": True}),
                ),
                1,
            ),
            (lambda tx: optax.partition({"t": tx, "f": optax.sgd(0.1)}, LABELS), 0),
            (lambda tx: tx, 0),
        ],
    )
    def test_that_are_frozen(self, freeze, is_warned):
        tx = optax.chain(swd(), freeze(optax.adam(1e-3)))
        warnings = diagnose(self.LAYERS, 0.5, tx.init(self.LAYERS))
        assert len(warnings) == is_warned
        if is_warned:
            assert warnings[0].startswith("No step reaches 'b/kernel', whose updates")
            only_a = swd_jax.Target(0.5, prunable="a/")
            assert diagnose(self.LAYERS, only_a, tx.init(self.LAYERS)) == ()

    @pytest.mark.parametrize(
        ("kernel", "bias", "axis", "is_warned"),
        [
            ((3, 4, 5), (3, 5), -1, True),  # three dense layers
            ((3, 2, 2, 4, 5), (3, 5), -2, True),  # three convolutions
            ((3, 4, 5), (3, 5), 0, False),  # whole layers
            ((3, 4, 5), (5,), -1, False),  # one convolution
            ((3, 4, 5), (4, 5), -1, False),  # attention heads
        ],
    )
    def test_channels_of_stacked_layers(self, kernel, bias, axis, is_warned):
        params = {"layer": {"kernel": jnp.ones(kernel), "bias": jnp.ones(bias)}}
        target = swd_jax.Target(0.2, structure=swd_jax.Channel(axis))
        state = swd_jax.swd(target, **SWD).init(params)
        warnings = diagnose(params, target, state)
        assert len(warnings) == is_warned
        if is_warned:
            assert "'layer/kernel' looks like 3 stacked layers" in warnings[0]

    def test_the_way_out_has_channels_of_each_layer(self):
        # Each column of each layer is a unit: the lowest are column 1 of the first
        # layer and column 0 of the second.
        kernel = jnp.array([[[9.0, 1.0], [9.0, 1.0]], [[2.0, 8.0], [2.0, 8.0]]])
        target = swd_jax.Target(0.5, structure=swd_jax.Block((1, 2, 1)))
        pruned = swd_jax.prune({"kernel": kernel}, target)["kernel"]
        expected = [[[9, 0], [9, 0]], [[0, 8], [0, 8]]]
        np.testing.assert_array_equal(pruned, expected)

    def test_that_are_not_finite(self):
        params = {"a": {"kernel": jnp.full((1, 4), jnp.nan)}, "b": self.LAYERS["b"]}
        state = methods.magnitude_pruning(0.25).init(params)
        warning = only(diagnose(params, 0.25, state))
        assert warning.startswith("4 weights are NaN or infinite, in 'a/kernel'; they")

    def test_steps_that_a_criterion_leaves_out(self):
        target = swd_jax.Target(0.5, criterion="movement")
        tx = swd_jax.swd(target, **SWD)
        _, state = trained(tx, steps=2, gradient=jnp.nan)
        extra_args = {"accumulated": state.selection.accumulated}
        warnings = diagnose(PARAMS, target, state, extra_args=extra_args)
        assert any("At 2 of 2 steps gradients were NaN" in text for text in warnings)


class TestAverages:
    def test_after_schedule_free(self):
        free = optax.contrib.schedule_free(optax.adam(1e-3, b1=0.0), 1e-3)
        state = optax.chain(free, sparsify()).init(PARAMS)
        warning = only(diagnose(PARAMS, 0.75, state))
        assert warning.startswith("sparsify stands after schedule_free")
        inside = optax.contrib.schedule_free(
            optax.chain(optax.adam(1e-3, b1=0.0), sparsify()), 1e-3
        )
        warning = only(diagnose(PARAMS, 0.75, inside.init(PARAMS)))
        assert "prune what schedule_free_eval_params returns" in warning

    @pytest.mark.parametrize("make", [swd, sparsify])
    def test_inside_lookahead(self, make):
        links = [make(), optax.adam(1e-3)][:: 1 if make is swd else -1]
        tx = optax.lookahead(optax.chain(*links), 5, 0.5)
        state = tx.init(optax.LookaheadParams.init_synced(PARAMS))
        warning = only(diagnose(PARAMS, 0.75, state))
        assert warning.startswith(f"{make.__name__} is inside lookahead, which puts")

    def test_swd_before_them_acts_on_what_they_average(self):
        free = optax.contrib.schedule_free(optax.adam(1e-3, b1=0.0), 1e-3)
        assert diagnose(PARAMS, 0.5, optax.chain(swd(), free).init(PARAMS)) == ()


class TestEmptiedLeaves:
    PARAMS = {
        "large": {"kernel": jnp.arange(10.0, 20.0).reshape(2, 5)},
        "small": {"kernel": jnp.arange(1.0, 6.0).reshape(1, 5)},
    }

    def test_by_the_final_target(self):
        # Of 15 weights the schedule ends with 7: all five of "small".
        target = swd_jax.Target(swd_jax.cubic_sparsity(0.5, 0, 100))
        start = methods.magnitude_pruning(target).init(self.PARAMS)
        # Three quarters of k = 7 are 5.25: at step 50 it is 0.4375 * 15, 6, at step 20
        # 0.244 * 15, 3.
        assert diagnose(self.PARAMS, target, start) == ()
        early = start._replace(count=jnp.int32(20))
        assert diagnose(self.PARAMS, target, early) == ()
        state = start._replace(count=jnp.int32(50))
        assert diagnose(self.PARAMS, target, state, total_steps=501) == ()
        assert only(diagnose(self.PARAMS, target, state)) == (
            "The whole target, with the weights as they are now, leaves nothing of "
            "'small/kernel' (5 weights). Keep some of every leaf, Target(..., "
            "min_kept=0.01), or take another criterion or scope."
        )

    def test_the_ways_out_are_ways_out(self):
        for target in (
            swd_jax.Target(0.5, min_kept=0.01),
            swd_jax.Target(0.5, scope="local"),
            swd_jax.Target(0.5, criterion="normalized_magnitude"),
        ):
            state = methods.magnitude_pruning(target).init(self.PARAMS)
            assert diagnose(self.PARAMS, target, state) == ()

    def test_several_are_listed(self):
        params = {str(i): {"kernel": jnp.ones((1, 2)) + i} for i in range(6)}
        params["last"] = {"kernel": jnp.full((1, 8), 100.0)}
        state = methods.magnitude_pruning(0.6).init(params)  # k = 12 of 20
        warning = only(diagnose(params, 0.6, state))
        assert "'0/kernel' (2 weights), '1/kernel' (2 weights), '2/kernel' (2 " in (
            warning
        )
        assert "and 3 more leaves" in warning

    def test_the_latent_weights_are_ranked(self):
        # Both leaves have zeros; in the memory "small" is the larger one.
        tx = swd_jax.sparsify(0.5, 10)
        params = {
            "large": {"kernel": jnp.array([[1.0, 1.1, 1.2, 1.3]])},
            "small": {"kernel": jnp.zeros((1, 4))},
        }
        memory = {
            "large": {"kernel": jnp.zeros((1, 4))},
            "small": {"kernel": jnp.full((1, 4), 9.0)},
        }
        state = tx.init(params)
        state = state._replace(
            count=jnp.int32(9),
            selection=state.selection._replace(selected_fraction=jnp.float32(0.5)),
            memory=memory,
        )
        assert "nothing of 'large/kernel' (4" in only(diagnose(params, 0.5, state))
        # With a memory of nothing it is "small" that goes.
        state = state._replace(memory=jax.tree.map(jnp.zeros_like, memory))
        assert "nothing of 'small/kernel' (4" in only(diagnose(params, 0.5, state))

    @pytest.mark.parametrize(("kept", "is_warned"), [(1, True), (3, False)])
    def test_nearly_emptied(self, kept, is_warned):
        # k = 500 of 1000. "small" keeps 1 or 3 of 500, and all keep 500 of 1000: a
        # hundredth of that share is 2.5 weights.
        small = jnp.full((1, 500), 1.0).at[0, :kept].set(9.0)
        large = jnp.full((1, 500), 5.0).at[0, :kept].set(0.5)
        params = {"large": {"kernel": large}, "small": {"kernel": small}}
        state = methods.magnitude_pruning(0.5).init(params)
        warnings = diagnose(params, 0.5, state)
        assert len(warnings) == is_warned
        if is_warned:
            assert (
                "leaves 1 of the 500 weights of 'small/kernel', but 50.00% of"
                in (warnings[0])
            )

    @pytest.mark.parametrize("make", [swd, sparsify])
    def test_a_new_network_is_given_time(self, make):
        new = {
            "zero": {"kernel": jnp.full((2, 2), 1e-3)},
            "one": {"kernel": jnp.ones((2, 2))},
        }
        params = {**new, "zero": {"kernel": jnp.zeros((2, 2))}}
        start = make().init(params)
        late = start._replace(
            count=jnp.int32(60),
            selection=start.selection._replace(selected_fraction=jnp.float32(0.5)),
        )
        assert diagnose(new, 0.5, start) == ()
        assert diagnose(params, 0.5, late, total_steps=601) == ()
        warnings = diagnose(params, 0.5, late, total_steps=600)
        assert "nothing of 'zero/kernel'" in only(warnings)

    def test_with_coupled_channels_the_way_out_is_min_channels(self):
        def apply(params, x):
            return jax.nn.relu(x @ params["in"]) @ params["out"]

        params = {"in": jnp.ones((3, 4)), "out": jnp.ones((4, 2))}
        x = jax.ShapeDtypeStruct((1, 3), jnp.float32)
        groups = swd_jax.channels.channel_groups(apply, params, x)
        structure = swd_jax.CoupledChannels(groups)  # keeps a channel of each group
        target = swd_jax.Target(0.5, structure=structure)
        state = methods.magnitude_pruning(target).init(params)
        state = state._replace(count=jnp.int32(1))
        assert diagnose(params, target, state) == ()
        dead = {"in": jnp.zeros((3, 4)), "out": jnp.ones((4, 2))}
        warning = only(diagnose(dead, target, state))
        assert "nothing of 'in' (12 weights). Keep some channels of every" in warning
        assert "CoupledChannels(..., min_channels=...)" in warning


class TestSummary:
    def test_prints_the_warnings(self):
        chain = optax.chain(optax.adam(1e-3), swd())
        params, state = trained(chain)
        report = swd_jax.summarize(params, 0.5, state=state)
        assert report.warnings == diagnose(params, 0.5, state)
        assert f"WARNING: {report.warnings[0]}" in str(report)
        assert report.as_dict()["num_warnings"] == 1

    @pytest.mark.parametrize("name", TestPlaceOfPruning.ALL)
    def test_takes_the_state_of_any_pruning(self, name):
        tx = optax.chain(optax.sgd(0.1), TestPlaceOfPruning.ALL[name]())
        report = swd_jax.summarize(PARAMS, 0.75, state=tx.init(PARAMS))
        assert report.warnings == ()
        assert report.largest_stable_learning_rate is None
        assert "WARNING" not in str(report)
        assert "largest_stable_learning_rate" not in report.as_dict()

    def test_says_once_that_a_leaf_is_emptied(self):
        params = TestEmptiedLeaves.PARAMS
        state = methods.magnitude_pruning(0.5).init(params)
        text = str(swd_jax.summarize(params, 0.5, state=state))
        assert text.count("small/kernel'") == 1
        assert text.count("WARNING") == 1

    def test_a_schedule_that_never_settles_is_taken_at_the_step(self):
        target = swd_jax.Target(lambda step: 0.5 + 0.25 * jnp.sin(step))
        state = sparsify().init(PARAMS)._replace(total_steps=jnp.int32(0))
        report = swd_jax.summarize(PARAMS, target, step=0, state=state)
        assert report.warnings == ()


class TestErrors:
    STATE = swd().init(PARAMS)

    @pytest.mark.parametrize("total_steps", [0, -1, 2.5, True])
    def test_total_steps(self, total_steps):
        with pytest.raises(ValueError, match="^total_steps must be a whole number"):
            diagnose(PARAMS, 0.5, self.STATE, total_steps=total_steps)

    @pytest.mark.parametrize("state", [(), optax.adam(0.1).init(PARAMS)])
    def test_no_state_of_this_package(self, state):
        with pytest.raises(ValueError, match="^state holds no state of swd, of sparsi"):
            diagnose(PARAMS, 0.5, state)

    def test_traced_values(self):
        with pytest.raises(ValueError, match="^params are traced.* outside jit"):
            jax.jit(lambda p: diagnose(p, 0.5, self.STATE))(PARAMS)
        with pytest.raises(ValueError, match="^state is traced.* outside jit"):
            jax.jit(lambda s: diagnose(PARAMS, 0.5, s))(self.STATE)

    def test_a_schedule_that_never_settles(self):
        target = swd_jax.Target(lambda step: 0.5 + 0.25 * jnp.sin(step))
        with pytest.raises(ValueError, match="does not settle.* total_steps=..."):
            diagnose(PARAMS, target, self.STATE)
        assert diagnose(PARAMS, target, self.STATE, total_steps=10) == ()

    def test_unknown_extra_arguments(self):
        with pytest.raises(ValueError, match="^extra_args has 'fisher'"):
            diagnose(PARAMS, 0.5, self.STATE, extra_args={"fisher": PARAMS})


def test_states_inside_an_unknown_container_are_found_and_give_no_alarm():
    params, state = trained(optax.chain(optax.adam(1e-3), swd()))
    assert len(diagnose(params, 0.5, {"optimizer": state, "rng": 0})) == 0
    assert len(diagnose(params, 0.5, state)) == 1


def test_a_branch_of_a_partition_is_not_asked_for_the_zeros_of_the_whole():
    params = {"a": {"kernel": PARAMS["kernel"]}, "b": {"kernel": PARAMS["kernel"] + 1}}
    labels = {"a": "sparse", "b": "dense"}
    pruned = optax.chain(optax.sgd(0.1), sparsify(10, end=5))
    tx = optax.partition({"sparse": pruned, "dense": optax.sgd(0.1)}, labels)
    params, state = trained(tx, params, steps=8)
    assert int(of_state(state, methods.LatentState).count) == 8
    assert diagnose(params, 0.75, state) == ()


def test_a_run_of_many_more_steps_than_told_is_warned_of():
    params = {"kernel": jnp.arange(1.0, 17.0).reshape(4, 4)}
    state = swd_jax.sparsify(0.5, total_steps=10).init(params)
    for count, is_warned in ((15, False), (20, True), (5_000, True)):
        later = state._replace(count=jnp.int32(count))
        warnings = swd_jax.diagnose(params, 0.5, later)
        assert any("not of epochs" in warning for warning in warnings) == is_warned
