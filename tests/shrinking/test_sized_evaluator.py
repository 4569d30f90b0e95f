"""The smaller program when several threads use it, and after an error."""

import concurrent.futures
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swd_jax

WIDTH, NUM_KEPT = 6, 2
X = np.ones((2, 4), np.float32)


def model(params, x):
    """Compute a layer and a recurrent layer, with calls inside calls."""

    def body(hidden, _):
        return jax.jit(jnp.tanh)(hidden @ params["loop"]), None

    hidden = jax.jit(lambda h: jax.jit(jnp.tanh)(h @ params["in"]))(x)
    hidden, _ = jax.lax.scan(body, hidden, length=3)
    return hidden @ params["out"]


@pytest.fixture(scope="module")
def params():
    random = np.random.default_rng(0)
    shapes = {"in": (4, WIDTH), "loop": (WIDTH, WIDTH), "out": (WIDTH, 3)}
    return {
        name: random.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def small(params):
    groups = swd_jax.channels.channel_groups(model, params, X)
    kept = [np.arange(WIDTH) < NUM_KEPT]
    return swd_jax.channels.shrink(model, params, groups, kept, X)


@pytest.fixture
def frequent_thread_switches():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("frequent_thread_switches")
def test_threads_trace_it_at_the_same_time(small):
    def trace(_):
        # jax caches the jaxpr of a function, so make a new one each time.
        return str(jax.make_jaxpr(functools.partial(small.apply))(small.params, X))

    expected = trace(0)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        jaxprs = set(threads.map(trace, range(400)))
    assert jaxprs == {expected}


def test_an_error_leaves_it_usable(small, params):
    with pytest.raises(ValueError, match="does not take"):
        small.apply(small.params, np.ones((2, 5), np.float32))
    kept_params = {
        "in": params["in"][:, :NUM_KEPT],
        "loop": params["loop"][:NUM_KEPT, :NUM_KEPT],
        "out": params["out"][:NUM_KEPT],
    }
    np.testing.assert_allclose(
        small.apply(small.params, X), model(kept_params, X), rtol=1e-6
    )
