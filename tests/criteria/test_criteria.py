"""Criteria: what a weight scores, and how far scores of different leaves compare."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax
from swd_jax._arrays import leaf_norms, sort_keys
from swd_jax.criteria import _by_name, _criterion

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def reference_norm(weights: np.ndarray) -> float:
    """The L2 norm of the finite weights in float64, scaled lest a square overflow."""
    finite = weights[np.isfinite(weights)].astype(np.float64)
    largest = np.max(np.abs(finite), initial=0)
    return largest * np.sqrt(np.sum((finite / largest) ** 2)) if largest else 0.0


@jax.jit
def norm(weights: jax.Array) -> jax.Array:
    return leaf_norms.l2_norms([weights])[0]


def scores(criterion: swd_jax.criteria.Criterion, weights) -> np.ndarray:
    @jax.jit
    def scored(weights):
        dtype = sort_keys.score_dtype(weights.dtype)
        [statistic] = _criterion.statistics(criterion, [weights], dtype)
        return _criterion.scores(criterion, weights, statistic, {}, dtype)

    return np.asarray(scored(weights))


@pytest.fixture(scope="module")
def weights():
    return np.random.default_rng(0).standard_normal((31, 17)).astype(np.float32)


def test_magnitude_is_the_absolute_value(weights):
    np.testing.assert_array_equal(
        scores(swd_jax.criteria.magnitude, weights),
        np.where(weights < 0, -weights, weights),
    )


def test_normalized_magnitude_is_the_share_of_the_leafs_norm(weights):
    expected = np.abs(weights) / reference_norm(weights)
    np.testing.assert_allclose(
        scores(swd_jax.criteria.normalized_magnitude, weights), expected, rtol=1e-6
    )


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize(
    "criterion",
    [swd_jax.criteria.magnitude, swd_jax.criteria.normalized_magnitude],
    ids=repr,
)
def test_scores_have_at_least_float32(criterion, dtype):
    assert scores(criterion, jnp.ones((2, 3), dtype)).dtype == np.float32


def test_scores_of_float64_weights_have_float64():
    with jax.enable_x64(True):
        third = np.full((2, 3), 1 / 3)
        assert scores(swd_jax.criteria.magnitude, third)[0, 0] == 1 / 3


@pytest.mark.parametrize("shape", [(0, 3), (1,), (), (7, 1), (3, 5, 2), (1000,)])
def test_the_norm_is_numpys_in_any_shape(shape):
    values = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    expected = reference_norm(values)
    assert float(norm(jnp.asarray(values))) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-35, 1e-20, 1.0, 1e20, 1e37])
def test_the_norm_neither_overflows_nor_vanishes(weights, scale):
    # The squares of 1e-35 and 1e37 are no float32 numbers.
    scaled = (weights * np.float32(scale)).astype(np.float32)
    assert float(norm(jnp.asarray(scaled))) == pytest.approx(
        reference_norm(scaled), rel=1e-5
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sparse", [False, True])
def test_the_norm_is_right_to_a_millionth(sparse, seed):
    rng = np.random.default_rng(seed)
    leaf = rng.standard_normal((40, 25)).astype(np.float32) * 10 ** rng.uniform(-30, 30)
    leaf = np.where(rng.random(leaf.shape) < 0.9 * sparse, 0, leaf).astype(np.float32)
    assert float(norm(leaf)) == pytest.approx(reference_norm(leaf), rel=1e-6)


@pytest.mark.parametrize("outlier", [1e2, 1e4, 1e6, 1e30])
def test_beside_an_outlier_the_others_count_nearly_as_much_as_they_should(outlier):
    # A thousand squares are rounded, each by less than 2**-31 of the scale's square,
    # to which the outlier's comes within a factor of 4.
    leaf = np.random.default_rng(3).standard_normal((40, 25)).astype(np.float32)
    leaf[7, 7] = outlier
    bound = 1000 * 2.0**-31 * 4 / 2
    assert float(norm(leaf)) == pytest.approx(reference_norm(leaf), rel=bound + 2e-7)


def test_the_norm_depends_on_no_order_and_no_shape():
    rng = np.random.default_rng(4)
    row = (rng.standard_normal(2400) * 10 ** rng.uniform(-6, 6, 2400)).astype("float32")
    row[5], row[77] = np.nan, np.inf
    shuffled = rng.permutation(row)
    shapes = [(2400,), (60, 40), (2, 3, 400)]
    norms = {norm(some.reshape(s)).item() for some in (row, shuffled) for s in shapes}
    assert len(norms) == 1


def test_the_norm_of_float64_weights_is_a_float64():
    leaf = 1e200 * np.random.default_rng(5).standard_normal((40, 25))
    with jax.enable_x64(True):
        got = norm(jnp.asarray(leaf))
        assert got.dtype == jnp.float64
    assert float(got) == pytest.approx(reference_norm(leaf), rel=1e-6)


def test_the_norm_of_one_weight_is_its_magnitude():
    for weight in (-3.25, 1e-30, 1e30):
        got = float(norm(np.full((1, 1), weight, np.float32)))
        assert got == pytest.approx(abs(weight), rel=1e-6)


def test_the_norm_of_weights_near_the_end_of_the_range():
    # 1.2e38 and 1.6e38: the norm, 2e38, is a float32 still.
    leaf = np.float32([[1.2e38, 1.6e38]])
    assert float(norm(leaf)) == pytest.approx(2e38, rel=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_only_the_magnitude_keeps_the_precision_of_its_weight(dtype):
    # The promise of keeps_precision: of a score only as many bits are used.
    leaf = jnp.asarray(np.random.default_rng(6).standard_normal((30, 20)), dtype)
    unused = 23 - jnp.finfo(dtype).nmant

    def bits(criterion):
        patterns = scores(criterion, leaf).view(np.uint32)
        return bool((patterns % (1 << unused)).any())

    assert swd_jax.criteria.magnitude.keeps_precision
    assert not bits(swd_jax.criteria.magnitude)
    assert not swd_jax.criteria.normalized_magnitude.keeps_precision
    assert bits(swd_jax.criteria.normalized_magnitude) == (unused > 0)


BUILT_IN = [
    swd_jax.criteria.magnitude,
    swd_jax.criteria.normalized_magnitude,
    swd_jax.criteria.rms_normalized_magnitude,
    swd_jax.criteria.lamp,
    swd_jax.criteria.saliency,
    swd_jax.criteria.mean_saliency(),
    swd_jax.criteria.movement,
    swd_jax.criteria.fisher,
    swd_jax.criteria.random_scores(0),
]
BY_WEIGHT = {
    "magnitude",
    "normalized_magnitude",
    "rms_normalized_magnitude",
    "saliency",
    "mean_saliency(0.99)",
    "movement",
    "fisher",
}


@pytest.mark.parametrize("criterion", BUILT_IN, ids=repr)
def test_a_weight_has_the_same_score_among_others(criterion):
    """The promise of by_weight, which two of them cannot make."""
    assert criterion.by_weight == (criterion.name in BY_WEIGHT)
    if not criterion.by_weight:
        return
    rng = np.random.default_rng(8)
    leaf = rng.normal(size=(16, 48)).astype(np.float32)
    extra_args = {
        name: np.abs(rng.normal(size=leaf.shape)).astype(np.float32)
        for name in criterion.evidence
    }
    [statistic] = _criterion.statistics(criterion, [jnp.asarray(leaf)], jnp.float32)

    def scored(weights, extra_args):
        return _criterion.scores(
            criterion, weights, statistic, extra_args, jnp.dtype(jnp.float32)
        )

    def of_parts(leaf, extra_args):
        parts = [
            scored(leaf[i::4], {name: each[i::4] for name, each in extra_args.items()})
            for i in range(4)
        ]
        return jnp.stack(parts, axis=1).reshape(leaf.shape)

    whole = jax.jit(scored)(leaf, extra_args)
    np.testing.assert_array_equal(jax.jit(of_parts)(leaf, extra_args), whole)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_norm_counts_finite_weights_only(bad):
    # sqrt(9 + 16) = 5
    assert float(norm(jnp.array([[3.0, bad], [-4.0, bad]]))) == 5


@pytest.mark.parametrize("leaf", [np.zeros((2, 2)), np.full((2, 2), np.nan)])
def test_a_leaf_without_a_norm_is_not_divided(leaf):
    values = scores(swd_jax.criteria.normalized_magnitude, leaf.astype(np.float32))
    np.testing.assert_array_equal(values, leaf)


def test_a_norm_too_large_for_its_type_counts_as_the_largest_with_a_reciprocal():
    # Five times 3e38 squared: the norm, 6.7e38, is more than a float32 holds. The
    # largest that has a normal reciprocal is 2**126.
    leaf = np.full((5, 1), 3e38, np.float32)
    expected = leaf / np.float32(2.0**126)
    np.testing.assert_allclose(
        scores(swd_jax.criteria.normalized_magnitude, leaf), expected, rtol=1e-6
    )


@pytest.mark.parametrize(
    "criterion",
    [swd_jax.criteria.magnitude, swd_jax.criteria.normalized_magnitude],
    ids=repr,
)
def test_weights_that_are_not_finite_have_scores_that_are_not_finite(criterion):
    values = scores(criterion, jnp.array([[1.0, jnp.nan, jnp.inf, -jnp.inf]]))
    np.testing.assert_array_equal(np.isfinite(values), [[True, False, False, False]])


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_a_leaf_of_any_scale_gets_the_scores_of_its_shares(scale):
    # The norm of 1 and 2 is sqrt(5).
    leaf = np.float32([[1, 2]]) * np.float32(scale)
    expected = np.array([[1, 2]]) / np.sqrt(5)
    values = scores(swd_jax.criteria.normalized_magnitude, leaf)
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_weights_near_the_end_of_the_range_keep_their_order():
    # The norm is a float32, its reciprocal is subnormal and flushed to zero on CPU.
    values = scores(swd_jax.criteria.normalized_magnitude, np.float32([[2e38, 1e38]]))
    assert 0 < values[0, 1] < values[0, 0]


class TestAcrossLeaves:
    """Two leaves with the same weights, one a thousandth (2**-10) of the other."""

    @pytest.fixture
    def params(self):
        large = np.random.default_rng(2).standard_normal((20, 10)).astype(np.float32)
        # Scaled by a power of two, so that all is exact.
        return {"large": large, "small": large * np.float32(2.0**-10)}

    @staticmethod
    def kept(params, criterion, scope="global"):
        target = swd_jax.Target(0.5, criterion=criterion, scope=scope)
        masks = swd_jax.prune_mask(params, target)
        return {name: np.asarray(mask) for name, mask in masks.items()}

    def test_magnitude_takes_from_the_leaf_with_the_smaller_weights(self, params):
        # Half of 400: as many as the small leaf has. A normal number below a
        # thousandth of the others' is rare, and the seed gives none.
        assert np.abs(params["small"]).max() < np.abs(params["large"]).min()
        kept = self.kept(params, "magnitude")
        assert kept["small"].sum() == 0
        assert kept["large"].sum() == 200

    def test_normalized_magnitude_treats_them_alike(self, params):
        kept = self.kept(params, "normalized_magnitude")
        np.testing.assert_array_equal(kept["small"], kept["large"])
        assert kept["small"].sum() == 100

    def test_within_each_leaf_the_criteria_agree(self, params):
        by_magnitude = self.kept(params, "magnitude", scope="local")
        by_share = self.kept(params, "normalized_magnitude", scope="local")
        for name in params:
            np.testing.assert_array_equal(by_magnitude[name], by_share[name])


def test_a_criterion_of_ones_own_ranks_the_weights():
    # Distance to the leaf's mean: of 0, 1, 2, 3, 9 (mean 3) the nearest are 3 and 2.
    distance = swd_jax.criteria.Criterion(
        "distance",
        lambda w, mean: jnp.abs(w - mean),
        statistics=lambda leaves: [jnp.mean(leaf) for leaf in leaves],
    )
    params = {"kernel": jnp.array([[0.0, 1.0, 2.0, 3.0, 9.0]])}
    mask = swd_jax.prune_mask(params, swd_jax.Target(0.4, criterion=distance))
    np.testing.assert_array_equal(mask["kernel"], [[True, True, False, False, True]])


@pytest.mark.parametrize("name", ["magnitude", "normalized_magnitude"])
def test_a_criterion_is_known_by_its_name_and_prints_as_it_is_written(name):
    criterion = getattr(swd_jax, name)
    assert _by_name.as_criterion(name) is criterion
    assert _by_name.as_criterion(criterion) is criterion
    assert repr(criterion) == f"swd_jax.{name}"


@pytest.mark.parametrize("unknown", ["lamb", "Magnitude", "", None, 1, ["x"]])
def test_an_unknown_criterion_is_an_error_that_lists_the_known_ones(unknown):
    with pytest.raises(ValueError, match=r"criterion must be one of .*normalized_mag"):
        swd_jax.Target(0.5, criterion=unknown)


def lost(params, target, **extra_args):
    mask = swd_jax.prune_mask(params, target, **extra_args)
    return jax.tree.map(lambda kept: (~np.asarray(kept)).astype(int).tolist(), mask)


KERNEL = {"kernel": np.array([[1.0, -2.0], [3.0, 4.0]], np.float32)}
GRADIENT = {"kernel": np.array([[4.0, 1.0], [0.5, -0.1]], np.float32)}
# |w g| = 4, 2, 1.5, 0.4: the larger weights matter less.
LEAST_SALIENT = {"kernel": [[0, 0], [1, 1]]}


class TestSaliency:
    TARGET = swd_jax.Target(0.5, criterion=swd_jax.criteria.saliency)

    def test_pruning_takes_where_weight_times_gradient_is_least(self):
        extra_args = {"gradient": GRADIENT}
        assert lost(KERNEL, self.TARGET, extra_args=extra_args) == LEAST_SALIENT
        pruned = swd_jax.prune(KERNEL, self.TARGET, extra_args=extra_args)
        np.testing.assert_array_equal(pruned["kernel"], [[1, -2], [0, 0]])
        assert swd_jax.summarize(KERNEL, self.TARGET, extra_args=extra_args).pruned == 2

    def test_it_is_the_change_of_a_loss_that_is_linear(self):
        """What the first order of Taylor's series means: then there is no other."""
        slopes = np.random.default_rng(7).normal(size=(4, 6)).astype(np.float32)
        weights = np.random.default_rng(8).normal(size=(4, 6)).astype(np.float32)

        def loss(weights):
            return (slopes * weights).sum()

        gradient = jax.grad(loss)(weights)
        changes = np.empty(weights.shape)
        for place in np.ndindex(weights.shape):
            without = weights.copy()
            without[place] = 0
            changes[place] = abs(float(loss(weights) - loss(without)))
        mask = swd_jax.prune_mask(
            {"kernel": weights},
            self.TARGET,
            extra_args={"gradient": {"kernel": gradient}},
        )
        order = np.argsort(changes, axis=None)
        assert set(np.flatnonzero(~mask["kernel"])) == set(order[:12])

    def test_before_the_optimizer_the_updates_are_the_gradient(self):
        tx = swd_jax.swd(self.TARGET, weight_decay=1.0, a=1.0)
        updates, state = jax.jit(tx.update)(GRADIENT, tx.init(KERNEL), KERNEL)
        np.testing.assert_allclose(updates["kernel"], [[4, 1], [3.5, 3.9]])
        assert state.selection.threshold == 2.0

    @pytest.mark.parametrize("form", ["decoupled", "proximal", "pruning"])
    def test_after_it_they_are_an_extra_argument(self, form):
        tx = after_the_optimizer(form, self.TARGET)
        state, zeros = tx.init(KERNEL), jax.tree.map(np.zeros_like, KERNEL)
        updates, _ = tx.update(zeros, state, KERNEL, gradient=GRADIENT)
        moved = jax.tree.map(
            lambda u: (np.asarray(u) != 0).astype(int).tolist(), updates
        )
        assert moved == LEAST_SALIENT
        with pytest.raises(ValueError, match=r"saliency needs gradient.*update\("):
            tx.update(zeros, state, KERNEL)


