"""`save_sparse` and `load_sparse`: parameters without their zeros in an `.npz` file."""

import os
from collections.abc import Iterable, Mapping, Set
from typing import Any, TypeVar

import jax
import numpy as np

from swd_jax._arguments.short_text import shown
from swd_jax._arrays import tree_paths
from swd_jax.io import _archive, _exact_cast, _file_entries

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
    the same size, with the type's name in "path.dtype". The sign of -0 is lost where an
    array is stored without its zeros.

    The file is written under another name and then renamed: until all is written, a
    file that was there before stays as it was. A process that is killed meanwhile may
    leave a hidden ".*.npz.partial" beside it.

    Args:
      file: the path to write to; ".npz" is added where it has another ending.
      params: any tree of arrays. Keys of random numbers are left out.

    Returns:
      The size of the file in bytes.

    Raises:
      ValueError: if there is nothing to save, two arrays have the same path, or a path
        ends like the names above and could be mistaken for one of them; or if an array
        does not hold numbers.
      OSError: if the file cannot be written, for example on a full disk.

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
    file = _with_ending(file, "params")
    leaves = _saved_leaves("params", tree_paths.flatten(params))
    if not leaves:
        raise ValueError(
            f"params must be a tree of arrays, and has none: got {shown(params)}"
        )
    entries: dict[str, np.ndarray] = {}
    for path, (_, leaf) in leaves.items():
        array = np.asarray(jax.device_get(leaf))
        if _exact_cast.kind_of(array.dtype) is None:
            raise ValueError(
                f"params has an array of {array.dtype} at {path!r}, which are no "
                "numbers. Take it out of the tree, or save it by itself."
            )
        if not _archive.has_entry_name(path):
            raise ValueError(
                f"params has an array at {path!r}, which cannot be a name in a zip "
                "archive. Rename the key."
            )
        for name, entry in _file_entries.encode(path, array).items():
            if name in entries:
                raise ValueError(_collision(name))
            entries[name] = entry
    unknown = leaves.keys() ^ _file_entries.array_paths(entries)
    if unknown:
        raise ValueError(_collision(min(unknown)))
    _archive.write(file, entries)
    return os.path.getsize(file)


def load_sparse(file: str | os.PathLike[str], like: Tree) -> Tree:
    """Load parameters from a file of `save_sparse`.

    Args:
      file: the path of the file.
      like: a tree of arrays or their shapes, for the structure and the types.

    Returns:
      The tree with the arrays of the file.

    Raises:
      ValueError: if the file is damaged or none of `save_sparse`, if it does not have
        the arrays of the tree, no more and no fewer, each in the tree's shape, or if it
        has one with numbers that the tree's type cannot represent exactly.
      OSError: if the file cannot be read, for example because it is not there.

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
    file = _with_ending(file, "like")
    flat = tree_paths.flatten(like)
    leaves = _saved_leaves("like", flat)
    loaded: dict[int, Any] = {}
    with _archive.read(file) as entries:
        paths = _file_entries.array_paths(entries)
        if paths != leaves.keys():
            raise ValueError(_difference(file, paths, leaves.keys()))
        for path, (position, leaf) in leaves.items():
            loaded[position] = _load(file, path, leaf, entries)
    return flat.rebuild(loaded)


def _load(
    file: str, path: str, leaf: Any, entries: Mapping[str, np.ndarray]
) -> jax.Array:
    """One array of the file, in the shape and the type of the leaf."""
    try:
        parts = _file_entries.parts(path, entries)
        # Compared first, so that a damaged shape allocates no memory.
        shape = _file_entries.shape(path, parts)
        array = _file_entries.decode(path, parts) if shape == leaf.shape else None
    except ValueError as error:
        raise ValueError(f"{file!r} is damaged at {path!r}: {error}") from error
    if array is None:
        raise ValueError(
            f"{file!r} has an array of shape {shape} for {path!r}, and like has "
            f"{leaf.shape}. Give like the shapes of what was saved"
        )
    if _exact_cast.kind_of(array.dtype) is None:
        raise ValueError(
            f"{file!r} has {array.dtype} for {path!r}, which are no numbers, or of a "
            "type that NumPy alone has saved without its name: save them anew with "
            "save_sparse"
        )
    # With jax_enable_x64 off, jax has no 64-bit arrays.
    dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
    exact = _exact_cast.cast(array, dtype)
    if exact is None:
        raise ValueError(
            f"{file!r} has {array.dtype} numbers for {path!r} that {dtype} cannot "
            "represent exactly. Load them with their own type in like, and convert "
            "them with astype."
        )
    return jax.numpy.asarray(exact)


def _difference(file: str, paths: Set[str], wanted: Set[str]) -> str:
    """How the paths of a file differ from those of the tree."""
    if missing := sorted(wanted - paths):
        return (
            f"{file!r} has nothing for {missing[0]!r}. It holds:"
            f"{tree_paths.listing(sorted(paths))}"
        )
    return (
        f"{file!r} has arrays that like lacks. Add them to like, if this is the file "
        f"of the same model:{tree_paths.listing(sorted(paths - wanted))}"
    )


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


def _with_ending(file: str | os.PathLike[str], second: str) -> str:
    """Return a path with the ending of the files; `second` is the next argument."""
    if not isinstance(file, str | os.PathLike):
        raise ValueError(
            f"file must be a path, got {shown(file)}. It comes first, (file, {second})"
        )
    file = os.fspath(file)
    return file if file.endswith(".npz") else f"{file}.npz"
