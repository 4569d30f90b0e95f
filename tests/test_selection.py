"""Selection against a sort: random trees, ties, zeros, subnormals, all dtypes."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import swd_jax
from swd_jax import _float_order, _guesses, _positions, _ranking, _sparsity, _wide
from tests import reference

BF16 = ml_dtypes.bfloat16

# Each new combination of shapes and types is compiled, so there are only so many.
FORMS_OF_TREES = [
    [((), np.float32)],
    [((0,), np.float32), ((3, 0), np.float16)],
    [((1,), np.float32), ((0,), BF16), ((7,), np.float32)],
    [((5, 4), np.float16)],
    [((5, 4), BF16), ((5, 4), BF16)],
    [((2, 3, 4), np.float32), ((), np.float16), ((7,), BF16), ((1, 1), np.float32)],
    [((40, 30), np.float32), ((2, 3, 4), np.float32)],
]

# Few values make ties; the others are zeros, subnormals and very large numbers.
MAGNITUDES = [0, 1e-45, 2e-45, 1e-40, 6e-8, 0.5, 1, 1.5, 6e4, 3e38, np.inf, np.nan]
few_values = st.sampled_from(MAGNITUDES).flatmap(lambda m: st.sampled_from([m, -m]))
any_values = st.floats(width=32)
sparsities = st.integers(0, 999).map(lambda i: i / 1000) | st.sampled_from(
    [0, 0.29, 0.5, 0.9, 0.999999]
)


@st.composite
def trees(draw, forms=FORMS_OF_TREES):
    leaves = []
    for shape, dtype in draw(st.sampled_from(forms)):
        values = draw(hnp.arrays(np.float32, shape, elements=few_values | any_values))
        with np.errstate(over="ignore", invalid="ignore"):
            leaves.append(values.astype(dtype))
    return leaves


def everything(sparsity, **options):
    return swd_jax.Target(sparsity, prunable=lambda path, leaf: True, **options)


thresholds_of = jax.jit(lambda ranking, counts: ranking.thresholds(counts))
below = jax.jit(lambda ranking, limits: ranking.below(limits))


def selected(leaves, target):
    """What swd would decay now, and how many that is in each group."""
    _, _, ranking = _ranking.rank(leaves, target)
    limits, counts, _ = thresholds_of(ranking, ranking.counts(exact(target.sparsity)))
    masks = [np.asarray(mask) for mask in below(ranking, limits)]
    return masks, [_wide.to_int(row) for row in counts]


def exact(sparsity):
    return Fraction(str(sparsity))


@settings(max_examples=1000)
@given(trees(), sparsities)
def test_the_selection_is_that_of_a_sort(leaves, sparsity):
    masks, counts = selected(leaves, everything(sparsity))
    expected = reference.selected(leaves, sparsity)
    for mask, want in zip(masks, expected, strict=True):
        np.testing.assert_array_equal(mask, want)
    if sum(map(np.size, leaves)):
        assert counts == [sum(int(want.sum()) for want in expected)]


@given(trees(), sparsities)
def test_a_local_selection_is_that_of_a_sort_of_each_leaf(leaves, sparsity):
    masks, counts = selected(leaves, everything(sparsity, scope="local"))
    for mask, count, leaf in zip(masks, counts, leaves, strict=True):
        [want] = reference.selected([leaf], sparsity)
        np.testing.assert_array_equal(mask, want)
        assert count == want.sum()


FORMS_WITH_FLOAT64 = [
    [((5, 4), np.float64)],
    [((5, 4), np.float64), ((40, 30), np.float32), ((7,), BF16), ((7,), np.float16)],
]


@given(trees(FORMS_WITH_FLOAT64), sparsities)
def test_float64_leaves_are_ranked_with_the_others(leaves, sparsity):
    with jax.enable_x64(True):
        masks, _ = selected(leaves, everything(sparsity))
    for mask, want in zip(masks, reference.selected(leaves, sparsity), strict=True):
        np.testing.assert_array_equal(mask, want)


@given(trees(), sparsities)
def test_what_is_not_finite_is_never_selected(leaves, sparsity):
    masks, _ = selected(leaves, everything(sparsity))
    for mask, leaf in zip(masks, leaves, strict=True):
        assert not (mask & ~np.isfinite(leaf)).any()


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_a_hundred_thousand_weights(dtype, sparsity):
    rng = np.random.default_rng(1)
    shapes = [(3, 3, 16, 32), (300, 200), (41, 1000)]
    leaves = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    masks, _ = selected(leaves, everything(sparsity))
    for mask, want in zip(masks, reference.selected(leaves, sparsity), strict=True):
        np.testing.assert_array_equal(mask, want)


def test_thresholds_are_kept_where_they_are_not_renewed():
    leaves = [jnp.array([1.0, 2.0, 3.0, 4.0])]
    _, _, ranking = _ranking.rank(leaves, everything(0.5))
    counts = ranking.counts(Fraction(1, 2))
    last = _guesses.Last(jnp.array([3.5]), jnp.array([0.0]))
    for renew, threshold, count in [(True, 3.0, 2), (False, 3.5, 3)]:
        got, below, _ = jax.jit(ranking.thresholds)(
            counts, last=last, renew=jnp.array(renew)
        )
        assert float(_float_order.from_key(got[0], jnp.float32)) == threshold
        assert _wide.to_int(below[0]) == count


SHAPES_OF_MASKS = [
    [()],
    [(0,)],
    [(1,), (3, 0)],
    [(7,), (), (2, 3, 4)],
    [(5, 4), (40, 30), (1, 1)],
]


@jax.jit
def cutoffs_of(masks, quotas):
    shapes = [mask.shape for mask in masks]
    return _positions.position_cutoffs(lambda mask: mask, masks, shapes, quotas)


@settings(max_examples=50)
@given(st.sampled_from(SHAPES_OF_MASKS), st.data())
def test_cutoffs_take_the_first_of_each_leaf(shapes, data):
    masks = [data.draw(hnp.arrays(bool, shape)) for shape in shapes]
    quotas = [data.draw(st.integers(0, int(mask.sum()))) for mask in masks]
    wide = jnp.stack([jnp.asarray(_wide.from_int(quota)) for quota in quotas])
    cutoffs = cutoffs_of([jnp.asarray(mask) for mask in masks], wide)
    for mask, quota, cutoff in zip(masks, quotas, cutoffs, strict=True):
        before = np.asarray(_positions.is_before(mask.shape, cutoff))
        first = (np.cumsum(mask) <= quota).reshape(mask.shape) & mask
        if any(quotas):
            np.testing.assert_array_equal(before & mask, first)
        else:
            assert not before.any()


def equations(jaxpr):
    """All equations of a jaxpr and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, list | tuple) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