def after_the_optimizer(form, target):
    if form == "pruning":
        return swd_jax.methods.magnitude_pruning(target)
    make = {"decoupled": swd_jax.decoupled_swd, "proximal": swd_jax.proximal_swd}[form]
    return make(target, weight_decay=0.5, a=1.0, learning_rate=1.0)


def run(tx, gradients, params=KERNEL):
    """Several updates at the same weights; the last state."""
    state = tx.init(params)
    for gradient in gradients:
        updates, state = jax.jit(tx.update)({"kernel": gradient}, state, params)
    return updates, state


GRADIENTS = [
    np.array([[1.0, 1], [1, -1]], np.float32),
    np.array([[1.0, -1], [-2, 1]], np.float32),
]


class TestWhatIsGathered:
    def test_movement_is_the_sum_of_minus_weight_times_gradient(self):
        # w g: 1 -2 3 -4, then 1 2 -6 4. The sums of -w g: -2 0 3 0.
        target = swd_jax.Target(0.25, criterion=swd_jax.criteria.movement)
        tx = swd_jax.swd(target, weight_decay=1.0, a=1.0)
        updates, state = run(tx, GRADIENTS)
        np.testing.assert_array_equal(state.selection.tracked["kernel"], [[-2, 0], [3, 0]])
        # Only the first moved towards zero, and it alone decays.
        np.testing.assert_array_equal(
            updates["kernel"] - GRADIENTS[1], [[1, 0], [0, 0]]
        )
        extra_args = {"tracked": optax.tree_utils.tree_get(state, "tracked")}
        assert lost(KERNEL, target, extra_args=extra_args) == {"kernel": [[1, 0], [0, 0]]}

    def test_weights_that_move_away_from_zero_stay_whatever_their_size(self):
        """One SGD step moves the large weight towards zero and the small one away."""
        params = {"kernel": np.array([[5.0, 0.1]], np.float32)}
        gradient = {"kernel": np.array([[1.0, -1.0]], np.float32)}
        moved = params["kernel"] - 0.05 * gradient["kernel"]
        assert moved[0, 0] < 5
        assert moved[0, 1] > 0.1
        target = swd_jax.Target(0.5, criterion="movement")
        tx = swd_jax.swd(target, weight_decay=1.0, a=1.0)
        _, state = tx.update(gradient, tx.init(params), params)
        extra_args = {"tracked": state.selection.tracked}
        assert lost(params, target, extra_args=extra_args) == {"kernel": [[1, 0]]}

    def test_mean_saliency_is_the_running_mean(self):
        # |w g|: 1 2 3 4, then 1 2 6 4. Halves: .5 1 1.5 2, then .75 1.5 3.75 3.
        target = swd_jax.Target(0.75, criterion=swd_jax.criteria.mean_saliency(0.5))
        tx = swd_jax.swd(target, weight_decay=1.0, a=1.0)
        updates, state = run(tx, GRADIENTS)
        np.testing.assert_array_equal(
            state.selection.tracked["kernel"], [[0.75, 1.5], [3.75, 3.0]]
        )
        np.testing.assert_array_equal(
            updates["kernel"] - GRADIENTS[1], [[1, -2], [0, 4]]
        )

    def test_the_memory_is_a_float32_for_each_weight_that_may_be_pruned(self):
        params = {
            "dense": {"kernel": jnp.ones((6, 4), jnp.bfloat16), "bias": jnp.ones(4)}
        }
        tx = swd_jax.swd(
            swd_jax.Target(0.5, criterion="movement"), weight_decay=1.0, a=1.0
        )
        [tracked] = jax.tree.leaves(tx.init(params).selection.tracked)
        assert tracked.shape == (6, 4)
        assert tracked.dtype == jnp.float32
        # And nothing for a criterion that remembers nothing.
        plain = swd_jax.swd(0.5, weight_decay=1.0, a=1.0).init(params)
        assert jax.tree.leaves(plain.selection.tracked) == []

    @pytest.mark.parametrize("form", ["decoupled", "proximal", "pruning"])
    def test_after_the_optimizer_it_gathers_an_extra_argument(self, form):
        target = swd_jax.Target(0.25, criterion=swd_jax.criteria.movement)
        tx = after_the_optimizer(form, target)
        state, zeros = tx.init(KERNEL), jax.tree.map(np.zeros_like, KERNEL)
        for gradient in GRADIENTS:
            updates, state = tx.update(
                zeros, state, KERNEL, gradient={"kernel": gradient}
            )
        np.testing.assert_array_equal(state.selection.tracked["kernel"], [[-2, 0], [3, 0]])
        np.testing.assert_array_equal(updates["kernel"] != 0, [[1, 0], [0, 0]])
        with pytest.raises(ValueError, match=r"movement gathers gradients: give"):
            tx.update(zeros, state, KERNEL)

    def test_weights_that_are_not_finite_are_kept(self):
        params = {"kernel": np.array([[np.nan, 1, 2, 3]], np.float32)}
        zeros = {"kernel": np.zeros((1, 4), np.float32)}
        target = swd_jax.Target(0.25, criterion="movement")
        assert lost(params, target, extra_args={"tracked": zeros}) == {
            "kernel": [[0, 1, 0, 0]]
        }

    @pytest.mark.parametrize("decay", [1, -0.1, "0.9x", True])
    def test_a_decay_out_of_range_is_an_error(self, decay):
        with pytest.raises(ValueError, match=r"decay must be"):
            swd_jax.criteria.mean_saliency(decay)


