"""One table: every transformation x every property that users of optax rely on.

A new transformation is a row in `FORMS`; a new property is a test over all of them.
Properties of types are checked by tracing alone, and tests that need the numbers share
one compiled step for each transformation: compiling takes nearly all of the time.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax
from tests.helpers import quickly

# Other tests run the same lines of the library.
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


def params_with_scales(dtype="float32", other_dtype=None):
    params = make_params(dtype, other_dtype)
    rng = np.random.default_rng(1)
    for layer in params.values():
        kernel = layer["kernel"]
        layer["scale"] = jnp.asarray(rng.normal(size=kernel.shape[1]), kernel.dtype)
    return params


A = swd_jax.exponential_growth(a_min=1.0, a_max=100.0, total_steps=STEPS)
DECAY = {"weight_decay": 0.01, "a": 3.0}
SCHEDULED = {
    "weight_decay": optax.linear_schedule(0.01, 0.02, STEPS),
    "a": A,
}
RISING = swd_jax.Target(swd_jax.cubic_sparsity(0.75, begin=0, end=STEPS))
ADAM, SGD = optax.adam(0.1), optax.sgd(0.1)


@dataclasses.dataclass(frozen=True)
class Form:
    """One row: how a transformation is made and what the properties need about it.

    Attributes:
      make: a function of the optimizer that returns both combined; how they are
        combined (before, after, round) is the row's own matter.
      params: a function of one or two dtypes that returns the parameters; those of
        the table, unless the transformation needs other leaves.
      changes: paths of the leaves that end up different from those that the optimizer
        alone gives.
      threshold_size: numbers in the largest array of the state that does not mirror
        a leaf of the parameters.
      fraction: name of the share of selected or pruned weights in the state, if any.
      on_part: the row for parameters of which only "first" is left, if another one.
      widens_updates: whether an update of a prunable leaf has the weight's dtype where
        its own has fewer bits.
    """

    make: Callable[[optax.GradientTransformation], optax.GradientTransformation]
    params: Callable[..., Mapping] = make_params
    changes: frozenset[str] = frozenset({"first/kernel", "second/kernel"})
    threshold_size: int = 1
    fraction: str | None = "selected_fraction"
    on_part: "Form | None" = None
    widens_updates: bool = False


def before(tx, **options):
    return Form(lambda optimizer: optax.chain(tx, optimizer), **options)


def after(tx, **options):
    return Form(lambda optimizer: optax.chain(optimizer, tx), **options)


def around(wrap, **options):
    """Return the row of a transformation that wraps the optimizer, as RigL does."""
    return Form(wrap, **options)


@functools.cache
def mask():
    return swd_jax.prune_mask(make_params(), 0.5)


def kept_pruned(part=None):
    """Return `keep_pruned` with the mask of all parameters or of one part."""

    def make(optimizer):
        held = {part: mask()[part]} if part else mask()
        return optax.chain(optimizer, swd_jax.keep_pruned(held))

    return make


# In a step that exchanges weights the optimizer moves no leaf at all.
EVERY_LEAF = frozenset({"first/kernel", "first/bias", "second/kernel"})

FORMS = {
    "swd": before(swd_jax.swd(0.5, **DECAY)),
    "swd local": before(
        swd_jax.swd(swd_jax.Target(0.5, scope="local"), **DECAY), threshold_size=2
    ),
    "swd tolerant, renewed every 3 steps": before(
        swd_jax.swd(
            swd_jax.Target(0.5, scope="local"),
            **DECAY,
            update_every=3,
            tolerance=0.05,
        ),
        threshold_size=2,
    ),
    "swd normalized": before(
        swd_jax.swd(swd_jax.Target(0.5, criterion="normalized_magnitude"), **DECAY)
    ),
    "swd scheduled": before(swd_jax.swd(RISING, **SCHEDULED)),
    "decoupled": after(swd_jax.decoupled_swd(0.5, **DECAY, learning_rate=0.1)),
    "decoupled scheduled": after(
        swd_jax.decoupled_swd(
            RISING, **SCHEDULED, learning_rate=optax.constant_schedule(0.1)
        )
    ),
    "proximal": after(swd_jax.proximal_swd(0.5, **DECAY, learning_rate=0.1)),
    "proximal scheduled": after(
        swd_jax.proximal_swd(
            RISING, **SCHEDULED, learning_rate=optax.constant_schedule(0.1)
        )
    ),
    "keep_pruned": Form(
        kept_pruned(), fraction=None, on_part=Form(kept_pruned("first"), fraction=None)
    ),
    "magnitude_pruning": after(
        swd_jax.methods.magnitude_pruning(RISING, update_every=2)
    ),
    "soft_pruning": after(swd_jax.methods.soft_pruning(0.5, update_every=2)),
    "rigl": around(
        lambda optimizer: swd_jax.methods.rigl(
            optimizer, 0.5, until=100, update_every=3
        ),
        changes=EVERY_LEAF,
        fraction=None,
    ),
    "sparse_evolution": around(
        lambda optimizer: swd_jax.methods.sparse_evolution(
            optimizer, swd_jax.Target(0.5, scope="local"), update_every=3
        ),
        changes=EVERY_LEAF,
        fraction=None,
    ),
    "sparsify": after(swd_jax.sparsify(0.75, total_steps=10), widens_updates=True),
    "sparsify around": around(
        lambda optimizer: swd_jax.sparsify(0.75, total_steps=10, optimizer=optimizer),
        widens_updates=True,
    ),
    "latent_pruning": after(
        swd_jax.methods.latent_pruning(
            dataclasses.replace(
                RISING, scope="local", criterion="normalized_magnitude"
            ),
            forgetting=optax.linear_schedule(0.5, 0.1, STEPS),
            power=3.0,
            max_rescale=2.0,
            memory="bfloat16",
        ),
        threshold_size=2,
        widens_updates=True,
    ),
    "network_slimming": before(
        swd_jax.methods.network_slimming(0.1),
        params=params_with_scales,
        changes=frozenset({"first/scale", "second/scale"}),
        fraction=None,
    ),
}
# All but a few lines of these are the code of the rows before them.
ALIKE = (
    "decoupled scheduled",
    "proximal scheduled",
    "sparse_evolution",
    "latent_pruning",
)
ROWS = [
    pytest.param(form, marks=[pytest.mark.slow] if form in ALIKE else [])
    for form in FORMS
]
every_form = pytest.mark.parametrize("form", ROWS)


@functools.cache
def chained(form, optimizer=ADAM):
    """Return one object for the same arguments, so that its step is compiled once."""
    return FORMS[form].make(optimizer)


def alone(form):
    """Return the transformation with an optimizer that changes nothing."""
    return chained(form, IDENTITY)


IDENTITY = optax.identity()


def gradients(params, step=0):
    return jax.tree.map(
        lambda w: (w * 0.3 + jnp.cos(1.0 + step)).astype(w.dtype), params
    )


def one_step(tx, params, state, step):
    updates, state = tx.update(gradients(params, step), state, params)
    return optax.apply_updates(params, updates), state


@functools.cache
def compiled_step(tx):
    """Return a jitted step that donates its arguments, and a list of its traces."""
    traces = []

    @functools.partial(quickly.jit, donate_argnums=(0, 1))
    def step(params, state, i):
        traces.append(i)
        return one_step(tx, params, state, i)

    return step, traces


def trained(tx, params, steps=STEPS):
    """Return parameters and state after some steps in a plain Python loop."""
    step, _ = compiled_step(tx)
    params, state = jax.tree.map(jnp.array, params), tx.init(params)
    for i in range(steps):
        params, state = step(params, state, i)
    return params, state


def types(tree):
    return jax.eval_shape(lambda: tree)


def assert_same_types(first, second):
    """Compare shapes, dtypes and whether dtypes are weak, without any values."""
    chex.assert_trees_all_equal_structs(first, second)
    jax.tree.map(_same_type, types(first), types(second))


def _same_type(a, b):
    assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)


def assert_close(first, second, rtol):
    chex.assert_trees_all_close(first, second, rtol=rtol, atol=rtol)


@every_form
def test_it_changes_what_the_optimizer_does(form):
    row = FORMS[form]
    plain, _ = trained(ADAM, row.params())
    params, _ = trained(chained(form), row.params())
    changed = jax.tree_util.tree_map_with_path(
        lambda path, a, b: (
            jax.tree_util.keystr(path, simple=True, separator="/")
            if bool((np.asarray(a) != b).any())
            else ""
        ),
        plain,
        params,
    )
    # keep_pruned's mask keeps the bias; swd does not prune it.
    assert set(jax.tree.leaves(changed)) - {""} == row.changes


@every_form
def test_under_jit_it_does_the_same(form):
    tx, params = chained(form), FORMS[form].params()
    state = tx.init(params)
    expected, _ = trained(tx, params, steps=2)
    for i in range(2):
        params, state = one_step(tx, params, state, i)
    assert_close(params, expected, rtol=1e-6)


@every_form
def test_under_scan_its_state_is_stable_and_it_does_the_same(form):
    tx, params = chained(form), FORMS[form].params()

    def step(carry, i):
        return one_step(tx, *carry, i), None

    start = (params, tx.init(params))
    scanned, _ = quickly.jit(lambda s: jax.lax.scan(step, s, jnp.arange(STEPS)))(start)
    assert_same_types(scanned, start)
    assert_close(scanned[0], trained(tx, params)[0], rtol=1e-5)


@every_form
def test_under_cond_its_state_is_stable(form):
    """`cond` refuses branches whose types differ."""
    tx, params = alone(form), FORMS[form].params()
    start = tx.init(params)

    def maybe(go, state):
        return jax.lax.cond(
            go,
            lambda: tx.update(gradients(params), state, params),
            lambda: (gradients(params), state),
        )

    _, state = jax.eval_shape(maybe, True, start)
    assert_same_types(state, start)


@every_form
def test_under_vmap_every_member_gets_its_own_threshold(form):
    tx, params = chained(form), FORMS[form].params()
    members = [params, jax.tree.map(lambda w: 5 * w + 1, params)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)

    def stepped(params):
        return one_step(tx, params, tx.init(params), 0)[0]

    together = quickly.jit(jax.vmap(stepped))(stacked)
    apart = [trained(tx, member, steps=1)[0] for member in members]
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *apart)
    assert_close(together, expected, rtol=1e-6)


@every_form
def test_its_buffers_can_be_donated(form):
    """Also those of a fresh state: no two of its scalars may share one buffer."""
    tx, params = chained(form), FORMS[form].params()
    step, _ = compiled_step(tx)
    start = jax.tree.map(jnp.array, params), tx.init(params)
    after_one = step(*start, 0)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(start[0]))
    expected = one_step(tx, params, tx.init(params), 0)
    assert_close(after_one, expected, rtol=1e-6)


@every_form
def test_the_second_call_is_not_traced_again(form):
    tx, params = chained(form), FORMS[form].params()
    step, traces = compiled_step(tx)
    params, state = step(jax.tree.map(jnp.array, params), tx.init(params), 0)
    after_the_first = len(traces)
    step(params, state, 1)
    assert len(traces) == after_the_first


@every_form
def test_after_2_to_the_31_steps_its_count_does_not_wrap_round(form):
    """Nor does Adam's, so that training goes on."""
    tx, params = chained(form), FORMS[form].params()
    last = jnp.int32(2**31 - 1)

    def is_count(path):
        return jax.tree_util.keystr(path[-1:], simple=True) == "count"

    state = jax.tree_util.tree_map_with_path(
        lambda path, leaf: last + 0 if is_count(path) else leaf, tx.init(params)
    )
    step, _ = compiled_step(tx)
    after, state = step(jax.tree.map(jnp.array, params), state, 0)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    counts = [int(leaf) for path, leaf in leaves if is_count(path)]
    assert set(counts) == {2**31 - 1}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((after, state)))
    if form == "swd scheduled":
        found = [
            float(optax.tree_utils.tree_get(state, name))
            for name in ("multiplier", "coefficient", "selected_fraction")
        ]
        # The last values of A, of the weight decay and of RISING, of 72 weights.
        np.testing.assert_allclose(found, [100, 100 * 0.02, 0.75], rtol=1e-6)


