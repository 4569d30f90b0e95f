"""Workarounds for XLA:CPU work, and the installed jaxlib still needs each of them.

Tests named `..._is_still_needed` compile the plain form. If one fails, XLA has changed:
once the lowest supported jaxlib passes without a workaround, delete the workaround.
"""

import os
import subprocess
import sys
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swd_jax._arrays import sort_keys, xla_cpu
from tests.helpers import quickly

JAXLIB = tuple(int(part) for part in metadata.version("jaxlib").split(".")[:2])
WEIGHTS = jax.ShapeDtypeStruct((256, 4096), jnp.float32)


def memory_share(function, *arguments):
    """Return the temporary memory of a compiled function over the first argument."""
    compiled = jax.jit(function).lower(*arguments).compile(quickly.xla_defaults())
    size = arguments[0].size * arguments[0].dtype.itemsize
    return compiled.memory_analysis().temp_size_in_bytes / size


def integers(weights):
    """Return elementwise integers of at least 0."""
    return sort_keys.to_key(weights * 2) >> 1


class TestReduceVariadic:
    @staticmethod
    def reduced(weights, axes):
        return xla_cpu.reduce_variadic([integers(weights)], [], axes)

    @pytest.mark.parametrize("axes", [[0], [1], [0, 1]])
    def test_operands_are_not_stored(self, axes):
        def reduce_pair(weights):
            array = integers(weights)
            return xla_cpu.reduce_variadic([array], [array], axes)

        assert memory_share(reduce_pair, WEIGHTS) < 0.01
        assert memory_share(lambda w: self.reduced(w, axes), WEIGHTS) < 0.01

    @pytest.mark.parametrize("axes", [[0], [1], [0, 1]])
    def test_it_is_still_needed(self, axes):
        plain = memory_share(lambda w: jnp.sum(integers(w), axes), WEIGHTS)
        assert plain >= 1, "XLA:CPU no longer stores the operand of a single reduction"

    def test_the_barrier_is_still_needed(self):
        def reduced(weights):
            array = integers(weights)
            zero = np.zeros((), np.int32)
            combiner = xla_cpu._sum_then_min(2)
            return jax.lax.reduce([array, 1 - array], [zero, zero], combiner, (1,))[0]

        plain = memory_share(reduced, WEIGHTS)
        assert plain >= 1, "XLA no longer drops unused results of a reduction"

    @pytest.mark.parametrize(("length", "is_stored"), [(32, False), (33, True)])
    @pytest.mark.parametrize("axis", [0, 1])
    def test_the_longest_fused_axis_is_still_the_same(self, axis, length, is_stored):
        assert (length > xla_cpu.LONGEST_FUSED_AXIS) == is_stored
        shape = (length, 8192) if axis == 0 else (8192, length)
        leaf = jax.ShapeDtypeStruct(shape, jnp.float32)
        plain = memory_share(lambda leaf: jnp.sum(integers(leaf), axis), leaf)
        assert (plain >= 1) == is_stored, "XLA:CPU splits reductions at another length"

    def test_combiners_are_cached(self):
        # `lax.reduce` caches jaxprs by the identity of the combiner.
        assert xla_cpu._sum_then_min(2) is xla_cpu._sum_then_min(2)


class TestUnstackUnfused:
    @pytest.mark.parametrize("dtype", [np.int32, np.float32])
    @pytest.mark.parametrize("shape", [(1,), (2,), (65,), (3, 1), (4, 150)])
    def test_elements_are_those_of_the_array(self, shape, dtype):
        array = np.random.default_rng(0).integers(-(2**31), 2**31, shape)
        # Read as floats, the patterns include subnormal numbers and NaN.
        array = array.astype(np.int32).view(dtype)
        elements = jax.jit(xla_cpu.unstack_unfused)(jnp.asarray(array))
        assert [element.shape for element in elements] == [shape[:-1]] * shape[-1]
        patterns = [np.asarray(element).view(np.int32) for element in elements]
        np.testing.assert_array_equal(np.stack(patterns, -1), array.view(np.int32))

    @staticmethod
    def num_fused_slices(unstack):
        """Return how many of 30 comparisons have a slice in their computation."""

        def masks(leaves, thresholds):
            pairs = zip(leaves, unstack(thresholds), strict=True)
            return [leaf < threshold for leaf, threshold in pairs]

        leaves = [jnp.ones((8, 8), jnp.int32)] * 30
        thresholds = jnp.arange(30, dtype=jnp.int32)
        text = (
            jax.jit(masks)
            .lower(leaves, thresholds)
            .compile(quickly.xla_defaults())
            .as_text()
        )
        computations = [part for part in text.split("\n\n") if " compare(" in part]
        assert len(computations) == 30
        return sum(" slice(" in part for part in computations)

    def test_loops_contain_no_offset(self):
        assert self.num_fused_slices(xla_cpu.unstack_unfused) == 0

    def test_it_is_still_needed(self):
        assert self.num_fused_slices(list) == 30, "XLA:CPU no longer fuses slices"

    def test_a_barrier_is_enough_from_0_12_on(self):
        fused = self.num_fused_slices(
            lambda array: jax.lax.optimization_barrier(list(array))
        )
        if JAXLIB == (0, 10):
            assert fused == 30, "jaxlib 0.10 needs no more than a barrier"
        elif JAXLIB >= (0, 12):
            assert fused == 0