class TestFisher:
    TARGET = swd_jax.Target(0.5, criterion=swd_jax.criteria.fisher)

    def test_it_is_the_magnitude_times_the_root_of_the_second_moment(self):
        # |w| sqrt(nu) = 4, 2, 6, 2: the two least go.
        nu = {"kernel": np.array([[16.0, 1], [4, 0.25]], np.float32)}
        extra_args = {"nu": nu}
        assert lost(KERNEL, self.TARGET, extra_args=extra_args) == {
            "kernel": [[0, 1], [0, 1]]
        }

    def test_in_a_chain_it_is_handed_adams_own(self):
        tx = optax.chain(
            swd_jax.swd(self.TARGET, weight_decay=1.0, a=1.0), optax.adam(0.1)
        )

        @jax.jit
        def update(gradient, state):
            nu = optax.tree_utils.tree_get(state, "nu")
            return tx.update(gradient, state, KERNEL, nu=nu)

        _, state = update(GRADIENT, tx.init(KERNEL))
        assert state[0].selection.selected_fraction == 0  # all scores are 0
        _, after = update(GRADIENT, state)
        # nu is 0.001 g^2 after a step without decay: |w g| again.
        assert after[0].selection.selected_fraction == 0.5
        assert float(after[0].selection.threshold) == pytest.approx(2 * 0.001**0.5, rel=1e-6)

    def test_without_it_the_error_says_how_to_hand_it_over(self):
        tx = swd_jax.swd(self.TARGET, weight_decay=1.0, a=1.0)
        with pytest.raises(ValueError, match=r"fisher needs nu.*params, nu=\.\.\."):
            tx.update(GRADIENT, tx.init(KERNEL), KERNEL)
        with pytest.raises(
            ValueError, match=r"fisher needs nu.*extra_args={'nu': \.\.\.}"
        ):
            swd_jax.prune(KERNEL, self.TARGET)