ALL_DTYPES = [("float16",), ("bfloat16",), ("float32",), ("float64",)]
MIXED = [("bfloat16", "float32"), ("float32", "float16"), ("float64", "bfloat16")]


@pytest.mark.parametrize("dtypes", ALL_DTYPES + MIXED, ids="+".join)
@every_form
def test_updates_keep_the_dtype_of_every_leaf(form, dtypes):
    tx = alone(form)
    with jax.enable_x64("float64" in dtypes):
        params = FORMS[form].params(*dtypes)
        state = tx.init(params)
        updates, after = jax.eval_shape(tx.update, gradients(params), state, params)
        assert_same_types(updates, params)
        assert_same_types(after, state)


@every_form
def test_updates_of_another_dtype_than_the_weights_keep_theirs(form):
    tx, params = alone(form), FORMS[form].params("bfloat16")
    updates = gradients(FORMS[form].params("float32"))
    found, _ = jax.eval_shape(tx.update, updates, tx.init(params), params)
    assert_same_types(found, updates)


@every_form
def test_it_works_where_types_are_promoted_only_explicitly(form):
    tx, params = alone(form), FORMS[form].params("bfloat16", "float32")
    updates = gradients(FORMS[form].params("bfloat16"))
    with jax.numpy_dtype_promotion("strict"):
        found, _ = jax.eval_shape(tx.update, updates, tx.init(params), params)
    if FORMS[form].widens_updates:
        wide = updates["second"]["kernel"].astype("float32")
        updates = updates | {"second": {"kernel": wide}}
    assert_same_types(found, updates)


