"""One table: every transformation x every property that users of optax rely on.

A new transformation is a row in `FORMS`; a new property is a test over all of them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax
from tests.helpers import quickly

# The library's lines that it runs, other tests run too.
pytestmark = pytest.mark.no_cover

STEPS = 7


def make_params(dtype="float32", other_dtype=None):
    rng = np.random.default_rng(0)
    other_dtype = other_dtype or dtype
    return {
        "first": {
            "kernel": jnp.asarray(rng.normal(size=(8, 6)), dtype),
            "bias": jnp.zeros(6, dtype),
        },
        "second": {"kernel": jnp.asarray(rng.normal(size=(6, 4)), other_dtype)},
    }


MASK = swd_jax.prune_mask(make_params(), 0.5)
A = swd_jax.exponential_growth(a_min=1.0, a_max=100.0, total_steps=STEPS)
DECAY = {"weight_decay": 0.01, "a": 3.0}
SCHEDULED = {
    "weight_decay": optax.linear_schedule(0.01, 0.02, STEPS),
    "a": A,
}
RISING = swd_jax.Target(swd_jax.cubic_sparsity(0.75, begin=0, end=STEPS))

# name: (transformation, whether it goes after the optimizer)
FORMS = {
    "swd": (swd_jax.swd(0.5, **DECAY), False),
    "swd renewed every 3 steps": (swd_jax.swd(0.5, **DECAY, update_every=3), False),
    "swd local": (swd_jax.swd(swd_jax.Target(0.5, scope="local"), **DECAY), False),
    "swd normalized": (
        swd_jax.swd(swd_jax.Target(0.5, criterion="normalized_magnitude"), **DECAY),
        False,
    ),
    "swd scheduled": (swd_jax.swd(RISING, **SCHEDULED), False),
    "decoupled": (swd_jax.decoupled_swd(0.5, **DECAY, learning_rate=0.1), True),
    "decoupled scheduled": (
        swd_jax.decoupled_swd(
            RISING, **SCHEDULED, learning_rate=optax.constant_schedule(0.1)
        ),
        True,
    ),
    "proximal": (swd_jax.proximal_swd(0.5, **DECAY, learning_rate=0.1), True),
    "proximal scheduled": (
        swd_jax.proximal_swd(
            RISING, **SCHEDULED, learning_rate=optax.constant_schedule(0.1)
        ),
        True,
    ),
    "keep_pruned": (swd_jax.keep_pruned(MASK), True),
    "magnitude_pruning": (
        swd_jax.methods.magnitude_pruning(RISING, update_every=2),
        True,
    ),
    "soft_pruning": (swd_jax.methods.soft_pruning(0.5, update_every=2), True),
}
every_form = pytest.mark.parametrize("form", FORMS)

ADAM, SGD = optax.adam(0.1), optax.sgd(0.1)


@functools.cache
def chained(form, optimizer=ADAM):
    """The same object for the same arguments: jax compiles its update once."""
    tx, goes_after = FORMS[form]
    return optax.chain(*((optimizer, tx) if goes_after else (tx, optimizer)))


def gradients(params, step=0):
    return jax.tree.map(
        lambda w: (w * 0.3 + jnp.cos(1.0 + step)).astype(w.dtype), params
    )


def trained(tx, params, steps=STEPS, update=None):
    """Parameters and state after some steps in a plain Python loop."""
    update = update or quickly.jit(tx.update)
    state = tx.init(params)
    for step in range(steps):
        updates, state = update(gradients(params, step), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def types(tree):
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.asarray(x).dtype), tree)


def assert_equal(first, second, rtol=0.0):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol),
        first,
        second,
    )


@every_form
def test_it_changes_what_the_optimizer_does(form):
    plain, _ = trained(ADAM, make_params())
    params, _ = trained(chained(form), make_params())
    changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), plain, params)
    # keep_pruned has a mask that keeps the bias, swd does not prune it.
    assert changed == {
        "first": {"bias": False, "kernel": True},
        "second": {"kernel": True},
    }


@every_form
def test_under_jit_it_does_the_same(form):
    tx = chained(form)
    eager, _ = trained(tx, make_params(), steps=2, update=tx.update)
    jitted, _ = trained(tx, make_params(), steps=2)
    assert_equal(eager, jitted, rtol=1e-6)


@every_form
def test_under_scan_its_state_is_stable_and_it_does_the_same(form):
    tx, params = chained(form), make_params()

    def step(carry, i):
        params, state = carry
        updates, state = tx.update(gradients(params, i), state, params)
        return (optax.apply_updates(params, updates), state), None

    start = (params, tx.init(params))
    scanned, _ = quickly.jit(lambda s: jax.lax.scan(step, s, jnp.arange(STEPS)))(start)
    assert types(scanned) == types(start)
    assert_equal(scanned[0], trained(tx, params)[0], rtol=1e-5)


@every_form
def test_under_cond_its_state_is_stable(form):
    tx, params = FORMS[form][0], make_params()
    state = tx.init(params)

    def maybe(go):
        return jax.lax.cond(
            go,
            lambda: tx.update(gradients(params), state, params),
            lambda: (gradients(params), state),
        )

    assert types(quickly.jit(maybe)(True)) == types(quickly.jit(maybe)(False))


@every_form
def test_under_vmap_every_member_gets_its_own_threshold(form):
    tx = FORMS[form][0]
    params = [make_params(), jax.tree.map(lambda w: 5 * w + 1, make_params())]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)

    def updated(params):
        return tx.update(gradients(params), tx.init(params), params)

    together = quickly.jit(jax.vmap(updated))(stacked)
    apart = jax.tree.map(lambda *x: jnp.stack(x), *map(quickly.jit(updated), params))
    assert_equal(together, apart, rtol=1e-6)


@every_form
def test_its_buffers_can_be_donated(form):
    tx, params = chained(form), make_params()
    expected, _ = trained(tx, params)

    @functools.partial(quickly.jit, donate_argnums=(0, 1))
    def step(params, state, i):
        updates, state = tx.update(gradients(params, i), state, params)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.copy, params)
    state = jax.tree.map(jnp.copy, tx.init(params))
    for i in range(STEPS):
        params, state = step(params, state, i)
    assert_equal(params, expected, rtol=1e-5)


@every_form
def test_a_fresh_state_can_be_donated_at_once(form):
    """No two of its scalars may share one buffer."""
    tx, params = FORMS[form][0], make_params()
    update = quickly.jit(tx.update, donate_argnums=1)
    _, state = update(gradients(params), tx.init(params), params)
    update(gradients(params), state, params)


@every_form
def test_the_second_call_is_not_traced_again(form):
    tx, params, traces = chained(form), make_params(), []

    @quickly.jit
    @functools.wraps(tx.update)  # of the same name, it is the same program: compiled
    def update(updates, state, params):
        traces.append(1)
        return tx.update(updates, state, params)

    trained(tx, params, update=update)
    assert len(traces) == 1


ALL_DTYPES = [("float16",), ("bfloat16",), ("float32",), ("float64",)]
MIXED = [("bfloat16", "float32"), ("float32", "float16"), ("float64", "bfloat16")]


@pytest.mark.parametrize("dtypes", ALL_DTYPES + MIXED, ids="+".join)
@every_form
def test_updates_keep_the_dtype_of_every_leaf(form, dtypes):
    tx = FORMS[form][0]
    with jax.enable_x64("float64" in dtypes):
        params = make_params(*dtypes)
        state = tx.init(params)
        updates, after = quickly.jit(tx.update)(gradients(params), state, params)
        assert types(updates) == types(params)
        assert types(after) == types(state)


@every_form
def test_updates_of_another_dtype_than_the_weights_keep_theirs(form):
    tx, params = FORMS[form][0], make_params("bfloat16")
    updates = gradients(make_params("float32"))
    assert types(tx.update(updates, tx.init(params), params)[0]) == types(updates)


@every_form
def test_it_works_where_types_are_promoted_only_explicitly(form):
    tx, params = FORMS[form][0], make_params("bfloat16", "float32")
    with jax.numpy_dtype_promotion("strict"):
        updates, _ = tx.update(
            gradients(make_params("bfloat16")), tx.init(params), params
        )
    assert types(updates) == types(make_params("bfloat16"))


@every_form
def test_init_takes_an_empty_tree(form):
    tx = FORMS[form][0]
    state = tx.init({})
    updates, after = tx.update({}, state, {})
    assert updates == {}
    assert types(after) == types(state)


@every_form
def test_init_takes_abstract_arrays(form):
    tx, params = FORMS[form][0], make_params()
    abstract = jax.tree.map(lambda w: jax.ShapeDtypeStruct(w.shape, w.dtype), params)
    assert types(tx.init(abstract)) == types(tx.init(params))


@every_form
def test_its_state_holds_scalars_only(form):
    """But for one threshold a leaf, where the target is local."""
    for leaf in jax.tree.leaves(FORMS[form][0].init(make_params())):
        assert leaf.size <= (2 if form == "swd local" else 1)


@every_form
def test_optax_can_map_over_its_state(form):
    tx, params = chained(form), make_params()
    state = tx.init(params)
    mapped = optax.tree.map_params(tx, lambda leaf: leaf + 1, state)
    assert types(mapped) == types(state)


@every_form
def test_unknown_extra_arguments_are_ignored(form):
    tx, params = chained(form), make_params()
    state = tx.init(params)
    expected, _ = tx.update(gradients(params), state, params)
    got, _ = tx.update(gradients(params), state, params, value=1.0, whatever="else")
    assert_equal(got, expected)


@every_form
def test_missing_params_are_named(form):
    tx, params = FORMS[form][0], make_params()
    with pytest.raises(
        ValueError, match="params is None.*update.updates, state, params"
    ):
        tx.update(gradients(params), tx.init(params))


@every_form
def test_updates_of_another_structure_are_named(form):
    tx, params = FORMS[form][0], make_params()
    updates = gradients(params)
    del updates["second"]
    with pytest.raises(ValueError, match=r"updates must.*'second/kernel'"):
        tx.update(updates, tx.init(params), params)
    updates = gradients(params) | {"third": jnp.zeros(3)}
    with pytest.raises(ValueError, match=r"updates must.*'third'"):
        tx.update(updates, tx.init(params), params)
    updates = jax.tree.map(lambda u: u.T, gradients(params))
    with pytest.raises(ValueError, match=r"updates must.*\(6, 8\) at 'first/kernel'"):
        tx.update(updates, tx.init(params), params)


@every_form
def test_masked_it_leaves_the_rest_alone(form):
    tx, params = FORMS[form][0], make_params()
    mask = {"first": True, "second": False}
    masked = optax.masked(tx, mask)
    updates, _ = quickly.jit(masked.update)(
        gradients(params), masked.init(params), params
    )
    np.testing.assert_array_equal(
        updates["second"]["kernel"], gradients(params)["second"]["kernel"]
    )
    alone = {"first": params["first"]}
    if form == "keep_pruned":
        tx = swd_jax.keep_pruned({"first": MASK["first"]})
    expected, _ = tx.update(gradients(alone), tx.init(alone), alone)
    assert_equal(updates["first"], expected["first"], rtol=1e-6)


@every_form
def test_in_a_partition_it_has_its_own_part(form):
    params = make_params()
    tx = optax.partition(
        {"sparse": chained(form), "dense": SGD},
        {"first": "sparse", "second": "dense"},
    )
    after, _ = trained(tx, params)
    dense, _ = trained(SGD, params)
    np.testing.assert_allclose(
        after["second"]["kernel"], dense["second"]["kernel"], rtol=1e-6
    )
    assert (after["first"]["kernel"] != params["first"]["kernel"]).any()


@every_form
def test_in_multi_steps_it_counts_optimizer_steps(form):
    """Three equal gradients, accumulated, are one step."""
    params = make_params()
    accumulating = optax.MultiSteps(chained(form), every_k_schedule=3)
    state, accumulated = accumulating.init(params), params
    update = quickly.jit(accumulating.update)
    for step in range(6):
        same = gradients(accumulated, step // 3)
        updates, state = update(same, state, accumulated)
        accumulated = optax.apply_updates(accumulated, updates)
    expected, _ = trained(chained(form), params, steps=2)
    assert_equal(accumulated, expected, rtol=1e-5)


@every_form
def test_apply_if_finite_skips_a_step_and_its_state(form):
    params = make_params()
    tx = optax.apply_if_finite(chained(form), max_consecutive_errors=3)
    state = tx.init(params)
    broken = jax.tree.map(lambda g: g + jnp.nan, gradients(params))
    updates, after = quickly.jit(tx.update)(broken, state, params)
    assert_equal(updates, jax.tree.map(jnp.zeros_like, params))
    assert_equal(after.inner_state, state.inner_state)
    updates, _ = quickly.jit(tx.update)(gradients(params), after, params)
    expected, _ = quickly.jit(chained(form).update)(
        gradients(params), state.inner_state, params
    )
    assert_equal(updates, expected, rtol=1e-6)


FACTORIES = {
    "swd": (swd_jax.swd, {}),
    "decoupled": (swd_jax.decoupled_swd, {"learning_rate": 0.1}),
    "proximal": (swd_jax.proximal_swd, {"learning_rate": 0.1}),
}
every_factory = pytest.mark.parametrize("factory", FACTORIES)


@every_factory
def test_numbers_can_be_injected_and_changed(factory):
    """0.29 of 100 is 29 also for an injected, traced 0.29."""
    make, options = FACTORIES[factory]
    params = jnp.arange(1.0, 101.0).reshape(10, 10)
    zero = jnp.zeros_like(params)
    injected = optax.inject_hyperparams(make)(0.29, **DECAY, **options)
    state = injected.init(params)
    updates, state = quickly.jit(injected.update)(zero, state, params)
    plain = make(0.29, **DECAY, **options)
    expected, _ = plain.update(zero, plain.init(params), params)
    assert_equal(updates, expected, rtol=1e-6)
    assert (np.asarray(updates) != 0).sum() == 29

    state.hyperparams["a"] = jnp.asarray(6.0)
    state.hyperparams["target"] = jnp.asarray(0.5)
    updates, _ = quickly.jit(injected.update)(zero, state, params)
    changed = make(0.5, weight_decay=0.01, a=6.0, **options)
    expected, _ = changed.update(zero, changed.init(params), params)
    assert_equal(updates, expected, rtol=1e-6)


@every_factory
def test_a_target_can_be_injected_with_schedules_for_the_numbers(factory):
    make, options = FACTORIES[factory]
    target = swd_jax.Target(0.5, scope="local")
    injected = optax.inject_hyperparams(make)(target, **SCHEDULED, **options)
    plain = make(target, **SCHEDULED, **options)
    assert_equal(
        trained(injected, make_params())[0], trained(plain, make_params())[0], rtol=1e-5
    )


@every_factory
def test_constant_schedules_are_numbers(factory):
    make, options = FACTORIES[factory]
    plain = make(0.5, **DECAY, **options)
    schedules = {
        name: optax.constant_schedule(value)
        for name, value in {**DECAY, **options}.items()
    }
    scheduled = make(optax.constant_schedule(0.5), **schedules)
    assert_equal(
        trained(plain, make_params()), trained(scheduled, make_params()), rtol=1e-6
    )


BASES = {
    "sgd": optax.sgd(0.1, momentum=0.9),
    "adam": optax.adam(1e-2),
    "adamw": optax.adamw(1e-2),
    "lion": optax.lion(1e-2),
    "lamb": optax.lamb(1e-2),
    "adafactor": optax.adafactor(1e-2),
    "muon": optax.contrib.muon(1e-2),
}


@pytest.mark.parametrize("base", BASES)
@every_form
def test_it_chains_with_any_optimizer(form, base):
    params = make_params()
    after, state = trained(chained(form, BASES[base]), params, steps=3)
    assert types(after) == types(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    if form != "keep_pruned":
        name = "selected_fraction" if "pruning" in form else "selected_fraction"
        assert 0 < float(optax.tree_utils.tree_get(state, name)) <= 0.75
