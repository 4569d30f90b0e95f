"""Pruning for good: exactly the k lowest, ties by order, everything else untouched."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import swd_jax
from tests.helpers import reference

BF16 = ml_dtypes.bfloat16
ALL = {"prunable": ""}  # every path matches, so vectors and numbers are pruned as well

# Each combination of shapes and types is compiled, so there are only so many.
FORMS = [
    [((3, 4), np.float32)],
    [((1,), np.float32), ((0, 2), np.float16), ((2, 3), BF16), ((), np.float32)],
    [((5,), BF16), ((2, 2), BF16)],
    [((7,), np.float16), ((1, 1), np.float32), ((0,), np.float32)],
    [((0,), np.float32)],
]
FORMS_64 = [[((3, 4), np.float64)], [((5,), np.float32), ((2, 3), np.float64)]]

# Few values, so that there are ties everywhere; zeros, subnormals, huge ones.
MAGNITUDES = [0, 1e-45, 1e-40, 6e-8, 0.5, 1, 2, 6e4, 3e38, np.inf, np.nan]
MAGNITUDES_64 = [*MAGNITUDES, 5e-324, 1e-310, 1 + 1e-15, 1e300]


def trees(forms, magnitudes):
    few = st.sampled_from([*magnitudes, *(-m for m in magnitudes)])
    values = few | st.floats(width=32)

    @st.composite
    def tree(draw):
        leaves = []
        for shape, dtype in draw(st.sampled_from(forms)):
            size = int(np.prod(shape))
            flat = draw(st.lists(values, min_size=size, max_size=size))
            with np.errstate(over="ignore"):
                leaves.append(np.array(flat, np.float64).astype(dtype).reshape(shape))
        return leaves

    return tree()


def bits(leaf) -> np.ndarray:
    """The leaf's bit patterns, which tell apart what float comparison does not."""
    leaf = np.asarray(leaf)
    return leaf.view(f"uint{8 * leaf.dtype.itemsize}")


def expected_masks(leaves, sparsity, scope) -> list[np.ndarray]:
    if scope == "global":
        return reference.pruned(leaves, sparsity)
    return [reference.pruned([leaf], sparsity)[0] for leaf in leaves]


def check(leaves, pruned, masks, lost):
    """Kept weights bit for bit, positive zeros for the others, masks that agree."""
    for before, after, mask, gone in zip(leaves, pruned, masks, lost, strict=True):
        assert after.dtype == before.dtype
        assert after.shape == before.shape
        assert mask.dtype == np.bool_
        np.testing.assert_array_equal(np.asarray(mask), ~gone)
        np.testing.assert_array_equal(bits(after), np.where(gone, 0, bits(before)))


sparsities = st.integers(0, 999).map(lambda i: i / 1000) | st.sampled_from(
    [0, 0.5, 0.9]
)


@settings(max_examples=60)
@given(
    leaves=trees(FORMS, MAGNITUDES),
    sparsity=sparsities,
    scope=st.sampled_from(["global", "local"]),
)
def test_zeros_are_the_k_lowest_of_a_stable_sort(leaves, sparsity, scope):
    target = swd_jax.Target(sparsity, scope=scope, **ALL)
    check(
        leaves,
        swd_jax.prune(leaves, target),
        swd_jax.prune_mask(leaves, target),
        expected_masks(leaves, sparsity, scope),
    )


@settings(max_examples=60)
@given(
    leaves=trees(FORMS_64, MAGNITUDES_64),
    sparsity=sparsities,
    scope=st.sampled_from(["global", "local"]),
)
def test_zeros_are_the_k_lowest_in_float64_too(leaves, sparsity, scope):
    target = swd_jax.Target(sparsity, scope=scope, **ALL)
    with jax.enable_x64(True):
        check(
            leaves,
            swd_jax.prune(leaves, target),
            swd_jax.prune_mask(leaves, target),
            expected_masks(leaves, sparsity, scope),
        )


@given(
    leaves=trees([FORMS[1]], [0, 1e-45, 0.5, 1, 2, 3e38]).filter(
        lambda leaves: all(np.isfinite(leaf).all() for leaf in leaves)
    ),
    sparsity=sparsities,
)
def test_of_finite_weights_exactly_n_minus_floor_s_n_are_kept(leaves, sparsity):
    masks = swd_jax.prune_mask(leaves, swd_jax.Target(sparsity, **ALL))
    # 1 + 0 + 6 + 1 = 8 weights.
    kept = sum(int(np.sum(mask)) for mask in masks)
    assert kept == 8 - reference.pruned_count(sparsity, 8)