@every_form
def test_init_takes_an_empty_tree(form):
    tx = alone(form)
    state = tx.init({})
    updates, after = tx.update({}, state, {})
    assert updates == {}
    assert_same_types(after, state)


@every_form
def test_init_takes_abstract_arrays(form):
    tx, params = alone(form), FORMS[form].params()
    assert_same_types(tx.init(jax.eval_shape(lambda: params)), tx.init(params))


@every_form
def test_its_state_is_that_of_the_parameters_or_a_few_numbers(form):
    """One threshold a leaf at most, and what mirrors the parameters lies as they do."""
    mesh = jax.make_mesh((1,), ("x",))
    lying = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None))
    tx, params = alone(form), jax.device_put(FORMS[form].params(), lying)

    def mirrored(leaf, param):
        if isinstance(leaf, optax.MaskedNode):
            return leaf
        chex.assert_equal_shape([leaf, param])
        assert leaf.sharding.is_equivalent_to(param.sharding, leaf.ndim)
        return leaf

    def number(leaf):
        assert leaf.size <= FORMS[form].threshold_size
        return leaf

    state = tx.init(params)
    optax.tree.map_params(
        tx,
        mirrored,
        state,
        params,
        transform_non_params=number,
        is_leaf=lambda node: isinstance(node, optax.MaskedNode),
    )


