"""`tolerance`: never more than k weights are selected, and hardly fewer."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax

DECAY = {"weight_decay": 1.0, "a": 1.0}
TARGETS = {
    "global": swd_jax.Target(0.75),
    "local": swd_jax.Target(0.75, scope="local"),
    "normalized": swd_jax.Target(0.75, criterion="normalized_magnitude"),
    "capped": swd_jax.Target(0.75, min_kept=0.24),
    "1 of 8": swd_jax.Target(0.75, structure=swd_jax.NM(1, 8)),
    "blocks": swd_jax.Target(0.75, structure=swd_jax.Block((2, 2))),
    "two targets": [
        swd_jax.Target(0.75, prunable="first"),
        swd_jax.Target(0.75, prunable="second", structure=swd_jax.Block((1, 2))),
    ],
}
SHAPES = {"first": (40, 24), "second": (24, 32)}
SIZE = 40 * 24 + 24 * 32


def moving_weights(steps, dtype="float32"):
    """Yield weights whose magnitudes change by a few per cent a step."""
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    for _ in range(steps):
        yield {name: jnp.asarray(leaf, dtype) for name, leaf in weights.items()}
        weights = {
            name: 1.02 * leaf + 0.02 * rng.normal(size=leaf.shape)
            for name, leaf in weights.items()
        }


def selections(target, steps=12, dtype="float32", **options):
    """Yield the number of selected weights at each step, and the state."""
    tx = swd_jax.swd(target, **DECAY, **options)
    update, state = jax.jit(tx.update), None
    for weights in moving_weights(steps, dtype):
        state = tx.init(weights) if state is None else state
        updates, state = update(jax.tree.map(jnp.zeros_like, weights), state, weights)
        yield sum(int((leaf != 0).sum()) for leaf in updates.values()), state.selection


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, "float32") for name in TARGETS] + [("capped", "bfloat16")],
)
def test_never_more_than_k_are_selected_and_hardly_fewer(name, dtype):
    tolerance = 0.01
    exact = [count for count, _ in selections(TARGETS[name], dtype=dtype)]
    found = list(selections(TARGETS[name], dtype=dtype, tolerance=tolerance))
    for k, (count, state) in zip(exact, found, strict=True):
        assert k - tolerance * SIZE <= count <= k
        if dtype == "float32":  # else capped leaves keep ties that are counted
            assert float(state.selected_fraction) == pytest.approx(count / SIZE)
    if dtype == "float32":
        assert any(count < k for k, (count, _) in zip(exact, found, strict=True))


def test_a_tolerance_of_less_than_one_weight_is_none():
    exact = list(selections(0.75))
    found = list(selections(0.75, tolerance=0.5 / SIZE))
    assert [count for count, _ in found] == [count for count, _ in exact]


def test_weights_that_all_tie_are_all_kept():
    weights = {"kernel": jnp.ones((10, 10))}
    tx = swd_jax.swd(0.5, **DECAY, tolerance=0.1)
    updates, state = tx.update(weights, tx.init(weights), weights)
    np.testing.assert_array_equal(updates["kernel"], 1.0)
    assert float(state.selection.threshold) == 1


def test_the_estimate_is_near_the_exact_threshold():
    tolerance = 0.02
    pairs = zip(selections(0.75), selections(0.75, tolerance=tolerance), strict=True)
    # Of |x| under a normal distribution, 0.02 of all are 0.02 / 0.41 = 0.05 wide at the
    # 75th percentile, and everything here grows by 1.02 a step.
    for step, ((_, exact), (_, found)) in enumerate(pairs):
        scale = 1.02**step
        assert exact.threshold - 0.1 * scale < found.threshold <= exact.threshold
        assert abs(found.tracking.estimate - exact.threshold) < 0.03 * scale
        assert 0.02 * scale < found.tracking.slack_width < 0.15 * scale


def test_between_refreshes_all_of_the_state_stays():
    states = [
        jax.device_get(state)
        for _, state in selections(0.75, steps=7, update_every=3, tolerance=0.01)
    ]
    for step, (before, after) in enumerate(itertools.pairwise(states), 1):
        if step % 3:
            assert before == after
        else:
            assert before != after


@pytest.mark.parametrize("update_every", [1, 2])
def test_a_run_may_go_on_with_a_tolerance_and_without_it(update_every):
    state = None
    for step, weights in enumerate(moving_weights(9)):
        tolerance = 0.01 if 3 <= step < 6 else 0
        tx = swd_jax.swd(0.75, **DECAY, tolerance=tolerance, update_every=update_every)
        state = tx.init(weights) if state is None else state
        _, state = tx.update(weights, state, weights)
        if step % update_every == 0:
            assert abs(float(state.selection.selected_fraction) - 0.75) <= tolerance
        assert (state.selection.tracking == ()) is (tolerance == 0)


def test_channels_are_selected_exactly_in_any_case():
    rng = np.random.default_rng(0)
    params = {
        "in": {"kernel": jnp.asarray(rng.normal(size=(3, 20)), jnp.float32)},
        "out": {"kernel": jnp.asarray(rng.normal(size=(20, 2)), jnp.float32)},
    }

    def model(params, x):
        return jnp.tanh(x @ params["in"]["kernel"]) @ params["out"]["kernel"]

    groups = swd_jax.channels.channel_groups(model, params, jnp.zeros((1, 3)))
    target = swd_jax.Target(0.5, structure=swd_jax.CoupledChannels(groups))
    results = []
    for tolerance in (0, 0.4):
        tx = swd_jax.swd(target, **DECAY, tolerance=tolerance)
        updates, _ = tx.update(params, tx.init(params), params)
        results.append(updates)
    jax.tree.map(np.testing.assert_array_equal, *results)
    assert (results[0]["out"]["kernel"] != params["out"]["kernel"]).any()


@pytest.mark.parametrize("make", [swd_jax.decoupled_swd, swd_jax.proximal_swd])
def test_the_forms_after_the_optimizer_have_it_too(make):
    [weights] = moving_weights(1)
    tx = make(0.75, **DECAY, learning_rate=0.5, tolerance=0.01)
    updates, _ = tx.update(
        jax.tree.map(jnp.zeros_like, weights), tx.init(weights), weights
    )
    count = sum(int((leaf != 0).sum()) for leaf in updates.values())
    assert 0.74 * SIZE <= count <= 0.75 * SIZE


def test_sparsify_is_nearly_as_sparse_and_prune_adds_the_rest():
    total_steps = 20
    tx = optax.chain(
        optax.adam(1e-2), swd_jax.sparsify(0.75, total_steps, tolerance=0.01)
    )
    [params] = moving_weights(1)
    state = tx.init(params)
    rng = np.random.default_rng(1)
    update = jax.jit(tx.update)
    fractions = []
    for _ in range(total_steps):
        gradient = jax.tree.map(lambda p: p + rng.normal(size=p.shape), params)
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        zeros = sum(int((leaf == 0).sum()) for leaf in params.values())
        fractions.append(zeros / SIZE)
    assert all(0.74 <= fraction <= 0.75 for fraction in fractions[10:])
    pruned = swd_jax.prune(params, 0.75)
    assert sum(int((leaf == 0).sum()) for leaf in pruned.values()) == 0.75 * SIZE
    for name, leaf in pruned.items():
        np.testing.assert_array_equal(leaf, np.where(leaf == 0, 0, params[name]))


@pytest.mark.parametrize("tolerance", [-0.1, 1, 1.5, float("nan"), "0.1"])
@pytest.mark.parametrize(
    "make",
    [
        lambda **option: swd_jax.swd(0.5, **DECAY, **option),
        lambda **option: swd_jax.sparsify(0.5, 10, **option),
        lambda **option: swd_jax.methods.latent_pruning(0.5, forgetting=0, **option),
    ],
)
def test_a_tolerance_out_of_range_is_named(make, tolerance):
    with pytest.raises(ValueError, match=r"tolerance must be .*got"):
        make(tolerance=tolerance)


def test_with_inject_hyperparams_it_is_a_static_argument():
    [weights] = moving_weights(1)
    make = optax.inject_hyperparams(swd_jax.swd, static_args="tolerance")
    tx = make(0.75, **DECAY, tolerance=0.01)
    updates, _ = tx.update(weights, tx.init(weights), weights)
    expected = swd_jax.swd(0.75, **DECAY, tolerance=0.01)
    direct, _ = expected.update(weights, expected.init(weights), weights)
    jax.tree.map(np.testing.assert_array_equal, updates, direct)


def test_a_traced_tolerance_is_named():
    with pytest.raises(ValueError, match="tolerance is traced.* static_args"):
        jax.jit(lambda tolerance: swd_jax.swd(0.5, **DECAY, tolerance=tolerance))(0.1)
