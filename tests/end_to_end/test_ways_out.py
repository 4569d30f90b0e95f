"""Pruned and shrunk models outside of the script that trained them."""

import functools
import subprocess
import sys

import jax
import jax.experimental.sparse
import jax.numpy as jnp
import numpy as np
import pytest

import swd_jax
from swd_jax._arrays import tree_paths

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def drawn(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def model(params, x):
    return jax.nn.relu(x @ params["first"]) @ params["second"]


PARAMS = {"first": drawn(20, 50), "second": drawn(50, 30)}
X = drawn(4, 20, seed=1)


class TestSparseFiles:
    @pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
    @pytest.mark.parametrize("sparsity", [0, 0.5, 0.99])
    def test_hold_the_same_numbers(self, tmp_path, dtype, sparsity):
        params = {
            "layer": {"kernel": drawn(13, 7, dtype=dtype), "bias": jnp.zeros(7)},
            "steps": jnp.array(3),
            "empty": jnp.zeros((0, 4)),
            "allow_pickle": jnp.ones(2),  # NumPy has an argument of this name
        }
        pruned = swd_jax.prune(params, swd_jax.Target(sparsity, prunable="kernel"))
        size = swd_jax.io.save_sparse(tmp_path / "model", pruned)
        assert size == (tmp_path / "model.npz").stat().st_size
        like = jax.eval_shape(lambda: pruned)
        loaded = swd_jax.io.load_sparse(tmp_path / "model", like)
        assert jax.tree.structure(loaded) == jax.tree.structure(pruned)
        for a, b in zip(*map(jax.tree.leaves, (loaded, pruned)), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)

    def test_are_as_small_as_they_should_be(self, tmp_path):
        params = {"kernel": drawn(300, 400)}
        sizes = {}
        for sparsity in (0, 0.9, 0.99):
            pruned = swd_jax.prune(params, sparsity)
            sizes[sparsity] = swd_jax.io.save_sparse(tmp_path / "m.npz", pruned)
        # Values take 4 bytes, and a mask at most a bit a weight.
        assert sizes[0] > 0.9 * 480_000
        assert sizes[0.9] < 48_000 + 15_000 + 1_000
        assert sizes[0.99] < 4_800 + 15_000 / 4 + 1_000

    def test_can_be_read_with_numpy_alone(self, tmp_path):
        pruned = swd_jax.prune(PARAMS, 0.8)
        swd_jax.io.save_sparse(tmp_path / "model.npz", pruned)
        with np.load(tmp_path / "model.npz") as file:
            kernel = np.zeros(file["first.shape"], np.float32)
            bits = np.unpackbits(file["first.mask"], count=kernel.size)
            kernel[bits.reshape(kernel.shape) == 1] = file["first.values"]
        np.testing.assert_array_equal(kernel, pruned["first"])

    def test_say_what_does_not_fit(self, tmp_path):
        file = tmp_path / "model.npz"
        swd_jax.io.save_sparse(file, {"a": jnp.ones(3)})
        with pytest.raises(ValueError, match="has nothing for 'b'"):
            swd_jax.io.load_sparse(file, {"b": jnp.ones(3)})
        with pytest.raises(
            ValueError, match=r"shape \(3,\) for 'a', and like has \(4,"
        ):
            swd_jax.io.load_sparse(file, {"a": jnp.ones(4)})
        with pytest.raises(ValueError, match="no arrays"):
            swd_jax.io.save_sparse(file, {})
        twice = {"a": jnp.zeros(99), "a.mask": jnp.ones(3)}
        with pytest.raises(ValueError, match=r"two arrays that are called 'a\.mask'"):
            swd_jax.io.save_sparse(file, twice)


def shrunk():
    groups = swd_jax.channels.channel_groups(model, PARAMS, X)
    target = swd_jax.Target(0.5, structure=swd_jax.CoupledChannels(groups))
    pruned = swd_jax.prune(PARAMS, target)
    small = swd_jax.channels.shrink(
        model, pruned, groups, swd_jax.channels.kept_channels(pruned, target), X
    )
    return pruned, small


SERVE = """
import sys
import jax
import numpy as np
from jax import export
folder = sys.argv[1]
served = export.deserialize(bytearray(open(folder + "/model.bin", "rb").read()))
outputs = served.call(np.load(folder + "/x.npy"))
assert not {"flax", "swd_jax", "optax", "equinox"} & set(sys.modules)
np.save(folder + "/outputs.npy", outputs)
"""


def test_an_exported_model_is_served_without_this_library(tmp_path):
    pytest.importorskip("flatbuffers")  # jax.export writes files with it
    pruned, small = shrunk()
    function = jax.jit(functools.partial(small.apply, small.params))
    (batch,) = jax.export.symbolic_shape("batch")
    exported = jax.export.export(function, platforms=["cpu", "cuda", "tpu"])(
        jax.ShapeDtypeStruct((batch, 20), jnp.float32)
    )
    (tmp_path / "model.bin").write_bytes(exported.serialize())
    x = np.asarray(drawn(7, 20, seed=2))
    np.save(tmp_path / "x.npy", x)
    subprocess.run([sys.executable, "-c", SERVE, str(tmp_path)], check=True)
    outputs = np.load(tmp_path / "outputs.npy")
    np.testing.assert_allclose(outputs, model(pruned, x), rtol=1e-5, atol=1e-5)


def test_safetensors_hold_dense_and_shrunk_parameters(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    pruned, small = shrunk()
    sizes = []
    for params in (pruned, small.params):
        flat = tree_paths.flatten(params)
        arrays = {path: np.asarray(leaf) for _, path, leaf in tree_paths.arrays(flat)}
        safetensors.save_file(arrays, tmp_path / "model.safetensors")
        sizes.append((tmp_path / "model.safetensors").stat().st_size)
        loaded = safetensors.load_file(tmp_path / "model.safetensors")
        jax.tree.map(np.testing.assert_array_equal, loaded, arrays)
    assert sizes[1] < 0.55 * sizes[0]


def test_bcoo_computes_the_same():
    pruned = swd_jax.prune(PARAMS, 0.9)
    sparse = jax.tree.map(jax.experimental.sparse.BCOO.fromdense, pruned)
    assert sparse["first"].nse + sparse["second"].nse == 250
    outputs = jax.jit(model)(sparse, X)
    np.testing.assert_allclose(outputs, model(pruned, X), rtol=1e-5, atol=1e-5)