class TestRandomScores:
    PARAMS = {
        "in": np.random.default_rng(9).normal(size=(40, 50)).astype(np.float32),
        "out": np.random.default_rng(10).normal(size=(30, 100)).astype(np.float32),
    }

    def mask(self, seed, params=PARAMS):
        target = swd_jax.Target(0.3, criterion=swd_jax.criteria.random_scores(seed))
        masks = swd_jax.prune_mask(params, target)
        return {name: np.asarray(mask) for name, mask in masks.items()}

    def test_exactly_so_many_go_wherever_the_weights_are(self):
        mask = self.mask(0)
        assert sum((~kept).sum() for kept in mask.values()) == 1500
        # About 0.3 of each leaf, of each row, and of the small weights: 5 deviations.
        for name, leaf in self.PARAMS.items():
            small = np.abs(leaf) < np.median(np.abs(leaf))
            for part in (mask[name], mask[name][small], mask[name][:, ::2]):
                deviation = 5 * np.sqrt(0.21 / part.size)
                assert (~part).mean() == pytest.approx(0.3, abs=deviation)

    def test_it_knows_positions_only(self):
        others = {name: 3 * leaf[::-1] for name, leaf in self.PARAMS.items()}
        for name, mask in self.mask(0, others).items():
            np.testing.assert_array_equal(mask, self.mask(0)[name])

    def test_another_seed_gives_another_choice(self):
        agree = [(self.mask(0)[n] == self.mask(1)[n]).mean() for n in self.PARAMS]
        # Two that know nothing of each other agree on 0.7^2 + 0.3^2.
        np.testing.assert_allclose(agree, 0.58, atol=0.05)

    @pytest.mark.parametrize("seed", [0.5, "1", None, True])
    def test_a_seed_that_is_none_is_an_error(self, seed):
        with pytest.raises(ValueError, match=r"seed must be a whole number, got"):
            swd_jax.criteria.random_scores(seed)


