"""`swd` against an independent implementation of its rule in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax
from tests.helpers import quickly, reference

STEPS = 60
MU = 5e-4
SHAPES = {"first": (30, 20), "second": (20, 20), "third": (20, 5)}


def multiplier(step):
    return 0.1 * (1e3 / 0.1) ** (step / STEPS)


def problem():
    """Weights, and for every step gradients of a noisy quadratic around other ones."""
    rng = np.random.default_rng(7)
    weights = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    goals = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    noise = [
        {name: 0.1 * rng.normal(size=shape) for name, shape in SHAPES.items()}
        for _ in range(STEPS)
    ]
    return weights, goals, noise


class Sgd:
    """Momentum 0.9 and decay 5e-4 on all weights, as torch and optax define them."""

    def __init__(self):
        self.trace = dict.fromkeys(SHAPES, 0.0)

    def update(self, name, gradient, weight, step):
        del step
        self.trace[name] = gradient + 5e-4 * weight + 0.9 * self.trace[name]
        return -0.1 * self.trace[name]


class Adam:
    def __init__(self):
        self.first, self.second = dict.fromkeys(SHAPES, 0.0), dict.fromkeys(SHAPES, 0.0)

    def update(self, name, gradient, weight, step):
        del weight
        self.first[name] = 0.9 * self.first[name] + 0.1 * gradient
        self.second[name] = 0.999 * self.second[name] + 0.001 * gradient**2
        mean = self.first[name] / (1 - 0.9 ** (step + 1))
        square = self.second[name] / (1 - 0.999 ** (step + 1))
        return -1e-2 * mean / (np.sqrt(square) + 1e-8)


OPTIMIZERS = {
    "sgd": (
        Sgd,
        optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9)),
    ),
    "adam": (Adam, optax.adam(1e-2)),
}


def in_numpy(make_optimizer, sparsity, dtype):
    """The rule of the method, step by step, and how many weights each step selects."""
    weights, goals, noise = problem()
    weights = {name: w.astype(dtype).astype(np.float64) for name, w in weights.items()}
    optimizer, counts = make_optimizer(), []
    for step in range(STEPS):
        selected = reference.selected(list(weights.values()), sparsity)
        counts.append(sum(int(mask.sum()) for mask in selected))
        for mask, name in zip(selected, list(weights), strict=True):
            weight = weights[name]
            gradient = weight - goals[name] + noise[step][name]
            gradient = gradient + np.where(mask, multiplier(step) * MU * weight, 0)
            weights[name] = weight + optimizer.update(name, gradient, weight, step)
    return weights, counts


def in_jax(optimizer, sparsity, dtype):
    weights, goals, noise = jax.tree.map(lambda x: jnp.asarray(x, dtype), problem())
    a = swd_jax.exponential_growth(a_min=0.1, a_max=1e3, total_steps=STEPS)
    tx = optax.chain(swd_jax.swd(sparsity, weight_decay=MU, a=a), optimizer)
    state = tx.init(weights)

    @quickly.jit
    def step(weights, state, noise):
        gradients = jax.tree.map(lambda w, g, n: w - g + n, weights, goals, noise)
        updates, state = tx.update(gradients, state, weights)
        return optax.apply_updates(weights, updates), state

    total = sum(w.size for w in weights.values())
    counts = []
    for each in noise:
        weights, state = step(weights, state, each)
        fraction = optax.tree_utils.tree_get(state, "selected_fraction")
        counts.append(round(float(fraction) * total))
    return weights, counts


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sparsity", [0.5, 0.9])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_sixty_steps_agree_with_numpy(name, sparsity, dtype):
    make_optimizer, optimizer = OPTIMIZERS[name]
    expected, expected_counts = in_numpy(make_optimizer, sparsity, dtype)
    with jax.enable_x64(dtype == np.float64):
        got, counts = in_jax(optimizer, sparsity, dtype)
    assert counts == expected_counts
    for leaf in SHAPES:
        # A weight that is nearly zero keeps the rounding of larger ones, and optax
        # works out the exponential schedule in float32 either way.
        rounding = 1e-5 if dtype == np.float32 else 1e-7
        scale = rounding * np.abs(expected[leaf]).max()
        np.testing.assert_allclose(got[leaf], expected[leaf], rtol=1e-5, atol=scale)


def test_the_count_is_exactly_k_and_the_state_tells_it():
    """Of 0.29 of 100 distinct weights 29 are selected; the threshold is the 30th."""
    weights = {"kernel": jnp.arange(1.0, 101.0).reshape(10, 10)}
    tx = optax.chain(swd_jax.swd(0.29, weight_decay=0.5, a=4.0), optax.adam(1e-3))
    _, state = tx.update(weights, tx.init(weights), weights)
    logged = {
        name: float(optax.tree_utils.tree_get(state, name))
        for name in ("multiplier", "coefficient", "threshold", "selected_fraction")
    }
    assert logged == pytest.approx(
        {"multiplier": 4, "coefficient": 2, "threshold": 30, "selected_fraction": 0.29}
    )


def test_only_selected_weights_get_the_decay():
    weights = {"kernel": jnp.array([[1.0, -2.0, 3.0, -4.0]])}
    gradient = {"kernel": jnp.full((1, 4), 0.5)}
    tx = swd_jax.swd(0.5, weight_decay=0.1, a=10.0)
    updates, _ = tx.update(gradient, tx.init(weights), weights)
    # a mu = 1: the two smallest get 1 * w on top of their gradient.
    np.testing.assert_allclose(updates["kernel"], [[1.5, -1.5, 0.5, 0.5]])


def test_ties_at_the_threshold_are_all_kept():
    weights = {"kernel": jnp.array([[1.0, -2.0, 2.0, 2.0, 5.0]])}
    tx = swd_jax.swd(0.6, weight_decay=1.0, a=1.0)
    updates, state = tx.update(weights, tx.init(weights), weights)
    # k = 3, tau = the fourth smallest = 2: only what is strictly below.
    np.testing.assert_array_equal(updates["kernel"], [[2.0, -2.0, 2.0, 2.0, 5.0]])
    assert float(state.selection.selected_fraction) == pytest.approx(0.2)


def bfloat16_ties(sparsity):
    """1,600 weights of three magnitudes, and those strictly below the threshold."""
    rng = np.random.default_rng(3)
    params = [
        jnp.asarray(rng.choice([-2.0, -1.0, -0.5, 0.5, 1.0], shape), jnp.bfloat16)
        for shape in ((40, 30), (20, 20))
    ]
    return params, reference.selected([np.asarray(leaf) for leaf in params], sparsity)


@pytest.mark.parametrize("sparsity", [0.29, 0.9])
def test_of_hundreds_of_bfloat16_ties_none_is_selected(sparsity):
    params, expected = bfloat16_ties(sparsity)
    nothing = jax.tree.map(jnp.zeros_like, params)
    tx = swd_jax.swd(sparsity, weight_decay=1.0, a=1.0)
    updates, state = quickly.jit(tx.update)(nothing, tx.init(params), params)
    for update, selected in zip(updates, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(update) != 0, selected)
    count = sum(int(selected.sum()) for selected in expected)
    assert 0 < count + (sparsity == 0.29) <= reference.pruned_count(sparsity, 1600)
    assert float(state.selection.selected_fraction) == pytest.approx(count / 1600)


def test_of_hundreds_of_bfloat16_ties_sparsify_leaves_the_rest_to_prune():
    params, expected = bfloat16_ties(0.9)
    tx = swd_jax.sparsify(0.9, total_steps=1)

    @quickly.jit
    def trained(params):
        nothing = jax.tree.map(jnp.zeros_like, params)
        updates, _ = tx.update(nothing, tx.init(params), params)
        sparse = optax.apply_updates(params, updates)
        return sparse, swd_jax.prune(sparse, 0.9)

    sparse, pruned = trained(params)
    for leaf, selected in zip(sparse, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(leaf) == 0, selected)
    assert sum(int((leaf == 0).sum()) for leaf in pruned) == 1440


def test_one_threshold_rules_all_prunable_leaves_and_no_others():
    weights = {
        "large": {"kernel": jnp.full((2, 2), 10.0), "bias": jnp.zeros(2)},
        "small": {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]])},
    }
    tx = swd_jax.swd(0.5, weight_decay=1.0, a=1.0)
    updates, state = tx.update(weights, tx.init(weights), weights)
    np.testing.assert_array_equal(updates["large"]["kernel"], np.full((2, 2), 10.0))
    np.testing.assert_array_equal(updates["large"]["bias"], [0.0, 0.0])
    np.testing.assert_array_equal(updates["small"]["kernel"], [[2, 4], [6, 8]])
    assert float(state.selection.threshold) == 10


def test_a_local_target_has_a_threshold_for_each_leaf():
    weights = {"low": jnp.array([[1.0, 2.0]]), "top": jnp.array([[10.0, 20.0]])}
    target = swd_jax.Target(0.5, scope="local")
    tx = swd_jax.swd(target, weight_decay=1.0, a=1.0)
    updates, state = tx.update(weights, tx.init(weights), weights)
    np.testing.assert_array_equal(updates["low"], [[2.0, 2.0]])
    np.testing.assert_array_equal(updates["top"], [[20.0, 20.0]])
    np.testing.assert_array_equal(state.selection.threshold, [2.0, 20.0])


def test_a_normalised_criterion_compares_shares_of_the_leaf_norm():
    # Norms 5 and 50: shares 0.6, 0.8 and 0.06, 0.9982.
    weights = {"low": jnp.array([[3.0, 4.0]]), "top": jnp.array([[3.0, 49.91]])}
    target = swd_jax.Target(0.25, criterion=swd_jax.criteria.normalized_magnitude)
    tx = swd_jax.swd(target, weight_decay=1.0, a=1.0)
    updates, state = tx.update(weights, tx.init(weights), weights)
    np.testing.assert_array_equal(updates["low"], [[3.0, 4.0]])
    np.testing.assert_array_equal(updates["top"], np.float32([[6.0, 49.91]]))
    assert float(state.selection.threshold) == pytest.approx(0.6)


def test_the_threshold_is_renewed_every_m_steps_and_the_selection_at_every_step():
    tx = swd_jax.swd(0.5, weight_decay=1.0, a=1.0, update_every=3)
    weights = jnp.array([[1.0, 2.0, 3.0, 4.0]])
    state = tx.init(weights)
    zero = jnp.zeros_like(weights)
    thresholds, selected = [], []
    for factor in [1.0, 2.0, 0.5, 2.0]:
        updates, state = tx.update(zero, state, factor * weights)
        thresholds.append(float(state.selection.threshold))
        selected.append((np.asarray(updates) != 0).sum())
    # Renewed at steps 0 and 3; between them 2, 4, 6, 8 and then 0.5, 1, 1.5, 2 are
    # compared with 3.
    assert thresholds == [3.0, 3.0, 3.0, 6.0]
    assert selected == [2, 1, 4, 2]
    assert float(state.selection.selected_fraction) == 0.5


def test_a_scheduled_target_selects_what_its_value_asks_for():
    weights = {"kernel": jnp.arange(1.0, 101.0).reshape(4, 25)}
    target = swd_jax.Target(swd_jax.cubic_sparsity(0.9, begin=0, end=4))
    tx = swd_jax.swd(target, weight_decay=1.0, a=1.0)
    state, counts = tx.init(weights), []
    for _ in range(6):
        _, state = tx.update(weights, state, weights)
        counts.append(round(100 * float(state.selection.selected_fraction)))
    # 90 (1 - (1 - t/4)^3): 0, 52.03, 78.75, 88.59, 90, 90.
    assert counts == [0, 52, 78, 88, 90, 90]


def test_nan_and_infinite_weights_are_neither_selected_nor_hidden():
    weights = jnp.array([[1.0, jnp.nan, -jnp.inf, 2.0, 3.0]])
    tx = swd_jax.swd(0.8, weight_decay=1.0, a=1.0)
    updates, state = tx.update(jnp.ones((1, 5)), tx.init(weights), weights)
    # k = 4, but only three are finite: those below infinity.
    np.testing.assert_array_equal(updates, [[2.0, 1.0, 1.0, 3.0, 4.0]])
    assert float(state.selection.threshold) == np.inf


def test_a_selected_zero_weight_leaves_an_infinite_gradient_as_it_is():
    weights = jnp.array([[0.0, 1.0]])
    tx = swd_jax.swd(0.5, weight_decay=1.0, a=1.0)
    updates, _ = tx.update(jnp.array([[jnp.inf, -jnp.inf]]), tx.init(weights), weights)
    np.testing.assert_array_equal(updates, [[np.inf, -np.inf]])


def test_the_decay_goes_through_momentum_before_the_optimizer_and_not_after():
    """Where a form stands in the chain: two steps of SGD with momentum 1/2, lr 1."""
    weights = jnp.array([[1.0, 100.0]])
    zero = jnp.zeros_like(weights)

    def two_steps(tx):
        w, state = weights, tx.init(weights)
        for _ in range(2):
            updates, state = tx.update(zero, state, w)
            w = optax.apply_updates(w, updates)
        return float(w[0, 0])

    options = {"weight_decay": 0.1, "a": 1.0}
    before = optax.chain(swd_jax.swd(0.5, **options), optax.sgd(1.0, momentum=0.5))
    # 1 - 0.1 = 0.9; then the trace 0.05 + 0.09: 0.76.
    assert two_steps(before) == pytest.approx(0.76)
    after = optax.chain(
        optax.sgd(1.0, momentum=0.5),
        swd_jax.decoupled_swd(0.5, **options, learning_rate=1.0),
    )
    # 0.9 of 0.9: no momentum remembers the decay.
    assert two_steps(after) == pytest.approx(0.81)


def test_gradients_flow_through_an_update():
    """Through the weights as through plain decay; the selection is a constant."""
    weights = jnp.array([[1.0, 2.0, 30.0, 40.0]])
    tx = swd_jax.swd(0.5, weight_decay=0.5, a=1.0)

    def moved(weights):
        updates, _ = tx.update(jnp.zeros_like(weights), tx.init(weights), weights)
        return jnp.sum(updates)

    np.testing.assert_allclose(jax.grad(moved)(weights), [[0.5, 0.5, 0.0, 0.0]])


def test_a_loop_that_is_not_jitted_compiles_nothing_after_its_first_steps(caplog):
    params = {"kernel": jnp.linspace(-1, 1, 60).reshape(6, 10)}
    gradients = jax.tree.map(jnp.ones_like, params)
    tx = swd_jax.swd(0.5, weight_decay=5e-4, a=1.0)
    state = tx.init(params)
    for step in range(4):
        caplog.clear()
        with jax.log_compiles():
            updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        compiled = [r for r in caplog.records if "Compiling" in r.getMessage()]
        # The first step must, or this would see nothing at all; the second has a
        # state that is no longer a fresh one.
        assert compiled or step > 0
    assert not compiled