class TestMaterialize:
    @staticmethod
    def stored_share(make):
        """Return the memory for sines that a consumer reads six times each."""

        def consumer(weights):
            sines = make(jnp.sin, weights)
            shifted = [sines[:, i : i + 4000] for i in range(6)]
            return sum((sines[:, :4000] > part).astype(jnp.int32) for part in shifted)

        return memory_share(consumer, WEIGHTS)

    def test_the_result_is_stored(self):
        assert self.stored_share(xla_cpu.materialize) >= 1

    def test_it_is_still_needed(self):
        plain = self.stored_share(lambda function, weights: function(weights))
        assert plain < 0.01, "XLA:CPU no longer evaluates a producer for each reader"

    def test_a_barrier_is_enough_from_0_12_on(self):
        share = self.stored_share(
            lambda function, weights: jax.lax.optimization_barrier(function(weights))
        )
        if JAXLIB == (0, 10):
            assert share < 0.01, "jaxlib 0.10 needs no more than a barrier"
        elif JAXLIB >= (0, 12):
            assert share >= 1

    def test_the_result_is_that_of_the_function(self):
        weights = jnp.array([[1.0, -2.0], [3.0, 0.5]])
        made = jax.jit(
            lambda w: xla_cpu.materialize(lambda w: (w * 2, w[0] > 0), {"w": w}["w"])
        )(weights)
        np.testing.assert_array_equal(made[0], [[2, -4], [6, 1]])
        np.testing.assert_array_equal(made[1], [True, False])


class TestKeepInLoop:
    @staticmethod
    def search(tie):
        """Return a loop that counts keys below a candidate."""

        def search(weights):
            def count(candidate):
                loop_weights, loop_candidate = tie(weights, candidate)
                mask = sort_keys.to_key(loop_weights * 2) < loop_candidate
                [total], _ = xla_cpu.reduce_variadic(
                    [mask.astype(jnp.uint32)], [], (0, 1)
                )
                return candidate + total.astype(jnp.int32) + 1

            return jax.lax.while_loop(lambda c: c < 1000, count, jnp.int32(0))

        return search

    def test_keys_are_not_stored(self):
        assert memory_share(self.search(xla_cpu.keep_in_loop), WEIGHTS) < 0.01

    def test_it_is_still_needed(self):
        plain = memory_share(self.search(lambda *trees: trees), WEIGHTS)
        assert plain >= 1, "XLA no longer hoists arrays as large as the weights"


class TestOpaqueOne:
    VALUES = np.array([0, -0.0, 1e-45, -1e-40, 1], np.float32)

    def zero_mask(self, one_of_count):
        """Return the zeros, from a program that uses their mask in a `where`."""

        def marked(weights, count):
            mask = sort_keys.is_zero(weights, one_of_count(count))
            return jnp.where(mask, -1, weights)

        return jax.jit(marked)(self.VALUES, jnp.int32(3)) == -1

    def test_subnormal_numbers_are_not_zero(self):
        mask = self.zero_mask(xla_cpu.opaque_one)
        np.testing.assert_array_equal(mask, [True, True, False, False, False])

    # `optax.safe_increment` lets a count stop at the largest integer, whose successor
    # wraps round to an even number.
    @pytest.mark.parametrize("count", [0, 1, 2, 3, 2**31 - 1])
    def test_it_is_one(self, count):
        assert jax.jit(xla_cpu.opaque_one)(jnp.int32(count)) == 1

    def test_it_is_still_needed(self):
        mask = self.zero_mask(lambda count: jnp.ones((), count.dtype))
        assert mask[2], "XLA:CPU no longer flushes subnormals in `key < 1`"


def test_widening_subnormals_by_their_keys_is_still_needed():
    with jax.enable_x64(True):
        plain = jax.jit(lambda weights: weights.astype(jnp.float64))(
            np.float32([1e-45])
        )
        is_flushed = bool(plain[0] == 0)
    assert is_flushed, "XLA:CPU no longer flushes subnormals in a conversion"


PARTITIONED = """
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from swd_jax._arrays import variadic_reduce, xla_cpu
from tests.helpers import quickly
mesh = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Auto,))
leaf = jax.ShapeDtypeStruct(
    (64, 64), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec("x"))
)
for reduce in (xla_cpu.reduce_variadic, variadic_reduce.reduce_jointly):
    text = jax.jit(lambda leaf: reduce([leaf], [leaf], (0, 1))).lower(leaf).compile()
    print("all-gather" in text.as_text(), "all-reduce" in text.as_text())
"""


def test_the_partitioner_still_gathers_the_operands_of_a_variadic_reduction():
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
    }
    process = subprocess.run(
        [sys.executable, "-c", PARTITIONED],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == ["True", "False", "False", "True"]