class TestAPlainFunction:
    def test_of_the_weights(self):
        by_square = swd_jax.Target(0.5, criterion=lambda weights: weights**2)
        assert lost(KERNEL, by_square) == lost(KERNEL, swd_jax.Target(0.5))
        closest_to_two = swd_jax.Target(0.25, criterion=lambda w: jnp.abs(w - 2))
        assert lost({"kernel": KERNEL["kernel"] + 0.1}, closest_to_two) == {
            "kernel": [[1, 0], [0, 0]]
        }

    def test_its_further_arguments_say_what_it_needs(self):
        def agreement(weights, gradient, importance):
            return jnp.abs(weights * gradient) * importance

        target = swd_jax.Target(0.5, criterion=agreement)
        importance = {"kernel": np.array([[0.1, 1], [1, 10]], np.float32)}
        tx = swd_jax.swd(target, weight_decay=1.0, a=1.0)
        updates, _ = tx.update(GRADIENT, tx.init(KERNEL), KERNEL, importance=importance)
        # 0.4, 2, 1.5, 4
        moved = np.asarray(updates["kernel"]) != GRADIENT["kernel"]
        np.testing.assert_array_equal(moved, [[1, 0], [1, 0]])
        with pytest.raises(ValueError, match=r"needs importance"):
            tx.update(GRADIENT, tx.init(KERNEL), KERNEL)

    @pytest.mark.parametrize(
        "function", [lambda: 1, lambda *weights: 1, lambda weights, **more: 1]
    )
    def test_whose_arguments_are_not_known_is_an_error(self, function):
        with pytest.raises(ValueError, match=r"must be a function of the weights"):
            swd_jax.Target(0.5, criterion=function)

    def test_that_gives_no_score_for_each_weight_is_an_error(self):
        target = swd_jax.Target(0.5, criterion=jnp.sum)
        with pytest.raises(ValueError, match=r"scores in the shape of the weights"):
            swd_jax.prune(KERNEL, target)