@every_form
def test_optax_can_map_over_its_state(form):
    tx, params = chained(form), FORMS[form].params()
    state = tx.init(params)
    mapped = optax.tree.map_params(tx, jnp.zeros_like, state)
    assert_same_types(mapped, state)


@every_form
def test_unknown_extra_arguments_are_ignored(form):
    tx, params = chained(form), FORMS[form].params()
    state = tx.init(params)
    expected, _ = tx.update(gradients(params), state, params)
    got, _ = tx.update(gradients(params), state, params, value=1.0, whatever="else")
    chex.assert_trees_all_equal(got, expected)


@every_form
def test_missing_params_are_named(form):
    tx, params = alone(form), FORMS[form].params()
    with pytest.raises(
        ValueError, match="params is None.*update.updates, state, params"
    ):
        tx.update(gradients(params), tx.init(params))


@every_form
def test_updates_of_another_structure_are_named(form):
    tx, params = alone(form), FORMS[form].params()
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


def on_part(form):
    """Return the transformation for the parameters of "first" alone, with Adam."""
    row = FORMS[form].on_part
    return row.make(ADAM) if row else chained(form)


@every_form
def test_masked_or_in_a_partition_it_leaves_the_rest_alone(form):
    """`optax.partition` masks each of its parts with `optax.masked`."""
    params = FORMS[form].params()
    part = {"first": params["first"]}
    expected, _ = trained(on_part(form), part, steps=2)
    partition = optax.partition(
        {"sparse": chained(form), "dense": SGD},
        {"first": "sparse", "second": "dense"},
    )
    found, _ = trained(partition, params, steps=2)
    assert_close(found["first"], expected["first"], rtol=1e-6)
    dense, _ = trained(SGD, {"second": params["second"]}, steps=2)
    assert_close(found["second"], dense["second"], rtol=1e-6)

    masked = optax.masked(alone(form), {"first": True, "second": False})
    updates, _ = masked.update(gradients(params), masked.init(params), params)
    chex.assert_trees_all_equal(updates["second"], gradients(params)["second"])