@given(leaves=trees(FORMS[:3], MAGNITUDES), sparsity=sparsities)
def test_pruning_again_changes_nothing(leaves, sparsity):
    target = swd_jax.Target(sparsity, **ALL)
    once = swd_jax.prune(leaves, target)
    twice = swd_jax.prune(once, target)
    for first, second in zip(once, twice, strict=True):
        np.testing.assert_array_equal(bits(first), bits(second))


@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("criterion", ["magnitude", "normalized_magnitude"])
def test_under_jit_the_result_is_the_same(criterion, scope):
    target = swd_jax.Target(0.4, scope=scope, criterion=criterion)
    rng = np.random.default_rng(0)
    params = {
        "a": rng.standard_normal((6, 7)).astype(np.float32),
        "b": {"bias": np.ones(3, np.float16), "kernel": np.ones((4, 5), np.float16)},
    }

    def both(params):
        return swd_jax.prune(params, target), swd_jax.prune_mask(params, target)

    eager, jitted = both(params), jax.jit(both)(params)
    assert jax.tree.structure(eager) == jax.tree.structure(jitted)
    jax.tree.map(np.testing.assert_array_equal, eager, jitted)


@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("spread", ["wide", "neighbours"])
def test_normalised_scores_prune_exactly_k_under_jit_and_without(spread, scope):
    # Wherever a score is worked out it must have the same last bit, else the threshold
    # and the mask disagree. Many draws, as one in five showed it. (XLA may turn a
    # division by a scalar into a product with its reciprocal, here and not there.)
    target = swd_jax.Target(0.3, criterion="normalized_magnitude", scope=scope)
    jitted = jax.jit(lambda params: swd_jax.prune_mask(params, target))
    rng = np.random.default_rng(0)
    # 77 and 60 weights: floor(0.3 * 137) = 41; floor(23.1) + 18 = 41.
    for _ in range(50):
        params = []
        for shape in ((7, 11), (3, 5, 4)):
            weights = rng.standard_normal(shape)
            if spread == "neighbours":  # float32 numbers with hardly any between them
                weights = 1 + rng.integers(0, 40, shape) * 2.0**-23
            params.append((weights * 10 ** rng.uniform(-3, 3)).astype(np.float32))
        eager, under_jit = swd_jax.prune_mask(params, target), jitted(params)
        assert sum(int(np.sum(~np.asarray(mask))) for mask in eager) == 41
        jax.tree.map(np.testing.assert_array_equal, under_jit, eager)


class TestTies:
    def test_the_first_go_by_row_major_position(self):
        params = {"kernel": jnp.array([[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]])}
        pruned = swd_jax.prune(params, 0.67)["kernel"]  # 4 of 6
        np.testing.assert_array_equal(pruned, [[0, 0, 0], [0, 1, 1]])

    def test_the_first_leafs_go_before_the_seconds(self):
        params = [jnp.ones((2, 2)), jnp.full((1, 1), 0.5), -jnp.ones((2, 2))]
        # 6 of 9: the one half, then the first leaf's four, then one of the third's.
        pruned = swd_jax.prune(params, 0.67)
        np.testing.assert_array_equal(pruned[0], np.zeros((2, 2)))
        np.testing.assert_array_equal(pruned[1], np.zeros((1, 1)))
        np.testing.assert_array_equal(pruned[2], [[0, -1], [-1, -1]])

    def test_do_not_cross_leaves_under_a_local_target(self):
        target = swd_jax.Target(0.5, scope="local")
        pruned = swd_jax.prune([jnp.ones((2, 2)), jnp.ones((1, 3))], target)
        np.testing.assert_array_equal(pruned[0], [[0, 0], [1, 1]])
        np.testing.assert_array_equal(pruned[1], [[0, 1, 1]])  # floor(1.5)

    def test_are_between_magnitudes_whatever_their_types(self):
        # One half in three types, and a bfloat16 just above.
        params = [
            jnp.full((1, 2), 0.5, jnp.bfloat16),
            jnp.array([[0.5, 0.50390625]], jnp.bfloat16),
            jnp.full((1, 2), -0.5, jnp.float16),
            jnp.full((1, 2), 0.5, jnp.float32),
        ]
        masks = swd_jax.prune_mask(params, 0.75)  # 6 of 8; 7 halves
        lost = np.concatenate([~np.asarray(mask) for mask in masks], axis=1)
        np.testing.assert_array_equal(lost, [[1, 1, 1, 0, 1, 1, 1, 0]])

    @pytest.mark.parametrize("sparsity", [0.29, 0.9, 0.99])
    @pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float8_e4m3fn])
    def test_of_hundreds_of_weights_leave_the_exact_count(self, dtype, sparsity):
        rng = np.random.default_rng(3)
        params = [
            jnp.asarray(rng.choice([-2.0, -1.0, -0.5, 0.5, 1.0], shape), dtype)
            for shape in ((40, 30), (20, 20), (1, 7))
        ]
        masks = swd_jax.prune_mask(params, sparsity)
        expected = reference.pruned([np.asarray(leaf) for leaf in params], sparsity)
        for mask, lost in zip(masks, expected, strict=True):
            np.testing.assert_array_equal(~np.asarray(mask), lost)
        zeros = sum(int((leaf == 0).sum()) for leaf in swd_jax.prune(params, sparsity))
        assert zeros == reference.pruned_count(sparsity, 1607)


