"""Reductions and searches keep no tracer alive after they are traced.

A function that closes over tracers leaks them if jax caches it: `lax.reduce` caches its
combiner, a `while_loop` its body.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swd_jax
from swd_jax._arrays import (
    axis_norms,
    exact_norms,
    exact_sums,
    sort_keys,
    uint64,
    variadic_reduce,
    xla_cpu,
)
from swd_jax._selection import bracket_candidates, order_statistics, tie_cutoffs

# Each test has a shape of its own: what jax has traced before, it does not trace again.
KEY_RANGE = order_statistics.KeyRange(
    largest=1000, trailing_zero_bits=0, interpolation_bits=10
)
QUOTA = uint64.from_int(5)[None]
TARGET = swd_jax.Target(0.5)


def search(leaf):
    candidates = jnp.zeros((bracket_candidates.NUM_CANDIDATES, 1), jnp.int32)
    return order_statistics.find_order_statistics(
        sort_keys.to_key,
        [leaf],
        ((0,),),
        jnp.asarray(QUOTA),
        KEY_RANGE,
        initial_candidates=candidates,
    ).keys


def cutoffs(leaf):
    return tie_cutoffs.find_tie_cutoffs(
        lambda leaf: leaf > 0, [leaf], [leaf.shape], jnp.asarray(QUOTA)
    )


def swd_update(leaf):
    tx = swd_jax.swd(TARGET, weight_decay=0.1, a=1.0)
    return tx.update({"w": leaf}, tx.init({"w": leaf}), {"w": leaf})


def reduced(leaf):
    keys = sort_keys.to_key(leaf)
    return variadic_reduce.reduce_jointly([keys], [keys], [0, 1])


FUNCTIONS = [
    reduced,
    lambda leaf: xla_cpu.unstack_unfused(leaf[0]),
    lambda leaf: xla_cpu.materialize(jnp.sin, leaf),
    lambda leaf: exact_sums.count_true([[leaf > 0]]),
    lambda leaf: exact_norms.leaf_l2_norms([leaf]),
    lambda leaf: axis_norms.norms_along_axes(leaf, [0], 1, "l2"),
    lambda leaf: axis_norms.norms_along_axes(leaf, [1], 1, "l2"),
    search,
    cutoffs,
    swd_update,
    lambda leaf: swd_jax.prune({"w": leaf}, TARGET),
]


@pytest.mark.parametrize("i", range(len(FUNCTIONS)))
def test_tracing_leaks_no_tracer(i):
    leaf = jax.ShapeDtypeStruct((41, 101 + i), jnp.float32)
    with jax.checking_leaks():
        jax.eval_shape(FUNCTIONS[i], leaf)


def prune(leaf):
    return swd_jax.prune({"w": leaf}, TARGET)


def summarize(leaf):
    return swd_jax.summarize({"w": leaf}, TARGET)


@pytest.mark.parametrize("i", range(4))
def test_running_leaks_no_tracer(i):
    function = [prune, jax.jit(prune), jax.jit(swd_update), summarize][i]
    leaf = np.random.default_rng(0).standard_normal((41, 201 + i))
    with jax.checking_leaks():
        function(jnp.asarray(leaf, jnp.float32))
