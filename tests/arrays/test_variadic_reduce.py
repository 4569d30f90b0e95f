"""Reductions of several arrays at once, on one device and as for several."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swd_jax._arrays import variadic_reduce


def test_a_reduction_over_some_axes_keeps_the_others():
    added = np.arange(24, dtype=np.uint32).reshape(2, 3, 4)
    compared = 100 - added.astype(np.int32)
    [sums], [minima] = variadic_reduce.joint_reduction(
        [jnp.asarray(added)], [jnp.asarray(compared)], [1, 2]
    )
    np.testing.assert_array_equal(sums, added.sum((1, 2)))
    np.testing.assert_array_equal(minima, compared.min((1, 2)))


def test_a_single_array_is_reduced_alone():
    added = np.arange(24, dtype=np.uint32).reshape(6, 4)
    [sums], minima = variadic_reduce.joint_reduction([jnp.asarray(added)], [], [0])
    np.testing.assert_array_equal(sums, added.sum(0))
    assert minima == []


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64])
def test_a_single_array_is_compared_alone(dtype):
    least = np.iinfo(dtype).min
    compared = np.array([[least, 3], [5, least + 1], [np.iinfo(dtype).max, 4]], dtype)
    with jax.enable_x64(True):
        sums, [minima] = variadic_reduce.joint_reduction(
            [], [jnp.asarray(compared)], [1]
        )
    np.testing.assert_array_equal(minima, compared.min(1))
    assert sums == []
    assert minima.dtype == dtype


@pytest.mark.parametrize("operation", ["add", "compare"])
def test_what_a_single_array_is_made_of_is_not_stored(operation):
    weights = jax.ShapeDtypeStruct((256, 4096), jnp.float32)

    def reduced(weights):
        array = jax.lax.bitcast_convert_type(jnp.abs(weights) * 2, jnp.int32) >> 1
        added, compared = ([array], []) if operation == "add" else ([], [array])
        return variadic_reduce.joint_reduction(added, compared, [1])

    compiled = jax.jit(reduced).lower(weights).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.01 * 4 * weights.size


@pytest.mark.parametrize("devices", [1, 2, 6, 8])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((24,), [0]), ((4, 9, 16), [0, 1, 2]), ((5, 8, 7), [1]), ((), [])],
)
def test_arrays_split_as_for_several_devices_have_the_same_sums(shape, axes, devices):
    numbers = np.random.default_rng(0).integers(0, 1000, shape)
    added, compared = numbers.astype(np.uint32), (500 - numbers).astype(np.int32)
    [sums], [minima] = variadic_reduce._joint_reduction(
        [jnp.asarray(added)], [jnp.asarray(compared)], tuple(axes), devices
    )
    np.testing.assert_array_equal(sums, added.sum(tuple(axes)))
    np.testing.assert_array_equal(minima, compared.min(tuple(axes)))


def test_other_platforms_reduce_arrays_one_by_one():
    """Where compilers join reductions, none is joint: so devices exchange sums."""

    def reduced(added, compared):
        return variadic_reduce.joint_reduction([added], [compared], [0, 1])

    arrays = jnp.ones((8, 8), jnp.uint32), jnp.ones((8, 8), jnp.int32)
    reductions = {}
    for platform in ("cpu", "cuda", "tpu"):
        traced = jax.jit(reduced).trace(*arrays)
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        reductions[platform] = text.count("stablehlo.reduce(")
    assert reductions == {"cpu": 1, "cuda": 2, "tpu": 2}


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
@pytest.mark.parametrize("shape", [(1,), (2,), (65,), (3, 1), (4, 150)])
def test_the_parts_of_an_array_are_separated(shape, dtype):
    numbers = np.random.default_rng(0).integers(-(2**31), 2**31, shape)
    # As floats, whatever patterns these are: subnormal numbers and NaN too.
    numbers = numbers.astype(np.int32).view(dtype)
    parts = jax.jit(variadic_reduce.separate)(jnp.asarray(numbers))
    assert [part.shape for part in parts] == [shape[:-1]] * shape[-1]
    got = np.stack([np.asarray(part).view(np.int32) for part in parts], axis=-1)
    np.testing.assert_array_equal(got, numbers.view(np.int32))


def test_loops_that_read_separated_parts_are_compiled_once():
    """What separating is for: the parts have no offset of their own in the program."""

    def masked(leaves, limits):
        parts = variadic_reduce.separate(limits)
        return [leaf < limit for leaf, limit in zip(leaves, parts, strict=True)]

    leaves = [jnp.ones((8, 8), jnp.int32)] * 30
    compiled = jax.jit(masked).lower(leaves, jnp.arange(30, dtype=jnp.int32)).compile()
    computations = compiled.as_text().split("\n\n")
    compared = [text for text in computations if " compare(" in text]
    assert len(compared) == 30
    assert not any(" slice(" in text for text in compared)
