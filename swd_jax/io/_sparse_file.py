"""`save_sparse` and `load_sparse`: parameters without their zeros in an `.npz` file."""

import os
import zipfile
from collections.abc import Iterable
from typing import Any, TypeVar

import jax
import numpy as np

from swd_jax._arrays import tree_paths
from swd_jax.io import _exact_cast, _file_entries

Tree = TypeVar("Tree")


def save_sparse(file: str | os.PathLike[str], params: Any) -> int:
    """Save parameters without their zeros.

    The file is an ordinary compressed `.npz`. Of an array at "path" it has either
    "path", the array itself, or, where that is smaller,

    - "path.mask": the bits of an array that is True where the weight is not zero, in
      row-major order, as `numpy.packbits` gives them,
    - "path.values": the nonzero weights, in the same order,
    - "path.shape": the array's shape.

    Types that NumPy does not have, such as bfloat16, are stored as unsigned integers of
    the same size, with the type's name in "path.dtype".

    Args:
      file: the path to write to; ".npz" is added where it has another ending.
      params: any tree of arrays. Keys of random numbers are left out.

    Returns:
      The size of the file in bytes.

    Raises:
      ValueError: if there is nothing to save, two arrays have the same path, or a path
        ends like the names above and could be mistaken for one of them.

    Where it stands: after `prune`, in place of a checkpoint.

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
    leaves = _saved_leaves("params", tree_paths.flatten(params))
    if not leaves:
        raise ValueError("params has no arrays to save")
    entries: dict[str, np.ndarray] = {}
    for path, (_, leaf) in leaves.items():
        array = np.asarray(jax.device_get(leaf))
        for name, entry in _file_entries.encode(path, array).items():
            if name in entries:
                raise ValueError(_collision(name))
            entries[name] = entry
    unknown = leaves.keys() ^ _file_entries.array_paths(entries)
    if unknown:
        raise ValueError(_collision(min(unknown)))
    file = _with_ending(file)
    # numpy.savez_compressed takes the names as keyword arguments, and so does not
    # accept "file" and "allow_pickle".
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, entry in entries.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, entry, allow_pickle=False)
    return os.path.getsize(file)


def load_sparse(file: str | os.PathLike[str], like: Tree) -> Tree:
    """Load parameters from a file of `save_sparse`.

    Args:
      file: the path of the file.
      like: a tree of arrays or their shapes, for the structure and the types.

    Returns:
      The tree with the arrays of the file.

    Raises:
      ValueError: if the file does not have the arrays of the tree, or has one with
        numbers that the tree's type cannot represent exactly.

    Where it stands: in place of training, before the model is used or shrunk.

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
    file = _with_ending(file)
    flat = tree_paths.flatten(like)
    loaded: dict[int, Any] = {}
    with np.load(file) as entries:
        paths = _file_entries.array_paths(entries.files)
        for path, (position, leaf) in _saved_leaves("like", flat).items():
            if path not in paths:
                raise ValueError(
                    f"{file!r} has nothing for {path!r}. It holds:"
                    f"{tree_paths.listing(sorted(paths))}"
                )
            array = _file_entries.decode(path, entries)
            if array.shape != leaf.shape:
                raise ValueError(
                    f"{file!r} has an array of shape {array.shape} for {path!r}, and "
                    f"like has {leaf.shape}"
                )
            # With jax_enable_x64 off, jax has no 64-bit arrays.
            dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
            exact = _exact_cast.cast(array, dtype)
            if exact is None:
                raise ValueError(
                    f"{file!r} has {array.dtype} numbers for {path!r} that {dtype} "
                    "cannot represent exactly. Load them with their own type in like, "
                    "and convert them with astype."
                )
            loaded[position] = jax.numpy.asarray(exact)
    return flat.rebuild(loaded)


def _saved_leaves(name: str, flat: tree_paths.FlatTree) -> dict[str, tuple[int, Any]]:
    """Position and leaf of the arrays that are saved, by path: no PRNG keys."""
    leaves: dict[str, tuple[int, Any]] = {}
    for position, path, leaf in tree_paths.arrays(flat):
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            continue
        if path in leaves:
            raise ValueError(
                f"{name} has two arrays with the path {path!r}. Paths are keys joined "
                "by '/': rename a key that contains '/' itself."
            )
        leaves[path] = position, leaf
    return leaves


def _collision(name: str) -> str:
    endings: Iterable[str] = _file_entries.ENDINGS
    return (
        f"params has an array at {name!r}, which is also a name that the file needs "
        f"for a part of another array. Rename it: {', '.join(endings)} are endings of "
        "such names."
    )


def _with_ending(file: str | os.PathLike[str]) -> str:
    file = os.fspath(file)
    return file if file.endswith(".npz") else f"{file}.npz"
