"""Joint reductions, on one device and split as for several."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swd_jax._arrays import variadic_reduce
from tests.helpers import quickly


def test_a_reduction_over_some_axes_keeps_the_others():
    summands = np.arange(24, dtype=np.uint32).reshape(2, 3, 4)
    minimized = 100 - summands.astype(np.int32)
    [sums], [minima] = variadic_reduce.reduce_jointly(
        [jnp.asarray(summands)], [jnp.asarray(minimized)], [1, 2]
    )
    np.testing.assert_array_equal(sums, summands.sum((1, 2)))
    np.testing.assert_array_equal(minima, minimized.min((1, 2)))


def test_a_single_array_is_summed():
    summands = np.arange(24, dtype=np.uint32).reshape(6, 4)
    [sums], minima = variadic_reduce.reduce_jointly([jnp.asarray(summands)], [], [0])
    np.testing.assert_array_equal(sums, summands.sum(0))
    assert minima == []


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64])
def test_the_minimum_of_a_single_array_is_taken(dtype):
    lowest = np.iinfo(dtype).min
    minimized = np.array(
        [[lowest, 3], [5, lowest + 1], [np.iinfo(dtype).max, 4]], dtype
    )
    with jax.enable_x64(True):
        sums, [minima] = variadic_reduce.reduce_jointly(
            [], [jnp.asarray(minimized)], [1]
        )
    np.testing.assert_array_equal(minima, minimized.min(1))
    assert sums == []
    assert minima.dtype == dtype


@pytest.mark.parametrize("operation", ["add", "minimize"])
def test_the_producer_of_a_single_array_is_not_stored(operation):
    weights = jax.ShapeDtypeStruct((256, 4096), jnp.float32)

    def reduced(weights):
        array = jax.lax.bitcast_convert_type(jnp.abs(weights) * 2, jnp.int32) >> 1
        summands, minimized = ([array], []) if operation == "add" else ([], [array])
        return variadic_reduce.reduce_jointly(summands, minimized, [1])

    compiled = jax.jit(reduced).lower(weights).compile(quickly.xla_defaults())
    assert compiled.memory_analysis().temp_size_in_bytes < 0.01 * 4 * weights.size


@pytest.mark.parametrize("devices", [1, 2, 6, 8])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((24,), [0]), ((4, 9, 16), [0, 1, 2]), ((5, 8, 7), [1]), ((), [])],
)
def test_arrays_split_for_several_devices_have_the_same_sums(shape, axes, devices):
    numbers = np.random.default_rng(0).integers(0, 1000, shape)
    summands, minimized = numbers.astype(np.uint32), (500 - numbers).astype(np.int32)
    [sums], [minima] = variadic_reduce._reduce_jointly(
        [jnp.asarray(summands)], [jnp.asarray(minimized)], tuple(axes), devices
    )
    np.testing.assert_array_equal(sums, summands.sum(tuple(axes)))
    np.testing.assert_array_equal(minima, minimized.min(tuple(axes)))


@pytest.mark.parametrize(
    ("minimized_too", "expected"),
    [
        # XLA for GPU fuses separate reductions itself.
        (True, {"cpu": 1, "cuda": 2, "tpu": 1}),
        (False, {"cpu": 1, "cuda": 1, "tpu": 1}),
    ],
)
def test_a_reduction_is_variadic_where_separate_ones_read_twice(
    minimized_too, expected
):
    def reduced(summands, minimized):
        minima = [minimized] if minimized_too else []
        return variadic_reduce.reduce_jointly([summands], minima, [0, 1])

    arrays = jnp.ones((8, 8), jnp.uint32), jnp.ones((8, 8), jnp.int32)
    reductions, operands = {}, {}
    for platform in ("cpu", "cuda", "tpu"):
        traced = jax.jit(reduced).trace(*arrays)
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        reductions[platform] = text.count("stablehlo.reduce(")
        operands[platform] = text.count(" init: ")
    assert reductions == expected
    # On the CPU a lone array is paired with another one.
    assert operands == {"cpu": 2, "cuda": 1 + minimized_too, "tpu": 1 + minimized_too}
