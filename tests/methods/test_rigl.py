"""Dynamic sparsity: exchanges worked by hand, and what holds at every step."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax
from tests.helpers import quickly

EVERY = 2


def make(name, sparsity=0.5, optimizer=None, **options):
    optimizer = optimizer or optax.sgd(0.1)
    if name == "rigl":
        options = {"until": 100} | options
    make = getattr(swd_jax.methods, name)
    return make(optimizer, sparsity, update_every=EVERY, **options)


every_form = pytest.mark.parametrize("name", ["rigl", "sparse_evolution"])


def masks_of(state):
    """The masks of the prunable leaves, in the order of the tree."""
    return jax.tree.leaves(state.active)


def with_active(tx, params, *active):
    state = tx.init(params)
    active = jax.tree.unflatten(
        jax.tree.structure(state.active), [jnp.asarray(mask) for mask in active]
    )
    return state._replace(count=jnp.asarray(EVERY, jnp.int32), active=active)


def test_rigl_drops_the_smallest_and_grows_where_the_gradient_is_largest():
    params = {"kernel": jnp.array([[1.0, -2.0, 3.0, -4.0, 0, 0, 0, 0]])}
    gradient = {"kernel": jnp.array([[9.0, 0, 0, 0, 0.1, -0.7, 0.3, 0.2]])}
    # At step 2 of 4, half of alpha = 0.5: a quarter of the four active weights.
    tx = make("rigl", drop_fraction=0.5, until=4, optimizer=optax.adam(0.1))
    state = with_active(tx, params, [[True] * 4 + [False] * 4])
    updates, state = quickly.jit(tx.update)(gradient, state, params)
    # The weight of 1 goes. Its own gradient is the largest among the inactive ones,
    # so it is also the one that becomes active again, from zero.
    np.testing.assert_array_equal(updates["kernel"], [[-1, 0, 0, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(masks_of(state)[0], [[True] * 4 + [False] * 4])
    gradient = {"kernel": gradient["kernel"].at[0, 0].set(0.0)}
    state = with_active(tx, params, [[True] * 4 + [False] * 4])
    updates, after = quickly.jit(tx.update)(gradient, state, params)
    np.testing.assert_array_equal(updates["kernel"], [[-1, 0, 0, 0, 0, 0, 0, 0]])
    expected = [[False, True, True, True, False, True, False, False]]
    np.testing.assert_array_equal(masks_of(after)[0], expected)
    # No step of the optimizer was taken.
    jax.tree.map(np.testing.assert_array_equal, after.inner, state.inner)


def test_between_exchanges_the_optimizer_sees_the_active_gradients_only():
    params = {"kernel": jnp.array([[1.0, -2.0, 0.5, 4.0]]), "bias": jnp.zeros(4)}
    gradient = jax.tree.map(jnp.ones_like, params)
    tx = make("rigl", optimizer=optax.sgd(0.5, momentum=0.9))
    state = with_active(tx, params, [[True, False, True, False]])
    state = state._replace(count=jnp.asarray(1, jnp.int32))
    updates, after = tx.update(gradient, state, params)
    # What is inactive and not yet zero becomes it.
    np.testing.assert_array_equal(updates["kernel"], [[-0.5, 2, -0.5, -4]])
    np.testing.assert_array_equal(updates["bias"], -0.5)
    trace = optax.tree_utils.tree_get(after, "trace")
    np.testing.assert_array_equal(trace["kernel"], [[1, 0, 1, 0]])


@every_form
def test_its_sparsity_is_the_same_at_every_step(name):
    rng = np.random.default_rng(0)
    shapes = {"first": (10, 20), "second": (7, 9)}
    params = {key: jnp.asarray(rng.normal(size=s)) for key, s in shapes.items()}
    tx = make(name, swd_jax.Target(0.8, scope="local"), optimizer=optax.adam(0.1))
    state, update = tx.init(params), quickly.jit(tx.update)
    masks = []
    for _ in range(8):
        gradient = {key: jnp.asarray(rng.normal(size=s)) for key, s in shapes.items()}
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        assert [int(mask.sum()) for mask in masks_of(state)] == [40, 63 - 50]
        for mask, weights in zip(masks_of(state), params.values(), strict=True):
            np.testing.assert_array_equal(weights[~mask], 0)
        masks.append(np.asarray(masks_of(state)[0]))
    exchanged = [bool((a != b).any()) for a, b in itertools.pairwise(masks)]
    # Counts 2, 4 and 6 are times to exchange: the third, fifth and seventh step.
    assert exchanged == [False, True, False, True, False, True, False]


def test_the_dropped_fraction_falls_like_a_cosine():
    """At 0, 1, 2 and 3 quarters of T: alpha times 1, 0.8536, 0.5 and 0.1464."""
    params = {"kernel": jnp.arange(1.0, 2001).reshape(1, 2000)}
    gradient = {"kernel": jnp.arange(2000.0, 0, -1).reshape(1, 2000)}
    tx = make("rigl", until=8, drop_fraction=0.3, optimizer=optax.sgd(0.0))
    active = [[False] * 1000 + [True] * 1000]
    dropped = []
    for step in (2, 4, 6, 8):
        state = with_active(tx, params, active)._replace(count=jnp.asarray(step))
        _, state = quickly.jit(tx.update)(gradient, state, params)
        [[*after]] = np.asarray(masks_of(state)[0])
        num_dropped = 1000 - sum(after[1000:])
        dropped.append(num_dropped)
        # The smallest go, and as many grow where the gradient is largest.
        assert after[1000:] == [False] * num_dropped + [True] * (1000 - num_dropped)
        assert after[:1000] == [True] * num_dropped + [False] * (1000 - num_dropped)
    # 1000 * 0.3 / 2 * (1 + cos(pi / 4)), and so on; none at T.
    assert dropped == [256, 150, 43, 0]


def test_grown_weights_start_from_zero_and_learn_from_the_next_step_on():
    params = {"kernel": jnp.array([[1.0, -2.0, 3.0, -4.0, 0, 0, 0, 0]])}
    gradient = {"kernel": jnp.array([[0.0, 0, 0, 0, 0.1, -0.7, 0.3, 0.2]])}
    tx = make("rigl", drop_fraction=0.5, until=4, optimizer=optax.sgd(0.5))
    state = with_active(tx, params, [[True] * 4 + [False] * 4])
    kernels = []
    for _ in range(2):
        updates, state = quickly.jit(tx.update)(gradient, state, params)
        params = optax.apply_updates(params, updates)
        kernels.append(params["kernel"][0])
    np.testing.assert_array_equal(kernels[0], [0, -2, 3, -4, 0, 0, 0, 0])
    np.testing.assert_allclose(kernels[1], [0, -2, 3, -4, 0, 0.35, 0, 0], rtol=1e-6)


def test_erk_counts_the_sides_of_kernels_and_exchanges_within_leaves():
    # Ratios (3 + 3 + 4 + 8) / 288 = 1 / 16, (8 + 8) / 64 = 1 / 4 and, without a
    # kernel's sides, (16 + 4) / 64 = 5 / 16.
    shapes = {"conv": (3, 3, 4, 8), "dense": (8, 8), "output": (16, 4)}
    rng = np.random.default_rng(0)
    params = {name: jnp.asarray(rng.normal(size=s)) for name, s in shapes.items()}
    # 135 of 416 are kept: e = 135 / (18 + 16 + 20) = 2.5, so that the shares are
    # 2.5 / 16, 2.5 / 4 and 12.5 / 16.
    tx = make("rigl", swd_jax.Target(281 / 416, scope="erk"), until=10_000)
    state = tx.init(params)
    kept = [45, 40, 50]
    assert [int(mask.sum()) for mask in masks_of(state)] == kept
    state = state._replace(count=jnp.asarray(EVERY, jnp.int32))
    _, after = quickly.jit(tx.update)(params, state, params)
    assert [int(mask.sum()) for mask in masks_of(after)] == kept


def test_the_first_layer_may_stay_dense():
    """As under the paper's uniform distribution, and ERK at its highest sparsity."""
    params = {"conv1": jnp.ones((3, 3, 1, 4)), "dense": jnp.ones((8, 10))}
    for target in (
        swd_jax.Target(0.9, scope="local", prunable="dense"),
        swd_jax.Target(0.9, scope={"conv1": 0.0}),
    ):
        state = make("rigl", target).init(params)
        assert int(state.active["dense"].sum()) == 8
        assert sum(int(mask.size - mask.sum()) for mask in masks_of(state)) == 72