@pytest.mark.parametrize(
    ("extra_args", "message"),
    [
        ({"gradient": GRADIENT, "nu": GRADIENT}, r"extra_args has 'nu'.*needs gradient"),
        ({"gradient": {}}, r"gradient must be a tree like the parameters.*'kernel'"),
        (
            {"gradient": {"kernel": np.ones((3, 2))}},
            r"an array of \(3, 2\) at 'kernel'",
        ),
    ],
)
def test_evidence_that_does_not_fit_is_an_error(extra_args, message):
    target = swd_jax.Target(0.5, criterion="saliency")
    with pytest.raises(ValueError, match=message):
        swd_jax.prune(KERNEL, target, extra_args=extra_args)


def test_a_small_weight_of_a_large_leaf_is_compared_by_its_leafs_typical_size():
    """Where the norm makes weights of large leaves look small, the RMS does not."""
    rng = np.random.default_rng(11)
    params = {
        "small": rng.normal(size=(10, 10)).astype(np.float32),
        "large": 4 * rng.normal(size=(100, 100)).astype(np.float32),
    }

    def shares(criterion):
        mask = swd_jax.prune_mask(params, swd_jax.Target(0.5, criterion=criterion))
        return {name: float((~np.asarray(kept)).mean()) for name, kept in mask.items()}

    alike = shares(swd_jax.criteria.rms_normalized_magnitude)
    assert alike["small"] == pytest.approx(0.5, abs=0.15)
    assert shares(swd_jax.criteria.normalized_magnitude)["small"] < 0.1
    values = scores(swd_jax.criteria.rms_normalized_magnitude, params["large"])
    expected = np.abs(params["large"]) / (reference_norm(params["large"]) / 100)
    np.testing.assert_allclose(values, expected, rtol=1e-6)


