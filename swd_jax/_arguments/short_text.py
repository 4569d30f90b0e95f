"""Users' values in error messages: a line, whatever they are."""

from typing import Any

import jax

from swd_jax._arrays import tree_paths

_MAX_LENGTH = 200


def shown(value: Any) -> str:
    """Return a value as an error message shows it: in one line, without its arrays."""
    if is_large_array(value):
        return f"an array of shape {tuple(value.shape)} and dtype {value.dtype}"
    arrays = [leaf for leaf in jax.tree.leaves(value) if is_large_array(leaf)]
    if arrays:
        plural = "s" if len(arrays) > 1 else ""
        return f"a {type(value).__name__} of {len(arrays):,} array{plural}"
    text = " ".join(repr(value).split())
    return text if len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH]}..."


def is_large_array(value: Any) -> bool:
    """Whether a value is an array of one dimension or more."""
    return tree_paths.is_array(value) and len(value.shape) > 0
