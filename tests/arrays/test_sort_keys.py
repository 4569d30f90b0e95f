"""Sort keys are in the order of magnitudes, in every dtype."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from swd_jax._arrays import sort_keys

NARROW = [
    np.float16,
    ml_dtypes.bfloat16,
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e5m2,
]


def all_values(dtype) -> np.ndarray:
    """Return every number of a dtype of at most 16 bits, except NaN."""
    bits = np.dtype(dtype).itemsize * 8
    patterns = np.arange(2**bits).astype(f"uint{bits}")
    values = patterns.view(dtype)
    with np.errstate(invalid="ignore"):
        return values[~np.isnan(values.astype(np.float64))]


@pytest.mark.parametrize("dtype", NARROW)
def test_keys_of_a_narrow_dtype_are_in_the_order_of_magnitudes(dtype):
    values = all_values(dtype)
    widened = jax.jit(lambda w: sort_keys.widen(w, jnp.float32))(values)
    keys = np.asarray(sort_keys.to_key(widened)).astype(np.int64)
    magnitudes = np.abs(values.astype(np.float64))
    order = np.argsort(magnitudes, kind="stable")
    keys, magnitudes = keys[order], magnitudes[order]
    np.testing.assert_array_equal(
        np.diff(keys) > 0, magnitudes[1:] > magnitudes[:-1], strict=True
    )
    assert (np.diff(keys) >= 0).all()


EXTREMES = np.array(
    [0, 1e-45, 1e-40, 1.1754942e-38, 1.1754944e-38, 1e-20, 1, 3.4e38, np.inf, np.nan],
    np.float32,
)


def test_float32_keys_ascend_from_zero_through_subnormals_to_nan():
    values = np.concatenate([EXTREMES, -EXTREMES])
    keys = np.asarray(jax.jit(sort_keys.to_key)(values)).astype(np.int64)
    assert (np.diff(keys[: len(EXTREMES)]) > 0).all()
    np.testing.assert_array_equal(keys[: len(EXTREMES)], keys[len(EXTREMES) :])
    infinity = sort_keys.largest_key(np.float32)
    np.testing.assert_array_equal(keys[:10] >= infinity, ~np.isfinite(EXTREMES))


def test_from_key_inverts_to_key():
    keys = sort_keys.to_key(jnp.asarray(-EXTREMES))
    scores = np.asarray(sort_keys.from_key(keys, jnp.float32))
    np.testing.assert_array_equal(scores.view(np.uint32), EXTREMES.view(np.uint32))


def test_widening_to_float64_preserves_subnormals_and_signs():
    values = np.concatenate([EXTREMES, -EXTREMES])
    with jax.enable_x64(True):
        widened = np.asarray(jax.jit(lambda w: sort_keys.widen(w, jnp.float64))(values))
    np.testing.assert_array_equal(widened, values.astype(np.float64))


def test_scores_have_the_widest_dtype_and_at_least_float32():
    assert sort_keys.score_dtype() == np.float32
    assert sort_keys.score_dtype(jnp.bfloat16, jnp.float16) == np.float32
    with jax.enable_x64(True):
        assert sort_keys.score_dtype(jnp.bfloat16, jnp.float64) == np.float64


def test_is_zero_is_false_of_subnormal_numbers():
    values = jnp.array([0.0, -0.0, 1e-45, -1e-40, 1.0], jnp.float32)
    np.testing.assert_array_equal(
        jax.jit(sort_keys.is_zero)(values, jnp.uint32(1)),
        [True, True, False, False, False],
    )