def test_under_a_global_target_zeros_move_between_leaves():
    params = {"a": jnp.array([[1.0, 2.0]]), "b": jnp.array([[0.0, 0.0]])}
    gradient = {"a": jnp.zeros((1, 2)), "b": jnp.array([[1.0, 5.0]])}
    target = swd_jax.Target(0.5, prunable="")
    tx = make("rigl", target, drop_fraction=0.99, until=10_000)
    state = with_active(tx, params, [[True, True]], [[False, False]])
    _, state = tx.update(gradient, state, params)
    np.testing.assert_array_equal(masks_of(state)[0], [[False, True]])
    np.testing.assert_array_equal(masks_of(state)[1], [[False, True]])


def test_rigl_stops_exchanging():
    params = {"kernel": jnp.arange(8.0).reshape(1, 8)}
    with pytest.warns(UserWarning, match="masks of rigl never change"):
        tx = make("rigl", until=2)
    state, update = tx.init(params), quickly.jit(tx.update)
    first = masks_of(state)[0]
    for _ in range(7):
        _, state = update(params, state, params)
    np.testing.assert_array_equal(masks_of(state)[0], first)


@every_form
def test_a_gradient_that_is_not_finite_does_not_change_how_many_are_active(name):
    params = {"kernel": jnp.arange(1.0, 9.0).reshape(1, 8)}
    bad = jnp.full((1, 8), jnp.nan).at[0, 1].set(jnp.inf)
    tx = make(name)
    state, update = tx.init(params), quickly.jit(tx.update)
    for _ in range(EVERY):
        _, state = update({"kernel": bad}, state, params)
    # The exchange, without jit.
    _, state = tx.update({"kernel": bad}, state, params)
    assert state.count == EVERY + 1
    assert masks_of(state)[0].sum() == 4