class TestNotFinite:
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_weights_are_never_pruned_even_if_too_few_others_are_there(self, bad):
        params = {"kernel": jnp.array([[bad, 1.0, bad], [bad, -2.0, bad]])}
        pruned = swd_jax.prune(params, 0.9)["kernel"]  # 5 of 6, but two are finite
        np.testing.assert_array_equal(pruned, [[bad, 0, bad], [bad, 0, bad]])

    def test_weights_count_among_the_n(self):
        # Half of four is two, of which the two finite ones are the lowest.
        params = {"kernel": jnp.array([[np.nan, 1.0, 2.0, np.inf]])}
        pruned = swd_jax.prune(params, 0.5)["kernel"]
        np.testing.assert_array_equal(pruned, [[np.nan, 0, 0, np.inf]])

    def test_weights_do_not_spoil_the_normalised_scores_of_the_others(self):
        # |w| over the norm of the finite ones: 0.6, 0.8 and 0.28, 0.96.
        params = [
            jnp.array([[3.0, np.nan, -4.0]]),
            jnp.array([[0.28, np.inf, 0.96]]),
        ]
        target = swd_jax.Target(0.5, criterion="normalized_magnitude")
        pruned = swd_jax.prune(params, target)  # 3 of 6
        np.testing.assert_array_equal(pruned[0], [[0, np.nan, 0]])
        np.testing.assert_array_equal(pruned[1], np.float32([[0, np.inf, 0.96]]))


class TestSubnormals:
    """CPUs of XLA compare them as zeros; they are pruned in their true order."""

    def test_zeros_go_before_them_and_the_smaller_ones_before_the_larger(self):
        smallest = 1e-45
        values = [[4e-45, 0.0, 2.9e-45, -smallest, 1.0, -0.0]]
        params = {"kernel": np.array(values, np.float32)}
        mask = swd_jax.prune_mask(params, 0.5)["kernel"]  # 3 of 6
        np.testing.assert_array_equal(mask, [[True, False, True, False, True, False]])
        kept = np.asarray(swd_jax.prune(params, 0.5)["kernel"])
        assert kept[0, 0] == np.float32(4e-45)
        assert kept[0, 2] == np.float32(2.9e-45)


