"""Optimizer states of the smaller parameters: which positions of which arrays stay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax

X = jnp.ones((2, 6))
# Both hidden layers have 8 channels, so that no array is known by its shape alone.
FIRST, SECOND = np.arange(8) < 5, np.arange(8) % 4 == 0
KEPT = [FIRST, SECOND]


def network(params, x):
    (w0, b0), (w1, b1), (w2, b2) = params
    h = jax.nn.relu(x @ w0 + b0[None])
    return jax.nn.relu(h @ w1 + b1[None]) @ w2 + b2[None]


def arrays(*shapes):
    """Arrays of different numbers."""
    generator = np.random.default_rng(0)
    return [generator.random(shape).astype(np.float32) for shape in shapes]


W0, B0, W1, B1, W2, B2 = arrays((6, 8), (8,), (8, 8), (8,), (8, 3), (3,))
PARAMS = [(W0, B0), (W1, B1), (W2, B2)]
SMALL = [
    (W0[:, FIRST], B0[FIRST]),
    (W1[FIRST][:, SECOND], B1[SECOND]),
    (W2[SECOND], B2),
]
GROUPS = swd_jax.channels.channel_groups(network, PARAMS, X)


def shrink(state, **options):
    return swd_jax.channels.shrink_state(state, GROUPS, KEPT, **options)


def check_like_new(tx):
    """The smaller state has the structure and the shapes of a new one."""
    state, new = jax.eval_shape(tx.init, PARAMS), jax.eval_shape(tx.init, SMALL)
    small = shrink(state)
    assert jax.tree.structure(small) == jax.tree.structure(new)
    assert jax.tree.map(jnp.shape, small) == jax.tree.map(jnp.shape, new)


def assert_equal(tree, expected):
    jax.tree.map(np.testing.assert_array_equal, tree, expected)


ADAM = optax.adam(1e-2)
FISHER = swd_jax.Target(0.5, criterion=swd_jax.criteria.fisher)


class TestStructureIsThatOfANewState:
    @pytest.mark.parametrize(
        "tx",
        [
            swd_jax.methods.rigl(optax.sm3(1e-2), 0.5, until=101),
            swd_jax.methods.sparse_evolution(ADAM, 0.5, update_every=5),
            swd_jax.methods.latent_pruning(0.5, forgetting=0.1, optimizer=ADAM),
            optax.chain(ADAM, swd_jax.sparsify(0.5, 10)),
            optax.chain(swd_jax.swd(FISHER, weight_decay=1e-3, a=1.0), ADAM),
            optax.masked(
                optax.sm3(1e-2), lambda p: jax.tree.map(lambda w: w.ndim > 1, p)
            ),
            optax.partition(
                {1: optax.sm3(1e-2), 2: optax.lbfgs(memory_size=8)},
                lambda p: jax.tree.map(jnp.ndim, p),
            ),
            optax.inject_hyperparams(optax.adam)(1e-2),
            optax.contrib.muon(1e-2),
            optax.contrib.schedule_free_adamw(1e-2),
            optax.contrib.mechanize(optax.sgd(1e-2)),
            optax.MultiSteps(optax.flatten(ADAM), 2),
        ],
        ids=[
            "rigl",
            "sparse_evolution",
            "latent_pruning",
            "sparsify",
            "accumulators",
            "masked",
            "partition",
            "inject_hyperparams",
            "muon",
            "schedule_free",
            "mechanize",
            "flatten",
        ],
    )
    def test_of(self, tx):
        check_like_new(tx)


class TestValuesAreThoseOfKeptPositions:
    def test_in_masks(self):
        # `active` has a mask for each of the weights, none for biases.
        state = swd_jax.methods.rigl(optax.sgd(0.1), 0.5, until=101).init(PARAMS)
        small = shrink(state)
        assert_equal(small.active[1][0], state.active[1][0][FIRST][:, SECOND])

    def test_in_a_vector_for_each_axis(self):
        # SM3 has one for each axis of a parameter: their paths are those of the
        # parameters, as in `PARAMS`, and the number of the axis.
        names = [w.shape for w in jax.tree.leaves(PARAMS)]
        vectors = [arrays(*((length,) for length in shape)) for shape in names]
        mu = [tuple(vectors[i : i + 2]) for i in (0, 2, 4)]
        state = optax.sm3(1e-2).init(PARAMS)[0]._replace(mu=mu)
        small = shrink(state).mu
        assert_equal(small[0][0], [mu[0][0][0], mu[0][0][1][FIRST]])
        assert_equal(small[1][0], [mu[1][0][0][FIRST], mu[1][0][1][SECOND]])
        assert_equal(small[2][0], [mu[2][0][0][SECOND], mu[2][0][1]])
        assert_equal(small[1][1], [mu[1][1][0][SECOND]])

    def test_in_a_memory_of_several_steps(self):
        # The memory has 8 steps, as many as there are channels.
        tx = optax.scale_by_lbfgs(memory_size=8)
        [memory] = arrays((8, 8))
        state = tx.init(PARAMS)
        state.diff_params_memory[0] = (state.diff_params_memory[0][0], memory)
        small = shrink(state)
        assert_equal(small.diff_params_memory[0][1], memory[:, FIRST])
        assert small.weights_memory.shape == (8,)

    def test_in_products_of_an_axis(self):
        # Shampoo has a matrix for each axis.
        left, right = arrays((8, 8), (8, 8))
        state = jax.tree.map(lambda w: [np.eye(d) for d in w.shape], PARAMS)
        state[1] = ([left, right], state[1][1])
        small = shrink({"statistics": state})["statistics"]
        assert_equal(small[1][0][0], left[FIRST][:, FIRST])
        assert_equal(small[1][0][1], right[SECOND][:, SECOND])

    def test_in_a_vector_of_all_parameters(self):
        vector = np.concatenate([w.ravel() for w in jax.tree.leaves(PARAMS)])
        expected = np.concatenate([w.ravel() for w in jax.tree.leaves(SMALL)])
        assert_equal(shrink({"mu": vector})["mu"], expected)

    def test_in_means_over_some_axes(self):
        # One number for each column, and one for each row with the axis of the mean.
        named = {"a": W0, "b": W2}
        model = lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"]
        groups = swd_jax.channels.channel_groups(model, named, X)
        state = {
            "columns": jax.tree.map(lambda w: w.mean(0), named),
            "rows": jax.tree.map(lambda w: w.mean(1, keepdims=True), named),
        }
        small = swd_jax.channels.shrink_state(state, groups, [SECOND])
        assert_equal(small["columns"]["a"], state["columns"]["a"][SECOND])
        assert_equal(small["columns"]["b"], state["columns"]["b"])
        assert_equal(small["rows"]["a"], state["rows"]["a"])
        assert_equal(small["rows"]["b"], state["rows"]["b"][SECOND])


class TestFactoredMoments:
    """A parameter of shape (4, 6): "v_row" is without the axis of 6, "v_col" of 4."""

    PARAMS = dict(zip("ab", arrays((4, 6), (6, 2)), strict=True))
    TX = optax.scale_by_factored_rms(min_dim_size_to_factor=3)

    @staticmethod
    def apply(params, x):
        return jax.nn.relu(x @ params["a"]) @ params["b"]

    def shrink(self, num_kept, **options):
        groups = swd_jax.channels.channel_groups(
            self.apply, self.PARAMS, jnp.ones((2, 4))
        )
        rows, columns = arrays((4,), (6,))
        state = self.TX.init(self.PARAMS)
        state.v_row["a"], state.v_col["a"] = rows, columns
        small = swd_jax.channels.shrink_state(
            state, groups, [np.arange(6) < num_kept], **options
        )
        return small, rows, columns

    def new(self, num_kept):
        params = self.PARAMS
        small = {"a": params["a"][:, :num_kept], "b": params["b"][:num_kept]}
        return jax.eval_shape(self.TX.init, small)

    def test_are_cut_where_they_have_the_axis(self):
        small, rows, columns = self.shrink(5)
        assert jax.tree.map(jnp.shape, small) == jax.tree.map(jnp.shape, self.new(5))
        assert_equal(small.v_row["a"], rows)
        assert_equal(small.v_col["a"], columns[:5])

    def test_change_places_where_another_axis_becomes_the_largest(self):
        # Of shape (4, 3), "v_row" is without the axis of 4.
        small, rows, columns = self.shrink(3, like=self.new(3))
        assert_equal(small.v_row["a"], columns[:3])
        assert_equal(small.v_col["a"], rows)

    def test_of_small_parameters_need_a_new_state(self):
        with pytest.raises(ValueError, match="v_row/a.*min_dim_size_to_factor"):
            self.shrink(3)
        with pytest.raises(ValueError, match=r"v_row/a.*\(2,\).*\(1,\) in like"):
            self.shrink(2, like=self.new(2))


class TestErrors:
    def test_name_an_array_of_unknown_axes(self):
        # GaLore projects gradients to 2 dimensions.
        state = optax.contrib.galore(1e-2, rank=2).init(PARAMS)
        with pytest.raises(ValueError, match="mu/0/0.*cannot be cut"):
            shrink(state)

    def test_name_an_array_with_the_shape_of_a_parameter_and_another_path(self):
        state = {"moments": {"x": jnp.zeros((6, 8))}}
        with pytest.raises(ValueError, match="moments/x.*like="):
            shrink(state)
        like = {"moments": {"x": jnp.zeros((6, 8))}}
        assert shrink(state, like=like)["moments"]["x"].shape == (6, 8)

    def test_name_what_differs_from_a_new_state(self):
        with pytest.raises(ValueError, match="another structure"):
            shrink(optax.sgd(0.1, 0.9).init(PARAMS), like=ADAM.init(SMALL))
        with pytest.raises(ValueError, match=r"'0/mu/0/0' has the shape \(6, 5\)"):
            shrink(ADAM.init(PARAMS), like=ADAM.init(PARAMS))
