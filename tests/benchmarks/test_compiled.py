"""The benchmark of compiled steps, as far as it needs no compiler of an accelerator."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import compiled
from collectives import collectives_of
from traffic import Bytes

MESH = Mesh(np.array(jax.devices()[:1]), ("x",))


@pytest.mark.parametrize("name", compiled.steps())
def test_every_row_is_an_optimizer_of_such_weights(name):
    params = compiled.sharded([(64, 32), (32,)], jnp.float32, MESH)
    optimizer = compiled.steps()[name]()
    state = jax.eval_shape(optimizer.init, params)
    updates, _ = jax.eval_shape(optimizer.update, params, state, params)
    assert [leaf.shape for leaf in updates] == [(64, 32), (32,)]


def test_a_step_is_compiled_with_its_state_in_place():
    params = compiled.sharded([(256, 256)], jnp.float32, MESH)
    step = compiled.compile_step(optax.sgd(0.1), params, MESH)
    weight_bytes = 4 * 256**2
    assert step.outside == Bytes(2 * weight_bytes, weight_bytes)  # g, w; w
    assert step.reading == Bytes(0, 0)
    assert step.temporary < weight_bytes / 100
    assert step.collectives == {}


def test_weights_are_divided_along_the_first_axis_that_divides():
    mesh = jax.sharding.AbstractMesh((4,), ("x",))
    leaves = compiled.sharded([(3, 8), (8, 4), (5,)], jnp.bfloat16, mesh)
    specs = [leaf.sharding.spec for leaf in leaves]
    assert specs == [PartitionSpec(None, "x"), PartitionSpec("x"), PartitionSpec()]


def test_a_row_is_in_multiples_of_the_weights():
    base = compiled.Compiled(Bytes(400, 300), Bytes(0, 0), 10, {}, 1.0)
    step = compiled.Compiled(Bytes(500, 410), Bytes(140, 0), 30, {}, 2.0)
    row = compiled.as_row("swd", step, base, weight_bytes=100, bandwidth=1e6)
    assert (row["read"], row["written"], row["reading"]) == (5.0, 4.1, 1.4)
    assert row["over_base"] == pytest.approx(1.3)
    assert row["with_one_reading_over_base"] == pytest.approx(1.5)
    assert row["temporary"] == pytest.approx(0.3)
    assert row["temporary_more_than_base"] == pytest.approx(0.2)
    assert row["milliseconds_at_bandwidth"] == pytest.approx(1.05)


def row(name, **changed):
    usual = {"with_one_reading_over_base": 1.14, "temporary_more_than_base": 0.01}
    collectives = {"all-reduce": {"count": 2, "bytes": 96}}
    return {"name": name, **usual, "collectives": collectives} | changed


def test_rows_within_their_limits_have_no_excess():
    for name in compiled.LIMITS:
        assert name in compiled.steps()
        assert compiled.excesses(row(name), is_one_tpu=True) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"with_one_reading_over_base": 1.7},
            "swd, NM(2, 4) moves 1.70 times the bytes of adam alone",
        ),
        (
            {"temporary_more_than_base": 0.2},
            "swd, NM(2, 4) takes 0.20 times the weights more temporary memory",
        ),
        (
            {"collectives": {"all-gather": {"count": 1, "bytes": 1024}}},
            "swd, NM(2, 4) exchanges 1,024 bytes by all-gather",
        ),
        (
            {"collectives": {"all-reduce": {"count": 1, "bytes": 100_000}}},
            "swd, NM(2, 4) exchanges 100,000 bytes by all-reduce",
        ),
    ],
)
def test_an_excess_is_said_in_words(changed, message):
    assert compiled.excesses(row("swd, NM(2, 4)", **changed), is_one_tpu=True) == [
        message
    ]


def test_a_gpu_or_several_tpus_may_store_more():
    stored = row("swd, NM(2, 4)", temporary_more_than_base=0.3)
    assert compiled.excesses(stored, is_one_tpu=False) == []
    stored = row("swd, NM(2, 4)", temporary_more_than_base=0.4)
    assert len(compiled.excesses(stored, is_one_tpu=False)) == 1


def test_collectives_are_counted_by_kind():
    text = """
  %a = f32[100]{0} all-reduce(%x), to_apply=%add
  %b = (u32[4]{0}, u32[2]{0}) all-reduce(%y, %z), to_apply=%add
  %c = (f32[8]{0}, f32[32]{0}) all-gather-start(%x)
"""
    assert collectives_of(text) == {
        "all-reduce": {"count": 2, "bytes": 400 + 24},
        "all-gather": {"count": 1, "bytes": 160},
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accelerator": "v4"}, "accelerator must be one of v5e, .*got 'v4'"),
        ({"accelerator": "v5e", "rows": ("adm",)}, "rows must be among adam, .*adm"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(options, message):
    with pytest.raises(SystemExit, match=message):
        compiled.main(compiled.Config(**options))
