"""What a model costs before and after: counted, and measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swd_jax

X = jnp.ones((8, 64))


def model(params, x):
    return jax.nn.relu(x @ params["first"]) @ params["second"]


def shrunk(params, kept=100):
    groups = swd_jax.channels.channel_groups(model, params, X)
    return swd_jax.channels.shrink(model, params, groups, [np.arange(400) < kept], X)


PARAMS = {"first": jnp.ones((64, 400)), "second": jnp.ones((400, 60))}


def test_counts_what_is_there():
    report = swd_jax.channels.cost_report(model, PARAMS, shrunk(PARAMS), X, runs=3)
    before, after = report.before, report.after
    assert (before.parameters, after.parameters) == (400 * 124, 100 * 124)
    assert (before.bytes, after.bytes) == (4 * 400 * 124, 4 * 100 * 124)
    assert (before.flops, after.flops) == (2 * 8 * 400 * 124, 2 * 8 * 100 * 124)
    # Besides the products there are 8 * 400 maxima.
    assert before.xla_flops == pytest.approx(before.flops, rel=0.02)
    assert after.xla_flops == pytest.approx(after.flops, rel=0.02)
    assert before.milliseconds > 0
    assert report.speedup == before.milliseconds / after.milliseconds


def test_prints_a_table_and_a_flat_dict():
    report = swd_jax.channels.cost_report(model, PARAMS, shrunk(PARAMS), X, runs=1)
    lines = str(report).splitlines()
    assert lines[2].split() == ["parameters", "49,600", "12,400", "25.0%", "4.00"]
    assert [line.split()[0] for line in lines[3:7]] == [
        *("bytes", "FLOPs", "FLOPs", "latency")
    ]
    assert report.as_dict()["after/flops"] == report.after.flops
    assert all(isinstance(value, float) for value in report.as_dict().values())


def test_says_what_it_cannot_measure():
    abstract = jax.eval_shape(lambda: PARAMS)
    groups = swd_jax.channels.channel_groups(model, abstract, X)
    small = swd_jax.channels.shrink(model, abstract, groups, [np.arange(400) < 9], X)
    with pytest.raises(ValueError, match="at 'first' there is only a shape"):
        swd_jax.channels.cost_report(model, abstract, small, X)
    with pytest.raises(ValueError, match="runs must be a whole number"):
        swd_jax.channels.cost_report(model, PARAMS, shrunk(PARAMS), X, runs=0)
