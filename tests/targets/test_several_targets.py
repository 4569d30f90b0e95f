"""Several targets in one transformation, for different parts of a model."""

import jax
import numpy as np
import optax
import pytest

import swd_jax

RNG = np.random.default_rng(0)
PARAMS = {
    "attention": {"query": RNG.normal(size=(8, 8)).astype(np.float32)},
    "mlp": {
        "up": RNG.normal(size=(8, 16)).astype(np.float32),
        "down": RNG.normal(size=(16, 8)).astype(np.float32),
    },
    "embedding": RNG.normal(size=(20, 8)).astype(np.float32),
}
ATTENTION = swd_jax.Target(
    0.5, prunable="^attention/", structure=swd_jax.NM(2, 4), scope="local"
)
MLP = swd_jax.Target(0.9, prunable="^mlp/")
BOTH = [ATTENTION, MLP]


def one_after_the_other():
    return swd_jax.prune(swd_jax.prune(PARAMS, ATTENTION), MLP)


def assert_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_each_prunes_its_own_leaves():
    expected = one_after_the_other()
    assert_same(swd_jax.prune(PARAMS, BOTH), expected)
    assert_same(jax.jit(lambda p: swd_jax.prune(p, BOTH))(PARAMS), expected)
    kept = swd_jax.prune_mask(PARAMS, BOTH)
    assert_same(kept, jax.tree.map(lambda leaf: leaf != 0, expected))
    counts = jax.tree.map(lambda leaf: int((leaf == 0).sum()), expected)
    assert counts["attention"] == {"query": 32}
    assert sum(counts["mlp"].values()) == int(0.9 * 256)
    assert counts["embedding"] == 0


@pytest.mark.parametrize(
    "form",
    [
        swd_jax.swd,
        lambda *args, **kw: swd_jax.decoupled_swd(*args, learning_rate=1.0, **kw),
        lambda *args, **kw: swd_jax.proximal_swd(*args, learning_rate=1.0, **kw),
    ],
    ids=["swd", "decoupled", "proximal"],
)
def test_each_selects_its_own_leaves(form):
    zeros = jax.tree.map(np.zeros_like, PARAMS)

    def selected(target):
        tx = form(target, weight_decay=0.25, a=1.0)
        updates, state = jax.jit(tx.update)(zeros, tx.init(PARAMS), PARAMS)
        return updates, state

    together, state = selected(BOTH)
    apart = [selected(target) for target in BOTH]
    assert_same(together["attention"], apart[0][0]["attention"])
    assert_same(together["mlp"], apart[1][0]["mlp"])
    assert not together["embedding"].any()
    assert state.selection.threshold.shape == (2,)
    assert_same(
        state.selection.threshold,
        np.concatenate([np.ravel(alone.selection.threshold) for _, alone in apart]),
    )
    # Each by its own leaves: of 64 weights and of 256.
    share = [float(alone.selection.selected_fraction) for _, alone in apart]
    expected = (64 * share[0] + 256 * share[1]) / 320
    np.testing.assert_allclose(state.selection.selected_fraction, expected, rtol=1e-6)


def test_training_with_several_ends_where_pruning_changes_nothing():
    a = swd_jax.exponential_growth(1.0, 1e4, 60)
    tx = optax.chain(swd_jax.swd(BOTH, weight_decay=1e-2, a=a), optax.adam(1e-2))

    @jax.jit
    def step(params, state):
        gradients = jax.tree.map(lambda w, start: 0.01 * (w - start), params, PARAMS)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(400):
        params, state = step(params, state)
    report = swd_jax.summarize(params, BOTH)
    assert report.residual < 0.02
    mask = swd_jax.prune_mask(params, BOTH)
    groups = np.asarray(mask["attention"]["query"]).reshape(2, 4, 8).sum(axis=1)
    np.testing.assert_array_equal(groups, 2)


def test_a_report_and_a_hold_are_of_all_of_them():
    pruned = swd_jax.prune(PARAMS, BOTH)
    report = swd_jax.summarize(pruned, BOTH)
    assert {leaf.path for leaf in report.leaves} == {
        *("attention/query", "mlp/up", "mlp/down"),
    }
    assert report.pruned == 32 + int(0.9 * 256)
    hold = swd_jax.keep_pruned(swd_jax.prune_mask(PARAMS, BOTH))
    ones = jax.tree.map(np.ones_like, PARAMS)
    updates, _ = hold.update(ones, hold.init(PARAMS), pruned)
    moved = optax.apply_updates(pruned, updates)
    assert_same(
        jax.tree.map(lambda leaf: leaf == 0, moved["mlp"]),
        jax.tree.map(lambda leaf: leaf == 0, pruned["mlp"]),
    )


def test_two_that_prune_the_same_leaf_are_an_error_that_names_it():
    twice = [MLP, swd_jax.Target(0.5, prunable="down")]
    for use in (
        lambda: swd_jax.prune(PARAMS, twice),
        lambda: swd_jax.swd(twice, weight_decay=1.0, a=1.0).init(PARAMS),
    ):
        with pytest.raises(ValueError, match=r"two targets prune 'mlp/down'"):
            use()


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([], r"at least one Target, got an empty"),
        ([MLP, 0.5], r"sequence of Target, got a sequence with 0\.5"),
    ],
)
def test_what_is_no_target_is_an_error(targets, message):
    with pytest.raises(ValueError, match=message):
        swd_jax.prune(PARAMS, targets)


def test_one_that_fits_nothing_is_an_error_among_others_too():
    nothing = swd_jax.Target(0.5, prunable="decoder")
    with pytest.raises(ValueError, match=r"(?s)'decoder'.*matches none.*mlp/up"):
        swd_jax.prune(PARAMS, [MLP, nothing])


def test_a_tree_without_leaves_has_nothing_to_select():
    tx = swd_jax.swd(BOTH, weight_decay=1.0, a=1.0)
    updates, state = tx.update({}, tx.init({}), {})
    assert updates == {}
    assert state.count == 1
