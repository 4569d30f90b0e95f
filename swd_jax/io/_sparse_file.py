"""Pruned parameters in a file without their zeros, which NumPy alone can read."""

import os
import zipfile
from typing import Any, TypeVar

import jax
import numpy as np

from swd_jax._arrays import tree_paths

Tree = TypeVar("Tree")


def save_sparse(file: str | os.PathLike[str], params: Any) -> int:
    """Save parameters without their zeros.

    The file is an ordinary compressed `.npz`. Of an array at "path" it holds either
    "path", as it is, or, where that is smaller,

    - "path.mask": the bits of an array that is True where it is not zero, in row-major
      order, as `numpy.packbits` gives them,
    - "path.values": what is not zero, in the same order,
    - "path.shape": its shape.

    Types that NumPy does not know, such as bfloat16, are stored as unsigned integers of
    the same size.

    Args:
      file: the path to write to; ".npz" is added where it has another ending.
      params: any tree of arrays. Keys of random numbers are left out.

    Returns:
      The size of the file in bytes.

    Raises:
      ValueError: if there is nothing to save, or two arrays have the same path.

    Examples:
      >>> import tempfile, pathlib, jax.numpy as jnp, swd_jax
      >>> params = {"kernel": jnp.zeros((100, 100)).at[3, 4].set(7.0)}
      >>> folder = tempfile.TemporaryDirectory()
      >>> file = pathlib.Path(folder.name) / "model.npz"
      >>> swd_jax.io.save_sparse(file, params) < 1_000
      True
      >>> loaded = swd_jax.io.load_sparse(file, params)
      >>> float(loaded["kernel"][3, 4]), int((loaded["kernel"] != 0).sum())
      (7.0, 1)
      >>> folder.cleanup()
    """
    entries: dict[str, np.ndarray] = {}
    for _, path, leaf in _saved(tree_paths.flatten(params)):
        array = _known_to_numpy(np.asarray(jax.device_get(leaf)))
        nonzero = array != 0
        values = array[nonzero]
        bits = np.packbits(nonzero.ravel())
        new = {path: array}
        if values.nbytes + bits.nbytes < array.nbytes:
            shape = np.array(array.shape, np.int64)
            new = {f"{path}.mask": bits, f"{path}.values": values}
            new[f"{path}.shape"] = shape
        for name, entry in new.items():
            if name in entries:
                raise ValueError(f"params have two arrays that are called {name!r}")
            entries[name] = entry
    if not entries:
        raise ValueError("params has no arrays to save")
    file = os.fspath(file)
    file = file if file.endswith(".npz") else f"{file}.npz"
    # As numpy.savez_compressed does, which takes names as arguments: not all names do.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, entry in entries.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as opened:
                np.lib.format.write_array(opened, entry, allow_pickle=False)
    return os.path.getsize(file)


def load_sparse(file: str | os.PathLike[str], like: Tree) -> Tree:
    """Load what `save_sparse` has saved.

    Args:
      file: the path of the file.
      like: a tree of arrays or their shapes, for the structure and the types.

    Returns:
      The tree with the arrays of the file.

    Raises:
      ValueError: if the file does not hold the arrays of the tree.

    Examples:
      >>> import tempfile, pathlib, jax, jax.numpy as jnp, swd_jax
      >>> params = {"kernel": jnp.eye(30)}
      >>> folder = tempfile.TemporaryDirectory()
      >>> file = pathlib.Path(folder.name) / "model.npz"
      >>> size = swd_jax.io.save_sparse(file, params)
      >>> loaded = swd_jax.io.load_sparse(file, jax.eval_shape(lambda: params))
      >>> bool((loaded["kernel"] == params["kernel"]).all())
      True
      >>> folder.cleanup()
    """
    file = os.fspath(file)
    file = file if file.endswith(".npz") else f"{file}.npz"
    flat = tree_paths.flatten(like)
    loaded: dict[int, Any] = {}
    with np.load(file) as entries:
        for position, path, leaf in _saved(flat):
            if path in entries:
                array = entries[path]
            elif f"{path}.mask" in entries:
                shape = entries[f"{path}.shape"]
                values = entries[f"{path}.values"]
                count = int(np.prod(shape))
                nonzero = np.unpackbits(entries[f"{path}.mask"], count=count) > 0
                array = np.zeros(count, values.dtype)
                array[nonzero] = values
                array = array.reshape(shape)
            else:
                raise ValueError(
                    f"{file!r} has nothing for {path!r}. It holds:"
                    f"{tree_paths.listing(entries.files)}"
                )
            if array.shape != leaf.shape:
                raise ValueError(
                    f"{file!r} has an array of shape {array.shape} for {path!r}, and "
                    f"like has {leaf.shape}"
                )
            loaded[position] = jax.numpy.asarray(_in_type(array, leaf.dtype))
    return flat.rebuilt(loaded)


def _saved(flat: tree_paths.Flat) -> list[tuple[int, str, Any]]:
    """The arrays that are saved: all but the keys of random numbers."""
    return [
        entry
        for entry in tree_paths.arrays(flat)
        if not jax.numpy.issubdtype(entry[2].dtype, jax.dtypes.prng_key)
    ]


def _known_to_numpy(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "V":
        return array
    return array.view(f"u{array.dtype.itemsize}")


def _in_type(array: np.ndarray, dtype: Any) -> np.ndarray:
    dtype = np.dtype(dtype)
    return array.view(dtype) if dtype.kind == "V" else array.astype(dtype)
