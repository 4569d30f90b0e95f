"""A state that was made for another target, or for other parameters."""

import collections

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import FrozenDict

import swd_jax

KERNEL = jnp.arange(16.0).reshape(4, 4)
PARAMS = {"a": {"kernel": KERNEL}, "b": {"kernel": KERNEL + 16}}
LOCAL = swd_jax.Target(0.5, scope="local")
TRANSFORMATIONS = {
    "swd": lambda target: swd_jax.swd(target, weight_decay=0.1, a=1.0),
    "decoupled_swd": lambda target: swd_jax.decoupled_swd(
        target, weight_decay=0.1, a=1.0, learning_rate=0.1
    ),
    "sparsify": lambda target: swd_jax.sparsify(target, 9),
    "sparsify with an optimizer": lambda target: swd_jax.sparsify(
        target, 9, optimizer=optax.sgd(0.1)
    ),
    "magnitude_pruning": swd_jax.methods.magnitude_pruning,
}


def update(make, first, second, made_for=PARAMS, params=PARAMS):
    state = make(first).init(made_for)
    # Abstractly: the check belongs to tracing.
    return jax.eval_shape(make(second).update, params, state, params)


@pytest.mark.parametrize("make", TRANSFORMATIONS.values(), ids=TRANSFORMATIONS)
class TestAStateOfAnotherTarget:
    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (swd_jax.Target(0.5), LOCAL),
            (LOCAL, swd_jax.Target(0.5)),
            (LOCAL, swd_jax.Target(0.5, prunable="a", scope="local")),
            (swd_jax.Target(0.5, prunable="a", scope="local"), LOCAL),
            (swd_jax.Target(0.5), swd_jax.Target(0.5, scope={"a": 0.2, "b": 0.7})),
        ],
    )
    def test_is_an_error_that_says_so(self, make, first, second):
        words = "(?s)^state.* made for another target.* call init again"
        with pytest.raises(ValueError, match=words):
            update(make, first, second)

    @pytest.mark.parametrize(
        "wrong", [(), (1, 2), optax.EmptyState(), {"count": 3}, None]
    )
    def test_is_an_error_where_it_is_none(self, make, wrong):
        with pytest.raises(ValueError, match="^state is .* of the chain"):
            make(LOCAL).update(PARAMS, wrong, PARAMS)

    @pytest.mark.parametrize(
        "container",
        [
            FrozenDict,
            collections.OrderedDict,
            lambda params: jax.tree.map(
                lambda leaf: nn.Partitioned(leaf, names=(None, None)), params
            ),
        ],
        ids="frozen ordered boxed".split(),
    )
    def test_in_another_container_is_as_good(self, make, container):
        if make is TRANSFORMATIONS["sparsify with an optimizer"]:
            return  # the optimizer inside needs its own container
        expected, _ = make(LOCAL).update(PARAMS, make(LOCAL).init(PARAMS), PARAMS)
        state = make(LOCAL).init(container(PARAMS))
        found, _ = make(LOCAL).update(PARAMS, state, PARAMS)
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    "make",
    [TRANSFORMATIONS["sparsify"], TRANSFORMATIONS["sparsify with an optimizer"]],
)
class TestMemory:
    def test_of_other_leaves_of_the_same_shapes_is_an_error(self, make):
        first, second = (swd_jax.Target(0.5, prunable=name) for name in "ab")
        with pytest.raises(ValueError, match=r"(?s)^state.memory.*a/kernel.*b/kernel"):
            update(make, first, second)

    def test_of_leaves_of_other_shapes_is_an_error(self, make):
        other = {"a": {"kernel": jnp.ones((4, 5))}, "b": PARAMS["b"]}
        words = r"^state.memory has arrays of shape \(4, 5\) at 'a/kernel', where"
        with pytest.raises(ValueError, match=words):
            update(make, LOCAL, LOCAL, made_for=other)

    def test_in_another_order_is_an_error(self, make):
        turned = collections.OrderedDict(b=PARAMS["b"], a=PARAMS["a"])
        with pytest.raises(ValueError, match="^state.memory .* in another order"):
            update(make, LOCAL, LOCAL, made_for=turned)


class TestAccumulators:
    MOVEMENT = swd_jax.Target(0.5, criterion="movement")

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (MOVEMENT, swd_jax.Target(0.5)),
            (swd_jax.Target(0.5), MOVEMENT),
            (MOVEMENT, swd_jax.Target(0.5, criterion="movement", prunable="a")),
        ],
    )
    def test_of_another_target_are_an_error(self, first, second):
        with pytest.raises(ValueError, match=r"^state.selection.accumulated has"):
            update(TRANSFORMATIONS["swd"], first, second)


def test_masks_of_other_leaves_are_an_error():
    def make(target):
        return swd_jax.methods.rigl(optax.sgd(0.1), target, until=101)

    first, second = (swd_jax.Target(0.5, prunable=name) for name in "ab")
    with pytest.raises(ValueError, match=r"^state.active has masks at other leaves"):
        update(make, first, second)


@pytest.mark.parametrize("function", [swd_jax.summarize, swd_jax.diagnose])
class TestReports:
    """On a state of another target."""

    @staticmethod
    def report(function, target, state):
        return function(PARAMS, target, state=state)

    def test_are_errors(self, function):
        tx = optax.chain(optax.adam(0.1), swd_jax.sparsify(0.5, 9))
        with pytest.raises(ValueError, match="^state has thresholds of shape"):
            self.report(function, LOCAL, tx.init(PARAMS))

    def test_are_errors_where_only_the_leaves_differ(self, function):
        first, second = (swd_jax.Target(0.5, prunable=name) for name in "ab")
        state = swd_jax.sparsify(first, 9).init(PARAMS)
        with pytest.raises(ValueError, match=r"^state.memory has arrays at other"):
            self.report(function, second, state)

    def test_are_made_where_it_is_one_of_several_or_sees_a_part(self, function):
        chain = optax.chain(
            swd_jax.sparsify(swd_jax.Target(0.5, prunable="a"), 9),
            swd_jax.sparsify(swd_jax.Target(0.5, prunable="b"), 9),
        )
        self.report(function, LOCAL, chain.init(PARAMS))
        masked = optax.masked(swd_jax.sparsify(LOCAL, 9), {"a": True, "b": False})
        self.report(function, LOCAL, masked.init(PARAMS))
