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


def drawn(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def model(params, x):
    return jax.nn.relu(x @ params["first"]) @ params["second"]


PARAMS = {"first": drawn(20, 50), "second": drawn(50, 30)}
X = drawn(4, 20, seed=1)


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
