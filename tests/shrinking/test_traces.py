"""How often a model is traced on its way to a smaller one."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import swd_jax

X = jnp.ones((3, 6))
PARAMS = {"first": jnp.ones((6, 5)), "second": jnp.ones((5, 2))}
KEPT = [np.arange(5) < 2]


class Model:
    """A function that counts its calls."""

    def __init__(self):
        self.calls = 0

    def apply(self, params, x):
        self.calls += 1
        return jax.nn.relu(x @ params["first"]) @ params["second"]


def test_a_model_is_traced_once_for_groups_shrink_and_report():
    model = Model()
    apply = model.apply
    groups = swd_jax.channels.channel_groups(apply, PARAMS, X)
    assert model.calls == 1
    trained = jax.tree.map(lambda leaf: leaf + 1, PARAMS)
    small = swd_jax.channels.shrink(apply, trained, groups, KEPT, X)
    swd_jax.channels.shrink(apply, trained, groups, KEPT, X + 1)
    swd_jax.channels.cost_report(apply, trained, small, X, runs=1)
    assert model.calls == 1
    # The arrays are those of the call, not those of the trace: 6 x 2 into 2 x 2.
    assert small.apply(small.params, X).tolist() == [[48.0, 48.0]] * 3


def test_a_bound_method_is_the_same_at_every_access():
    model = Model()
    groups = swd_jax.channels.channel_groups(model.apply, PARAMS, X)
    swd_jax.channels.shrink(model.apply, PARAMS, groups, KEPT, X)
    assert model.calls == 1
    twin = Model()
    swd_jax.channels.shrink(twin.apply, PARAMS, groups, KEPT, X)
    assert (model.calls, twin.calls) == (1, 1)


def test_other_shapes_are_traced_anew():
    model = Model()
    groups = swd_jax.channels.channel_groups(model.apply, PARAMS, X)
    small = swd_jax.channels.shrink(model.apply, PARAMS, groups, KEPT, jnp.ones((7, 6)))
    assert model.calls == 2
    assert small.apply(small.params, jnp.ones((7, 6))).shape == (7, 2)
    # The report traces the whole model and the smaller one at the new shape.
    swd_jax.channels.cost_report(model.apply, PARAMS, small, jnp.ones((9, 6)), runs=1)
    assert model.calls == 4


def test_the_smaller_model_traces_each_shape_once():
    model = Model()
    groups = swd_jax.channels.channel_groups(model.apply, PARAMS, X)
    small = swd_jax.channels.shrink(model.apply, PARAMS, groups, KEPT, X)
    for batch, calls in ((3, 1), (1, 2), (3, 2), (1, 2), (5, 3)):
        out = small.apply(small.params, jnp.ones((batch, 6)))
        # 6 x 2 and 2 x 2 ones
        assert out.tolist() == [[12.0, 12.0]] * batch
        assert model.calls == calls


def test_other_types_and_arguments_are_traced_anew():
    def apply(params, x, scale):
        calls.append(scale)
        return (x @ params["first"]) @ params["second"] * scale

    calls = []
    groups = swd_jax.channels.channel_groups(apply, PARAMS, X, 2)
    swd_jax.channels.shrink(apply, PARAMS, groups, KEPT, X, 2)
    assert calls == [2]
    small = swd_jax.channels.shrink(apply, PARAMS, groups, KEPT, X, 3)
    assert calls == [2, 3]
    assert small.apply(small.params, X, 3).tolist() == [[36.0, 36.0]] * 3
    half = X.astype(jnp.bfloat16)
    with jax.numpy_dtype_promotion("standard"):
        swd_jax.channels.shrink(apply, PARAMS, groups, KEPT, half, 2)
    assert calls == [2, 3, 2]


def test_a_module_in_another_mode_is_traced_anew():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(6, 5, rngs=rngs)
            self.second = nnx.Linear(5, 2, rngs=rngs)
            self.factor = 1.0

        def __call__(self, x):
            calls.append(self.factor)
            return self.second(self.first(x) * self.factor)

    calls = []
    call = lambda model, x: model(x)
    model = Net(nnx.Rngs(0))
    with jax.numpy_rank_promotion("allow"):
        groups = swd_jax.channels.channel_groups(call, model, X)
        model.factor = 0.0
        small = swd_jax.channels.shrink(call, model, groups, KEPT, X)
        assert calls[:2] == [1.0, 0.0]
        # Without a signal from the first layer, the bias of the second is left.
        bias = np.asarray(model.second.bias)
        np.testing.assert_array_equal(small.apply(small.params, X), [bias] * 3)


def test_groups_hold_no_parameters():
    # A target in a long training would otherwise keep the first parameters alive.
    leaf = jnp.ones((6, 5)) + 0
    params = {"first": leaf, "second": jnp.ones((5, 2))}
    alive = weakref.ref(leaf)
    groups = swd_jax.channels.channel_groups(Model().apply, params, X)
    del leaf, params
    gc.collect()
    assert len(groups) == 1
    assert alive() is None
