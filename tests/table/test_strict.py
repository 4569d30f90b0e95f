"""Every public function where jax is told to be strict: no promotion, no leak, no NaN.

Run by `make test-strict`; the ordinary suite has a few of them.
"""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax
from tests.helpers import quickly
from tests.table.cases import SHAPES
from tests.table.methods import METHODS

pytestmark = pytest.mark.no_cover

# Outside of jit, jax looks at the result of every operation.
MODES = {
    "numpy_dtype_promotion=strict": lambda: jax.numpy_dtype_promotion("strict"),
    "checking_leaks": jax.checking_leaks,
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "enable_x64": lambda: jax.enable_x64(True),
    "disable_jit": jax.disable_jit,
    "transfer_guard=disallow": lambda: jax.transfer_guard("disallow"),
}
# A transfer of a constant outside of jit is what this mode forbids.
UNDER_JIT = {"transfer_guard=disallow", "checking_leaks"}
# optax's Adam needs the promotion of dtypes.
SGD = optax.sgd(0.125, momentum=0.5)

QUICK = {
    ("debug_infs", "swd, 2:4"),
    ("debug_infs", "sparsify, 2:4"),
    ("transfer_guard=disallow", "sparsify"),
}


@functools.cache
def start():
    rng = np.random.default_rng(0)
    dtypes = {"a_kernel": "bfloat16", "b_kernel": "float32", "c_bias": "float32"}
    return {
        name: jnp.asarray(rng.normal(size=shape), dtype)
        for shape, (name, dtype) in zip(SHAPES, dtypes.items(), strict=True)
    }


def two_steps(method, jit):
    params = start()
    tx = METHODS[method].build(SGD, params)

    def step(params, state):
        gradients = jax.tree.map(lambda w: 0.5 * w, params)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    if jit:
        state = quickly.jit(tx.init)(params)
        step = quickly.jit(step)
    else:
        state = tx.init(params)
    for _ in range(2):
        params, state = step(params, state)
    return params, state


@functools.cache
def expected(method, jit):
    return two_steps(method, jit)


def rows():
    for mode in MODES:
        for method in METHODS:
            marks = [] if (mode, method) in QUICK else [pytest.mark.strict]
            yield pytest.param(mode, method, marks=marks)


@pytest.mark.parametrize(("mode", "method"), [*rows()])
def test_two_steps_are_those_of_an_ordinary_run(mode, method):
    jit = mode in UNDER_JIT
    plain = expected(method, jit)
    if mode == "checking_leaks":
        jax.clear_caches()  # jax sees no leak in a function whose trace is cached
    with MODES[mode]():
        found = two_steps(method, jit)
    # With disable_jit, XLA fuses no operations, and rounds after each.
    rtol = 1e-5 if mode == "disable_jit" else 0
    for a, b in zip(*map(jax.tree.leaves, (found, plain)), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


STRUCTURES = {
    "weights": {},
    "2:4": {"structure": swd_jax.NM(2, 4)},
    "4:40": {"structure": swd_jax.NM(4, 40)},
    "blocks": {"structure": swd_jax.Block((2, 2)), "scope": "local"},
    "channels": {"structure": swd_jax.Channel(-1), "min_kept": 2},
    "normalized": {"criterion": "normalized_magnitude", "scope": "erk"},
    "lamp": {"criterion": "lamp"},
}


def loss_through(params, target):
    sparse = swd_jax.methods.straight_through(params, target)
    return sum(jnp.sum(leaf, dtype=jnp.float32) for leaf in jax.tree.leaves(sparse))


FUNCTIONS = {
    "prune": swd_jax.prune,
    "prune_mask": swd_jax.prune_mask,
    "straight_through": jax.grad(loss_through),
}


def results(structure, jit):
    target = swd_jax.Target(0.5, prunable="kernel", **STRUCTURES[structure])

    def call_all(params):
        return {name: function(params, target) for name, function in FUNCTIONS.items()}

    return (quickly.jit(call_all) if jit else call_all)(start())


@pytest.mark.strict
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("mode", MODES)
def test_functions_return_what_they_return_ordinarily(mode, structure):
    jit = mode in UNDER_JIT
    plain = results(structure, jit)
    if mode == "checking_leaks":
        jax.clear_caches()
    with MODES[mode]():
        found = results(structure, jit)
    jax.tree.map(np.testing.assert_array_equal, found, plain)


@pytest.mark.strict
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("mode", MODES)
def test_reports_are_those_of_an_ordinary_run(mode, structure):
    target = swd_jax.Target(0.5, prunable="kernel", **STRUCTURES[structure])
    tx = optax.chain(SGD, swd_jax.sparsify(target, total_steps=10))
    state = tx.init(start())

    def report():
        warnings = swd_jax.diagnose(start(), target, state)
        return str(swd_jax.summarize(start(), target)), list(map(str, warnings))

    plain = report()
    with contextlib.ExitStack() as stack:
        stack.enter_context(MODES[mode]())
        assert report() == plain