class TestSchedules:
    PARAMS = {"kernel": np.arange(1, 11, dtype=np.float32).reshape(2, 5)}
    # 0, 0.1, ... 0.8 at steps 0, 1, ... 8, then 0.8.
    TARGET = swd_jax.Target(lambda step: jnp.minimum(step, 8) / 10)

    @staticmethod
    def zeros(tree) -> int:
        return int(np.sum(np.asarray(tree["kernel"]) == 0))

    def test_without_a_step_prune_to_where_they_settle(self):
        assert self.zeros(swd_jax.prune(self.PARAMS, self.TARGET)) == 8
        assert self.zeros(swd_jax.prune_mask(self.PARAMS, self.TARGET)) == 8

    @pytest.mark.parametrize("step", [0, 3, 7, 100])
    def test_with_a_step_prune_to_the_sparsity_at_it(self, step):
        expected = min(step, 8)
        for given_step in (step, np.int32(step), jnp.int32(step)):
            pruned = swd_jax.prune(self.PARAMS, self.TARGET, step=given_step)
            assert self.zeros(pruned) == expected
        mask = swd_jax.prune_mask(self.PARAMS, self.TARGET, step=step)
        assert self.zeros(mask) == expected

    def test_with_a_traced_step_prune_alike(self):
        traced = jax.jit(lambda p, t: swd_jax.prune(p, self.TARGET, step=t))
        assert [self.zeros(traced(self.PARAMS, t)) for t in (0, 3, 7, 100)] == [
            0,
            3,
            7,
            8,
        ]

    def test_without_a_step_settle_under_jit_as_well(self):
        traced = jax.jit(lambda p: swd_jax.prune(p, self.TARGET))
        assert self.zeros(traced(self.PARAMS)) == 8

    def test_a_number_is_the_same_at_every_step(self):
        for step in (None, 0, 7):
            assert self.zeros(swd_jax.prune(self.PARAMS, 0.5, step=step)) == 5

    def test_a_traced_sparsity_is_in_force(self):
        traced = jax.jit(swd_jax.prune)
        assert [self.zeros(traced(self.PARAMS, s)) for s in (0.0, 0.3, 0.7)] == [
            0,
            3,
            7,
        ]


class TestTree:
    PARAMS = {
        "act": jax.nn.relu,
        "bias": jnp.zeros(2),
        "kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]]),
        "nothing": None,
        "steps": 3,
        "table": jnp.ones((2, 2), jnp.int32),
    }
    TARGET = swd_jax.Target(0.5, prunable="kernel")

    def test_what_is_not_prunable_comes_back_as_the_very_same_object(self):
        pruned = swd_jax.prune(self.PARAMS, self.TARGET)
        assert pruned.keys() == self.PARAMS.keys()
        for name in pruned.keys() - {"kernel"}:
            assert pruned[name] is self.PARAMS[name]
        np.testing.assert_array_equal(pruned["kernel"], [[0, 0], [3, 4]])

    def test_the_parameters_are_not_changed(self):
        kernel = np.ones((2, 2), np.float32)
        swd_jax.prune({"kernel": kernel}, 0.5)
        np.testing.assert_array_equal(kernel, np.ones((2, 2)))

    def test_a_mask_is_true_in_the_shapes_of_what_is_not_prunable(self):
        mask = swd_jax.prune_mask(self.PARAMS, self.TARGET)
        assert mask["act"] is mask["steps"] is True
        assert mask["nothing"] is None
        for name in ("bias", "table"):
            assert mask[name].dtype == np.bool_
            assert mask[name].shape == self.PARAMS[name].shape
            assert mask[name].all()
        np.testing.assert_array_equal(mask["kernel"], [[False, False], [True, True]])

    def test_nodes_that_optax_has_masked_stay_so(self):
        params = {"a": optax.MaskedNode(), "kernel": self.PARAMS["kernel"]}
        assert swd_jax.prune(params, 0.5)["a"] == optax.MaskedNode()
        assert swd_jax.prune_mask(params, 0.5)["a"] == optax.MaskedNode()

    @pytest.mark.parametrize("tree", [{}, (), None, {"act": jax.nn.relu}])
    def test_one_without_arrays_is_an_error(self, tree):
        with pytest.raises(ValueError, match="^params must be a tree of arrays"):
            swd_jax.prune(tree, 0.9)

    def test_prune_is_what_its_mask_keeps(self):
        rng = np.random.default_rng(3)
        params = {"u": rng.standard_normal((9, 9)), "v": rng.standard_normal((5, 4, 3))}
        params = jax.tree.map(lambda w: w.astype(np.float32), params)
        mask, pruned = swd_jax.prune_mask(params, 0.8), swd_jax.prune(params, 0.8)
        for name, weights in params.items():
            kept = np.where(np.asarray(mask[name]), weights, 0)
            np.testing.assert_array_equal(pruned[name], kept)
        # 81 + 60 = 141 weights, floor(112.8) zeros.
        assert sum(int(np.sum(~np.asarray(m))) for m in mask.values()) == 112