@every_form
def test_in_multi_steps_it_counts_optimizer_steps(form):
    """Three equal gradients, accumulated, are one step."""
    params = FORMS[form].params()
    accumulating = optax.MultiSteps(chained(form), every_k_schedule=3)
    state, accumulated = accumulating.init(params), params
    step = quickly.jit(functools.partial(one_step, accumulating))
    for i in range(6):
        accumulated, state = step(accumulated, state, i // 3)
    expected, _ = trained(chained(form), params, steps=2)
    assert_close(accumulated, expected, rtol=1e-5)


@every_form
def test_apply_if_finite_skips_a_step_and_its_state(form):
    params = FORMS[form].params()
    tx = optax.apply_if_finite(chained(form), max_consecutive_errors=3)
    update, state = quickly.jit(tx.update), tx.init(params)
    broken = jax.tree.map(lambda g: g + jnp.nan, gradients(params))
    updates, after = update(broken, state, params)
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, params))
    chex.assert_trees_all_equal(after.inner_state, state.inner_state)
    updates, _ = update(gradients(params), after, params)
    expected, _ = trained(chained(form), params, steps=1)
    assert_close(optax.apply_updates(params, updates), expected, rtol=1e-6)


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
    assert_close(updates, expected, rtol=1e-6)
    assert (np.asarray(updates) != 0).sum() == 29

    state.hyperparams["a"] = jnp.asarray(6.0)
    state.hyperparams["target"] = jnp.asarray(0.5)
    updates, _ = quickly.jit(injected.update)(zero, state, params)
    changed = make(0.5, weight_decay=0.01, a=6.0, **options)
    expected, _ = changed.update(zero, changed.init(params), params)
    assert_close(updates, expected, rtol=1e-6)


@every_factory
def test_a_target_can_be_injected_with_schedules_for_the_numbers(factory):
    make, options = FACTORIES[factory]
    target = swd_jax.Target(0.5, scope="local")
    injected = optax.inject_hyperparams(make)(target, **SCHEDULED, **options)
    plain = make(target, **SCHEDULED, **options)
    assert_close(
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
    assert_close(
        trained(plain, make_params()), trained(scheduled, make_params()), rtol=1e-6
    )


BASES = {
    "sgd": optax.sgd(0.1, momentum=0.9),
    "adam": ADAM,
    "adamw": optax.adamw(1e-2),
    "lion": optax.lion(1e-2),
    "lamb": optax.lamb(1e-2),
    "adafactor": optax.adafactor(1e-2),
    "muon": optax.contrib.muon(1e-2),
}
# A form and an optimizer meet in the updates alone: all of both, not all pairs.
PAIRS = [("swd", base) for base in BASES]
PAIRS += [(form, "adam") for form in FORMS if form not in ("swd", *ALIKE)]


@pytest.mark.parametrize(("form", "base"), PAIRS)
def test_it_chains_with_any_optimizer(form, base):
    row = FORMS[form]
    params = row.params()
    found, state = trained(chained(form, BASES[base]), params, steps=3)
    assert_same_types(found, params)
    chex.assert_tree_all_finite(found)
    if row.fraction:
        assert 0 < float(optax.tree.get(state, row.fraction)) <= 0.75


@pytest.fixture(scope="module")
def no_cached_traces():
    """Forget all traces: jax sees no leak in a function whose trace is cached."""
    jax.clear_caches()


# Last in the file, since it forgets the programs of the tests above. Code that several
# forms share is traced, and checked, with the first of them.
@every_form
@pytest.mark.usefixtures("no_cached_traces")
def test_no_tracer_outlives_its_trace(form):
    tx, params = chained(form), FORMS[form].params()
    with jax.checking_leaks():
        state = jax.eval_shape(tx.init, params)
        jax.eval_shape(tx.update, params, state, params)