class TestLamp:
    def test_it_is_the_share_of_the_squares_that_are_not_smaller(self):
        # Squares 1 4 9 16: 1/30, 4/29, 9/25 and 16/16.
        values = scores(swd_jax.criteria.lamp, np.float32([[-3, 1], [2, -4]]))
        expected = np.sqrt([[9 / 25, 1 / 30], [4 / 29, 1]])
        np.testing.assert_allclose(values, expected, rtol=1e-6)

    def test_weights_that_tie_have_one_score(self):
        # 1 / (1 + 1 + 4) for both.
        values = scores(swd_jax.criteria.lamp, np.float32([[1, -1, 2]]))
        np.testing.assert_allclose(values, [[6**-0.5, 6**-0.5, 1]], rtol=1e-6)

    @pytest.mark.parametrize("scale", [1e-33, 1e-20, 1.0, 1e20, 1e37])
    def test_no_scale_changes_it(self, weights, scale):
        leaf = (weights * np.float32(scale)).astype(np.float32)
        squares = np.sort((leaf.astype(np.float64) / scale) ** 2, axis=None)
        sums = np.cumsum(squares[::-1])[::-1]
        order = np.argsort(np.abs(leaf), axis=None)
        expected = np.empty(leaf.size)
        expected[order] = np.sqrt(squares / sums)
        values = scores(swd_jax.criteria.lamp, leaf)
        np.testing.assert_allclose(values.ravel(), expected, rtol=2e-5)
        np.testing.assert_array_equal(np.argsort(values, axis=None), order)

    def test_a_global_target_takes_by_leaf_as_its_paper_does(self):
        # Scores of 1 2 3 and of 10 10 20: 1/14 4/13 1; 1/6 1/6 1. Three of six go.
        params = {
            "first": np.float32([[1, 2, 3]]),
            "second": np.float32([[10, 10, 20]]),
        }
        assert lost(params, swd_jax.Target(0.5, criterion="lamp")) == {
            "first": [[1, 0, 0]],
            "second": [[1, 1, 0]],
        }

    def test_what_is_not_finite_counts_in_no_sum_and_is_kept(self):
        values = scores(swd_jax.criteria.lamp, np.float32([[np.nan, 3, np.inf, 4]]))
        np.testing.assert_array_equal(np.isfinite(values), [[0, 1, 0, 1]])
        np.testing.assert_allclose(values[0, [1, 3]], [0.6, 1], rtol=1e-6)

    def test_a_leaf_of_zeros_and_one_without_weights(self):
        np.testing.assert_array_equal(
            scores(swd_jax.criteria.lamp, np.zeros((2, 3))), 0
        )
        assert scores(swd_jax.criteria.lamp, np.zeros((0, 3), np.float32)).shape == (
            0,
            3,
        )

    def test_leaves_in_parts_are_refused_by_name(self):
        prune = jax.vmap(
            lambda part: swd_jax.prune(
                part, swd_jax.Target(0.5, criterion="lamp"), axis_name="halves"
            ),
            axis_name="halves",
        )
        with pytest.raises(
            ValueError, match=r"swd_jax.criteria.lamp knows statistics of whole"
        ):
            prune({"kernel": np.ones((2, 2, 2), np.float32)})