@every_form
def test_seeds_differ_and_repeat(name):
    params = {"kernel": jnp.ones((8, 8))}
    masks = [masks_of(make(name, seed=seed).init(params))[0] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert (masks[0] != masks[2]).any()


@every_form
def test_what_does_not_fit_is_an_error(name):
    with pytest.raises(ValueError, match=r"drop_fraction must be in \(0, 1\), got 1"):
        make(name, drop_fraction=1.0)
    with pytest.raises(ValueError, match="sparsity must be a number for"):
        make(name, swd_jax.cubic_sparsity(0.5, begin=0, end=9))
    with pytest.raises(
        ValueError, match="criterion must be swd_jax.criteria.magnitude for"
    ):
        make(name, swd_jax.Target(0.5, criterion="normalized_magnitude"))
    tx = make(name)
    params = {"kernel": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match=f"params is None, but {name} needs"):
        tx.update(params, tx.init(params))


def test_until_is_a_number_of_steps():
    with pytest.raises(ValueError, match="until must be a whole number"):
        make("rigl", until=0)


class TestState:
    """The state is a tree like the parameters, wherever optax or a mesh looks at it."""

    PARAMS = {"kernel": jnp.arange(8.0).reshape(2, 4), "bias": jnp.zeros(4)}

    @every_form
    def test_masks_are_a_tree_like_the_parameters(self, name):
        active = make(name).init(self.PARAMS).active
        assert active["kernel"].shape == (2, 4)
        assert active["bias"] == optax.MaskedNode()

    @every_form
    def test_optax_maps_it_like_parameters(self, name):
        tx = make(name, optimizer=optax.adam(0.1))
        state = tx.init(self.PARAMS)
        doubled = optax.tree.map_params(tx, lambda array: array + array, state)
        assert doubled.count == state.count
        np.testing.assert_array_equal(
            doubled.active["kernel"], state.active["kernel"] + state.active["kernel"]
        )

    @every_form
    def test_gradients_through_the_update_are_finite_differences(self, name):
        """An inactive weight's update is -w, whose derivative is -1."""
        tx = make(name, optimizer=optax.sgd(0.1))
        target = np.random.default_rng(0).normal(size=(2, 4))

        state = tx.init(self.PARAMS)._replace(count=jnp.asarray(1, jnp.int32))

        def loss(params):
            gradient = jax.tree.map(jnp.square, params)
            updates, _ = tx.update(gradient, state, params)
            kernel = params["kernel"] + updates["kernel"]
            return jnp.sum((kernel - target) ** 2)

        loss_and_gradient = quickly.jit(jax.value_and_grad(loss))
        _, gradient = loss_and_gradient(self.PARAMS)
        kernel, step = self.PARAMS["kernel"], 1e-2
        for index in np.ndindex(2, 4):
            above, below = (
                loss_and_gradient(self.PARAMS | {"kernel": kernel.at[index].add(d)})[0]
                for d in (step, -step)
            )
            expected = (above - below) / (2 * step)
            np.testing.assert_allclose(
                gradient["kernel"][index], expected, rtol=2e-3, atol=2e-2
            )
