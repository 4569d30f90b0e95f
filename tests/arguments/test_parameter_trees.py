"""What is passed for parameters, and is not that, or not only that."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import swd_jax

PARAMS = {"kernel": jnp.arange(64.0).reshape(8, 8), "bias": jnp.zeros(8)}
ADAM = optax.adam(1e-3)


@dataclasses.dataclass
class OwnState:
    """A train state of a user, which is no pytree."""

    params: dict
    opt_state: tuple


def nnx_optimizer():
    return nnx.Optimizer(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), ADAM, wrt=nnx.Param)


NOT_PARAMETERS = {
    "TrainState": lambda: TrainState.create(apply_fn=None, params=PARAMS, tx=ADAM),
    "own state": lambda: OwnState(PARAMS, ADAM.init(PARAMS)),
    "dict": lambda: {"params": PARAMS, "opt_state": ADAM.init(PARAMS)},
    "nnx.Optimizer": nnx_optimizer,
    "pair": lambda: (PARAMS, ADAM.init(PARAMS)),
    "optimizer state": lambda: ADAM.init(PARAMS),
    "sgd state": lambda: optax.sgd(0.1).init(PARAMS),
    "swd state": lambda: swd_jax.sparsify(0.5, 9).init(PARAMS),
}
FUNCTIONS = {
    "prune": lambda params: swd_jax.prune(params, 0.5),
    "prune_mask": lambda params: swd_jax.prune_mask(params, 0.5),
    "scores": lambda params: swd_jax.scores(params, 0.5),
    "thresholds": lambda params: swd_jax.thresholds(params, 0.5),
    "summarize": lambda params: swd_jax.summarize(params, 0.5),
    "diagnose": lambda params: swd_jax.diagnose(params, 0.5, ()),
    "straight_through": lambda params: swd_jax.methods.straight_through(params, 0.5),
}
TRANSFORMATIONS = {
    "swd": swd_jax.swd(0.5, weight_decay=0.1, a=1.0),
    "sparsify": swd_jax.sparsify(0.5, 9),
    "magnitude_pruning": swd_jax.methods.magnitude_pruning(0.5),
    "rigl": swd_jax.methods.rigl(ADAM, 0.5, until=101),
    "network_slimming": swd_jax.methods.network_slimming(0.1),
    "keep_pruned": swd_jax.keep_pruned(jax.tree.map(lambda w: w > 1, PARAMS)),
}


@pytest.mark.parametrize("make", NOT_PARAMETERS.values(), ids=NOT_PARAMETERS)
class TestAnOptimizersState:
    @pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
    def test_is_an_error_in_every_function_of_parameters(self, make, function):
        with pytest.raises(ValueError, match="^params .*Give the parameters") as error:
            function(make())
        assert len(str(error.value)) < 200

    @pytest.mark.parametrize("tx", TRANSFORMATIONS.values(), ids=TRANSFORMATIONS)
    def test_is_an_error_in_every_init(self, make, tx):
        with pytest.raises(ValueError, match="^params .*Give the parameters alone"):
            tx.init(make())


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize(
    "empty", [{}, (), None, {"kernel": None}, 0.5, swd_jax.Target(0.5), "kernel"]
)
def test_parameters_without_arrays_are_an_error_that_says_what_comes_first(
    function, empty
):
    words = "^params must be a tree of arrays, and has none.* parameters come first"
    with pytest.raises(ValueError, match=words):
        function(empty)


def test_variables_of_a_model_with_its_statistics_are_parameters():
    variables = {"params": PARAMS, "batch_stats": {"mean": jnp.zeros(8)}}
    pruned = swd_jax.prune(variables, 0.5)
    assert (pruned["params"]["kernel"] == 0).sum() == 32


@pytest.mark.parametrize(
    "params",
    [PARAMS, eqx.nn.Linear(9, 9, key=jax.random.key(0)), [PARAMS["kernel"]]],
    ids=["dict", "module", "list"],
)
@pytest.mark.parametrize(
    "use",
    [
        lambda wrong: swd_jax.prune(PARAMS, wrong),
        lambda wrong: swd_jax.swd(wrong, weight_decay=0.1, a=1.0),
        lambda wrong: swd_jax.sparsify(wrong, 9),
    ],
    ids="prune swd sparsify".split(),
)
def test_parameters_in_the_place_of_a_target_are_a_short_error(use, params):
    message = "^(sparsity must be a number|target must be a Target, a sparsity)"
    with pytest.raises(ValueError, match=message) as error:
        use(params)
    assert len(str(error.value)) < 250


@pytest.mark.parametrize(
    "make",
    [
        swd_jax.Target,
        lambda large: swd_jax.swd(0.5, weight_decay=large, a=1.0),
        lambda large: swd_jax.sparsify(0.5, large),
        lambda large: swd_jax.sparsify(0.5, 9, tolerance=large),
        lambda large: swd_jax.sparsify(0.5, 9, optimizer=large),
        lambda large: swd_jax.Target(0.5, min_kept=large),
        lambda large: swd_jax.Target(0.5, scope=large),
        lambda large: swd_jax.Target(0.5, prunable=large),
        lambda large: swd_jax.Target(0.5, criterion=large),
        lambda large: swd_jax.Target(0.5, structure=large),
        lambda large: swd_jax.exponential_growth(0.1, large, 9),
        lambda large: swd_jax.cubic_sparsity(large, 0, 9),
    ],
)
@pytest.mark.parametrize(
    "large", [PARAMS, PARAMS["kernel"], [0.5] * 999], ids=["dict", "array", "list"]
)
def test_errors_do_not_print_the_numbers_of_large_values(make, large):
    with pytest.raises(ValueError, match=r"(must be|shape)") as error:
        make(large)
    assert len(str(error.value)) < 500