GATHERING = {
    "sort",
    "top_k",
    "cumsum",
    "scatter-add",
    "concatenate",
    "gather",
    "reshape",
}


@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("criterion", ["magnitude", "normalized_magnitude"])
def test_no_weight_is_sorted_gathered_or_copied_into_a_whole(scope, criterion):
    leaves = [jnp.ones((64, 50)), jnp.ones((3, 3, 8, 16)), jnp.ones((100, 100))]
    target = everything(0.9, scope=scope, criterion=criterion)
    functions = [
        lambda p: swd_jax.prune(p, target),
        lambda p: swd_jax.prune_mask(p, target),
    ]
    tx = swd_jax.swd(target, weight_decay=1e-3, a=1.0)
    functions.append(lambda p: tx.update(p, tx.init(p), p))
    for function in functions:
        for equation in equations(jax.make_jaxpr(function)(leaves).jaxpr):
            if equation.primitive.name in GATHERING:
                assert all(value.aval.size < 1000 for value in equation.invars), (
                    equation
                )


DECAY = {"weight_decay": 1e-3, "a": 1.0}
FORMS = {
    "swd": swd_jax.swd(0.9, **DECAY),
    "renewed every 10 steps": swd_jax.swd(0.9, **DECAY, update_every=10),
    "local": swd_jax.swd(swd_jax.Target(0.9, scope="local"), **DECAY),
    "normalized": swd_jax.swd(
        swd_jax.Target(0.9, criterion="normalized_magnitude"), **DECAY
    ),
    "proximal": swd_jax.proximal_swd(0.9, **DECAY, learning_rate=0.1),
}


@pytest.mark.parametrize("donate", [(), (0, 1)], ids=["kept", "donated"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("form", FORMS)
def test_a_step_needs_a_hundredth_of_the_weights_in_temporary_memory(
    form, dtype, donate
):
    shapes = [(500, 1000), (3, 3, 128, 256), (1000, 400)]
    params = [jnp.ones(shape, dtype) for shape in shapes]
    tx = FORMS[form]

    def step(params, state, updates):
        updates, state = tx.update(updates, state, params)
        return jax.tree.map(lambda p, u: p + u, params, updates), state

    compiled = (
        jax.jit(step, donate_argnums=donate)
        .lower(params, tx.init(params), params)
        .compile()
    )
    weights = sum(leaf.nbytes for leaf in params)
    assert compiled.memory_analysis().temp_size_in_bytes < 0.01 * weights


@pytest.mark.parametrize("ties", [False, True])
def test_pruning_needs_a_hundredth_of_the_weights_in_temporary_memory(ties):
    shapes = [(500, 1000), (3, 3, 128, 256), (1000, 400)]
    params = [jnp.zeros(shape) for shape in shapes]
    _, _, ranking = _ranking.rank(params, everything(0.9))

    def zeroed(ranking):
        settled = ranking.settled(ranking.counts(Fraction(9, 10)))
        masks = ranking.exactly(settled, break_ties=ties)
        pairs = zip(ranking.weights, masks, strict=True)
        return [jnp.where(mask, 0.0, leaf) for leaf, mask in pairs]

    compiled = jax.jit(zeroed).lower(ranking).compile()
    weights = sum(leaf.nbytes for leaf in params)
    assert compiled.memory_analysis().temp_size_in_bytes < 0.01 * weights


def test_a_stack_of_layers_past_2_to_the_32_weights_is_traced():
    params = {"kernel": jax.ShapeDtypeStruct((80, 8192, 28672), jnp.bfloat16)}
    tx = swd_jax.swd(0.9, weight_decay=1e-3, a=1.0)
    state = jax.eval_shape(tx.init, params)
    updates, after = jax.eval_shape(tx.update, params, state, params)
    assert updates == params
    assert after == state
    k = _sparsity.pruned_count(Fraction("0.9"), 80 * 8192 * 28672)
    assert _wide.to_int(k) == 80 * 8192 * 28672 * 9 // 10


def test_of_infinite_weights_none_is_selected():
    masks, counts = selected([np.full((3, 3), np.inf, np.float32)], everything(0.9))
    assert counts == [0]
    assert not masks[0].any()
