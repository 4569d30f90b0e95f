"""`sparsify`: how sparse the parameters are at every step, of any target."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax
from swd_jax._transforms import sparsify as module
from tests.helpers import latent_reference, quickly, reference
from tests.helpers.channel_models import CASES

RNG = np.random.default_rng(0)
SHAPES = {"first": (20, 24), "second": (24, 10)}
PARAMS = {
    name: {
        "kernel": RNG.normal(size=shape).astype(np.float32),
        "bias": np.zeros(shape[1], np.float32),
    }
    for name, shape in SHAPES.items()
}
WANTED = jax.tree.map(lambda w: RNG.normal(size=w.shape).astype(w.dtype), PARAMS)
WEIGHTS = 720
TOTAL = 40
ADAM = optax.adam(0.05)


def gradient(params):
    return jax.tree.map(lambda w, wanted: w - wanted, params, WANTED)


def trained(tx, params=PARAMS, steps=TOTAL, gradient=gradient, extra_args=None):
    """Return the parameters after every step, from the first one on."""

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(
            gradient(params), state, params, **(extra_args or {})
        )
        params = optax.apply_updates(params, updates)
        return (params, state), params

    params = jax.tree.map(jnp.asarray, params)
    run = quickly.jit(lambda carry: jax.lax.scan(step, carry, None, steps))
    (_, state), seen = run((params, tx.init(params)))
    return jax.tree.map(np.asarray, seen), state


def at(seen, i):
    return jax.tree.map(lambda leaf: leaf[i], seen)


def kernels(seen):
    return [layer["kernel"] for layer in seen.values()]


def zeros(seen):
    """Return the number of zeros among the kernels after each step."""
    return sum((kernel == 0).sum(axis=(1, 2)) for kernel in kernels(seen))


def assert_rises(counts, sparsity, begin, end, weights=WEIGHTS):
    """Check for floor(s n) after each step, where s is that of the next one."""
    for i, count in enumerate(counts):
        exact = float(latent_reference.cubic(sparsity, begin, end, i + 1)) * weights
        # The schedule is rounded to float32.
        assert exact - 1 - 1e-3 < count < exact + 1e-3
    final = reference.pruned_count(sparsity, weights)
    np.testing.assert_array_equal(counts[end - 1 :], final)
    np.testing.assert_array_equal(counts[:begin], 0)


def assert_same(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


class TestRise:
    def test_by_default_it_ends_where_the_module_says(self):
        seen, state = trained(optax.chain(ADAM, swd_jax.sparsify(0.9, TOTAL)))
        end = round(module._RISE * TOTAL)
        assert_rises(zeros(seen), 0.9, 0, end)
        assert optax.tree.get(state, "rise_end") == end < TOTAL
        assert optax.tree.get(state, "total_steps") == TOTAL
        assert state[-1].count == TOTAL
        np.testing.assert_allclose(
            optax.tree.get(state, "selected_fraction"), 0.9, rtol=1e-6
        )
        # From there on a checkpoint is a sparse network, to the bit.
        prune = quickly.jit(lambda params: swd_jax.prune(params, 0.9))
        mask_of = quickly.jit(lambda params: swd_jax.prune_mask(params, 0.9))
        for i in range(end - 1, TOTAL):
            params = at(seen, i)
            assert_same(prune(params), params)
            mask = mask_of(params)
            for name in SHAPES:
                np.testing.assert_array_equal(
                    mask[name]["kernel"], params[name]["kernel"] != 0
                )
        # And a weight that is pruned may come back.
        is_zero = seen["first"]["kernel"] == 0
        assert (is_zero[end - 1] & ~is_zero[-1]).any()

    def test_it_may_begin_and_end_where_one_wants(self):
        tx = swd_jax.sparsify(0.8, TOTAL, begin=10, end=30)
        seen, _ = trained(optax.chain(ADAM, tx))
        assert_rises(zeros(seen), 0.8, 10, 30)

    def test_without_an_end_it_rises_over_what_is_left(self):
        tx = swd_jax.sparsify(0.8, TOTAL, begin=20)
        seen, _ = trained(optax.chain(ADAM, tx))
        end = 20 + round(module._RISE * 20)
        assert_rises(zeros(seen), 0.8, 20, end)

    def test_a_single_step_is_enough(self):
        seen, _ = trained(optax.chain(ADAM, swd_jax.sparsify(0.9, 1)), steps=2)
        np.testing.assert_array_equal(zeros(seen), 648)

    @pytest.mark.parametrize("optimizer", [ADAM, optax.sgd(3.0)], ids=["adam", "sgd"])
    def test_before_it_begins_every_bit_is_that_of_the_optimizer(self, optimizer):
        """Also where an update is larger than the weight."""
        tx = optax.chain(optimizer, swd_jax.sparsify(0.9, TOTAL, begin=10))
        for jit in (quickly.jit, jax.jit):

            def run(tx, jit=jit):
                @jit
                def step(params, state):
                    updates, state = tx.update(gradient(params), state, params)
                    return optax.apply_updates(params, updates), state

                params, state = PARAMS, tx.init(PARAMS)
                for _ in range(10):
                    params, state = step(params, state)
                return params, state

            params, state = run(tx)
            assert_same(params, run(optimizer)[0])
            assert not any(map(np.any, jax.tree.leaves(state[-1].memory)))

    def test_a_schedule_of_ones_own_is_used_as_it_is(self):
        """That of the parameters after a step is its value at the next one."""
        steps = swd_jax.schedules.staircase_sparsity(0.75, [3, 7])
        seen, state = trained(optax.chain(ADAM, swd_jax.sparsify(steps, TOTAL)))
        expected = [0, 0, *[360] * 4, *[540] * 34]
        np.testing.assert_array_equal(zeros(seen), expected)
        assert optax.tree.get(state, "rise_end") == 0
        assert optax.tree.get(state, "total_steps") == TOTAL

    def test_every_number_of_a_mapping_rises_by_itself(self):
        own = swd_jax.schedules.staircase_sparsity(0.5, [5])
        target = swd_jax.Target(0.5, scope={"^first": 0.9, "^second": own})
        tx = swd_jax.sparsify(target, TOTAL, begin=2, end=12)
        seen, _ = trained(optax.chain(ADAM, tx))
        first, second = [(k == 0).sum(axis=(1, 2)) for k in kernels(seen)]
        assert_rises(first, 0.9, 2, 12, weights=480)
        np.testing.assert_array_equal(second, [0] * 4 + [120] * 36)

    def test_it_is_latent_pruning_with_the_constants_of_the_module(self):
        rising = swd_jax.cubic_sparsity(0.9, 0, round(module._RISE * TOTAL))
        general = swd_jax.methods.latent_pruning(
            rising,
            forgetting=module._FORGETTING,
            power=module._POWER,
            max_rescale=module._MAX_RESCALE,
        )
        seen, state = trained(optax.chain(ADAM, swd_jax.sparsify(0.9, TOTAL)))
        expected, other = trained(optax.chain(ADAM, general))
        assert_same(seen, expected)
        assert_same(state[-1].memory, other[-1].memory)

    def test_a_leaf_has_the_norm_of_the_latent_weights_that_it_keeps(self):
        seen, state = trained(optax.chain(ADAM, swd_jax.sparsify(0.5, TOTAL)))
        for name in SHAPES:
            weights = seen[name]["kernel"][-1]
            latents = weights + state[-1].memory[name]["kernel"]
            kept = np.where(weights == 0, 0, latents)
            np.testing.assert_allclose(
                np.linalg.norm(weights), np.linalg.norm(kept), rtol=1e-5
            )


@dataclasses.dataclass(frozen=True)
class Diagonals:
    """A structure of a user: weights whose indices have the same sum."""

    def scores(self, scores):
        n, m = scores.shape
        diagonal = jnp.add(*jnp.indices(scores.shape))
        sums = [jnp.where(diagonal == i, scores, 0).max() for i in range(n + m - 1)]
        return jnp.stack(sums)

    def sizes(self, shape):
        return np.bincount(np.add(*np.indices(shape)).ravel()).astype(np.uint32)

    def expand(self, units, shape):
        return units[jnp.add(*jnp.indices(shape))]


# name: target, and the largest number of weights of a unit.
TARGETS = {
    "local": (swd_jax.Target(0.9, scope="local"), 1),
    "erk": (swd_jax.Target(0.8, scope="erk"), 1),
    "mapping": (swd_jax.Target(0.8, scope={"^first": 0.6}), 1),
    "min_kept": (swd_jax.Target(0.9, min_kept=0.3), 1),
    "normalized": (swd_jax.Target(0.9, criterion="normalized_magnitude"), 1),
    "lamp": (swd_jax.Target(0.9, criterion="lamp"), 1),
    "squares": (swd_jax.Target(0.9, criterion=lambda w: w * w), 1),
    "2 of 4": (swd_jax.Target(0.5, structure=swd_jax.NM(2, 4)), 1),
    "blocks": (swd_jax.Target(0.75, structure=swd_jax.Block((2, 2))), 4),
    "outputs": (swd_jax.Target(0.5, structure=swd_jax.Channel(-1)), 24),
    "outputs, local": (
        swd_jax.Target(0.5, structure=swd_jax.Channel(-1), scope="local"),
        24,
    ),
    "diagonals": (swd_jax.Target(0.5, structure=Diagonals()), 20),
    "two": (
        (
            swd_jax.Target(0.9, prunable="^first/kernel"),
            swd_jax.Target(
                0.5,
                prunable="^second/kernel",
                structure=swd_jax.NM(1, 2),
                scope="local",
            ),
        ),
        1,
    ),
}


QUICK = {"min_kept", "blocks", "outputs", "two"}


class TestTargets:
    @pytest.mark.parametrize(
        "name",
        [
            pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK))
            for name in TARGETS
        ],
    )
    def test_at_the_end_pruning_changes_no_bit(self, name):
        target, largest_unit = TARGETS[name]
        tx = optax.chain(ADAM, swd_jax.sparsify(target, 20))
        seen, _ = trained(tx, steps=20)
        params = at(seen, -1)
        assert_same(swd_jax.prune(params, target), params)
        mask = swd_jax.prune_mask(params, target)
        for layer, kept in zip(kernels(params), kernels(mask), strict=True):
            np.testing.assert_array_equal(kept, layer != 0)
        found, wanted = zeros(seen)[-1], swd_jax.summarize(PARAMS, target).pruned
        assert wanted - largest_unit < found < wanted + largest_unit
        assert np.isfinite(np.concatenate([k.ravel() for k in kernels(params)])).all()

    def test_a_criterion_of_the_gradient_needs_the_extra_argument(self):
        target = swd_jax.Target(0.9, criterion="saliency")
        tx = optax.chain(ADAM, swd_jax.sparsify(target, 10))
        with pytest.raises(ValueError, match=r"saliency needs gradient.*update\("):
            tx.update(PARAMS, tx.init(PARAMS), PARAMS)
        seen, _ = trained(tx, steps=10, extra_args={"gradient": WANTED})
        params = at(seen, -1)
        assert zeros(seen)[-1] == 648
        extra_args = {"gradient": WANTED}
        assert_same(swd_jax.prune(params, target, extra_args=extra_args), params)

    def test_what_is_kept_by_a_score_that_may_be_negative_is_not_shrunk(self):
        """The most negative weights go: zeros are hard, and latents are kept whole."""
        signed = swd_jax.criteria.Criterion("value", lambda w, _: w, signed=True)
        target = swd_jax.Target(0.75, criterion=signed)
        tx = optax.chain(optax.identity(), swd_jax.sparsify(target, 1))
        params = jax.tree.map(jnp.asarray, PARAMS)
        nothing = jax.tree.map(jnp.zeros_like, params)
        updates, _ = tx.update(nothing, tx.init(params), params)
        pruned = optax.apply_updates(params, updates)
        flat = np.concatenate([k.ravel() for k in kernels(PARAMS)])
        tau = np.sort(flat)[540]
        for before, after in zip(kernels(PARAMS), kernels(pruned), strict=True):
            np.testing.assert_array_equal(after, np.where(before < tau, 0, before))

    def test_weights_that_n_of_m_never_prunes_do_not_shrink_with_the_others(self):
        row = np.array([[8.0, 7, 1, 2, 5, 6, 3, 4]], np.float32).T
        target = swd_jax.Target(0.5, structure=swd_jax.NM(2, 4))
        tx = swd_jax.sparsify(target, 1)
        params = {"kernel": jnp.asarray(row)}
        updates, _ = tx.update({"kernel": jnp.zeros((8, 1))}, tx.init(params), params)
        pruned = optax.apply_updates(params, updates)["kernel"]
        np.testing.assert_array_equal(pruned, [[8], [7], [0], [0], [5], [6], [0], [0]])

    def test_a_block_is_multiplied_as_a_whole(self):
        target = swd_jax.Target(0.5, structure=swd_jax.Block((2, 2)))
        seen, state = trained(optax.chain(ADAM, swd_jax.sparsify(target, 20)), steps=20)
        weights = seen["first"]["kernel"][-1]
        latents = weights + state[-1].memory["first"]["kernel"]
        ratio = np.where(weights == 0, np.nan, weights / latents)
        blocks = ratio.reshape(10, 2, 12, 2).transpose(0, 2, 1, 3).reshape(-1, 4)
        blocks = blocks[~np.isnan(blocks[:, 0])]
        assert len(blocks) > 10
        np.testing.assert_allclose(blocks, blocks[:, :1].repeat(4, 1), rtol=1e-3)
        assert np.ptp(blocks[:, 0]) > 0.1

    @pytest.mark.parametrize(
        ("name", "scope"),
        [
            ("lenet", "global"),
            pytest.param("lenet", "local", marks=pytest.mark.slow),
            pytest.param("bottlenecks", "local", marks=pytest.mark.slow),
        ],
    )
    def test_coupled_channels_of_a_model_go_in_all_leaves_at_once(self, name, scope):
        groups, params = of_case(name)
        structure = swd_jax.CoupledChannels(groups)
        target = swd_jax.Target(0.5, structure=structure, scope=scope)
        tx = optax.chain(optax.sgd(0.05), swd_jax.sparsify(target, 6))
        wanted = jax.tree.map(
            lambda w: jnp.asarray(RNG.normal(size=w.shape), w.dtype), params
        )
        pull = lambda params: jax.tree.map(lambda w, to: w - to, params, wanted)
        seen, _ = trained(tx, params, steps=6, gradient=pull)
        last = at(seen, -1)
        pruned = swd_jax.prune(last, target)
        if scope == "global":
            assert_same(pruned, last)
        else:
            # Channels at the same place in their groups tie: `prune` goes on to some.
            kept = jax.tree.map(lambda p, w: np.where(p == 0, 0, w), pruned, last)
            assert_same(pruned, kept)
        is_zero = swd_jax.summarize(last, target).zeros
        assert 0 < is_zero <= 0.5 * groups.parameters()
        kept = swd_jax.channels.kept_channels(last, target)
        found = groups.parameters([np.asarray(kept[group.name]) for group in groups])
        total = groups.parameters()
        dearest = max(group.parameters.max() for group in groups)
        assert total / 2 <= found < total / 2 + dearest


@functools.cache
def of_case(name):
    case = CASES[name]()
    with jax.numpy_rank_promotion("allow"):
        groups = swd_jax.channels.channel_groups(case.apply, case.params, case.inputs)
    return groups, case.params


ERRORS = [
    ({"total_steps": 0}, "total_steps must be a whole number of at least 1, got 0"),
    ({"total_steps": 2.5}, r"total_steps must be .*got 2\.5"),
    ({"total_steps": "all"}, "total_steps must be a whole number .*'all'"),
    ({"begin": -1}, "begin must be a whole number of at least 0, got -1"),
    ({"begin": 100}, "begin must be less than total_steps, 100, got 100"),
    ({"begin": 20, "end": 20}, "end must be a step after begin, 20, got 20"),
    ({"end": 0}, "end must be a whole number of at least 1, got 0"),
    ({"end": 101}, "end must be at most total_steps, 100, got 101: the run would"),
    ({"memory": "int32"}, "memory must be a floating-point dtype.*got 'int32'"),
    ({"target": 1.0}, r"sparsity.* must be in \[0, 1\), got 1\.0"),
    ({"target": "much"}, "sparsity.*'much'"),
    (
        {"target": swd_jax.cubic_sparsity(0.9, 0, 9), "begin": 5},
        "begin is 5 and end None, and the sparsity is a schedule.*leave them",
    ),
    (
        {"target": swd_jax.Target(swd_jax.cubic_sparsity(0.9, 0, 9)), "end": 50},
        "begin is 0 and end 50, and the sparsity",
    ),
]


@pytest.mark.parametrize(("options", "message"), ERRORS)
def test_an_argument_that_makes_no_sense_is_named(options, message):
    options = {"target": 0.9, "total_steps": 100, **options}
    with pytest.raises(ValueError, match=message):
        swd_jax.sparsify(**options)


def test_missing_parameters_are_an_error_that_says_who_needs_them():
    tx = swd_jax.sparsify(0.5, 10)
    with pytest.raises(ValueError, match="params is None, but sparsify needs"):
        tx.update(PARAMS, tx.init(PARAMS))


def test_a_mapping_with_a_number_among_schedules_may_still_begin():
    own = swd_jax.cubic_sparsity(0.5, 0, 9)
    target = swd_jax.Target(own, scope={"first": 0.9})
    tx = swd_jax.sparsify(target, 10, begin=5)
    assert tx.init(PARAMS).rise_end == 5 + max(1, round(module._RISE * 5))


def test_a_run_that_is_restored_from_numpy_ends_with_the_same_bits():
    tx = optax.chain(ADAM, swd_jax.sparsify(0.9, TOTAL))

    @quickly.jit
    def step(params, state):
        updates, state = tx.update(gradient(params), state, params)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for i in range(30):
        if i == 17:
            saved = [np.array(leaf) for leaf in jax.tree.leaves((params, state))]
        params, state = step(params, state)
    shapes = jax.eval_shape(lambda: (PARAMS, tx.init(PARAMS)))
    restored = jax.tree.unflatten(jax.tree.structure(shapes), saved)
    for _ in range(17, 30):
        restored = step(*restored)
    assert_same(restored, (params, state))


class TestCost:
    @staticmethod
    def many_leaves(number):
        return {f"leaf_{i}": jax.ShapeDtypeStruct((8, 8), "f4") for i in range(number)}

    def equations(self, tx, number):
        params = self.many_leaves(number)
        state = jax.eval_shape(tx.init, params)
        return num_equations(jax.make_jaxpr(tx.update)(params, state, params).jaxpr)

    def test_a_leaf_is_a_hundred_equations_and_not_more_among_many(self):
        tx = swd_jax.sparsify(0.9, 10)
        few, many = (self.equations(tx, number) for number in (100, 300))
        assert many / 300 < min(110, few / 100)

    def test_it_is_traced_once(self):
        tx = optax.chain(ADAM, swd_jax.sparsify(0.9, 10))
        traces = []

        @quickly.jit
        def step(params, state):
            traces.append(None)
            updates, state = tx.update(gradient(params), state, params)
            return optax.apply_updates(params, updates), state

        params = jax.tree.map(jnp.asarray, PARAMS)
        state = tx.init(params)
        for _ in range(3):
            params, state = step(params, state)
        assert len(traces) == 1

    def test_a_step_holds_few_arrays_like_the_weights(self):
        """Over what `swd` does, of the temporary memory of a compiled step."""
        params = {"kernel": jax.ShapeDtypeStruct((1024, 512), "f4")}
        found = []
        for tx in (
            optax.chain(swd_jax.swd(0.9, weight_decay=1e-4, a=1.0), optax.sgd(0.1)),
            optax.chain(optax.sgd(0.1), swd_jax.sparsify(0.9, 10)),
        ):

            def step(params, state, grads, tx=tx):
                updates, state = tx.update(grads, state, params)
                return optax.apply_updates(params, updates), state

            state = jax.eval_shape(tx.init, params)
            compiled = (
                jax.jit(
                    step,
                    donate_argnums=(0, 1),
                    compiler_options={
                        "xla_backend_optimization_level": 3,
                        **quickly.xla_defaults(),
                    },
                )
                .lower(params, state, params)
                .compile()
            )
            found.append(compiled.memory_analysis().temp_size_in_bytes)
        share = (found[1] - found[0]) / (4 * 1024 * 512)
        assert share < 2.1


def num_equations(jaxpr):
    """Return the number of equations, also of inner programs."""
    total = 0
    for equation in jaxpr.eqns:
        total += 1
        for parameter in jax.tree.leaves(
            equation.params, is_leaf=lambda p: hasattr(p, "eqns")
        ):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                total += num_equations(inner)
    return total


def test_steps_that_are_injected_by_mistake_are_an_error():
    tx = optax.inject_hyperparams(swd_jax.sparsify)(0.5, total_steps=10)
    params = {"kernel": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match="total_steps is traced.*static_args"):
        jax.jit(tx.update)(params, tx.init(params), params)


class TestOwnSchedules:
    """A schedule of the user, in a run of known length."""

    @pytest.mark.parametrize("jump", [1, 777, 5_000, 123_456])
    def test_that_jump_are_warned_of_with_the_step(self, jump):
        schedule = optax.piecewise_constant_schedule(0.0001, {jump: 9000})
        words = rf"rises by 0\.9 in one step, that to {jump:,}:"
        with pytest.warns(UserWarning, match=words):
            swd_jax.sparsify(schedule, 1_000_000)

    def test_that_leave_the_range_in_the_run_are_errors(self):
        def rising(step):
            return 0.9 * step / 1000

        swd_jax.sparsify(rising, 1000)
        with pytest.raises(ValueError, match="in .0, 1. at all steps of the run"):
            swd_jax.sparsify(rising, 2000)

    def test_that_rise_over_many_steps_are_used_as_they_are(self):
        swd_jax.sparsify(swd_jax.cubic_sparsity(0.95, 0, 50), 1000)
        swd_jax.sparsify(optax.linear_schedule(0.0, 0.9, 20), 1000)
        swd_jax.sparsify(optax.constant_schedule(0.9), 1000)
