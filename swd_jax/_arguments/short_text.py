"""Users' values in error messages: a line, whatever they are."""

import re
import types
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from swd_jax._arrays import tree_paths

_MAX_LENGTH = 200

_FUNCTION = re.compile(r"<(?:function|bound method) (\S+) (?:at|of) [^>]*>+")
_OBJECT = re.compile(r"<(?:[\w<>]+\.)*(\w+) object at 0x[0-9a-f]+>")


def shown(value: Any) -> str:
    """Return a value as an error message shows it.

    In one line, without its arrays, and without addresses in memory.
    """
    if isinstance(value, optax.GradientTransformation):
        return "an optax transformation"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if tree_paths.is_array(value) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return "a key of random numbers"
    if is_large_array(value):
        return f"an array of shape {tuple(value.shape)} and dtype {value.dtype}"
    if isinstance(value, Tracer):
        return "a traced value"
    arrays = [leaf for leaf in jax.tree.leaves(value) if is_large_array(leaf)]
    if arrays:
        plural = "s" if len(arrays) > 1 else ""
        return f"{type_of(value)} of {len(arrays):,} array{plural}"
    # Modules of Flax and Equinox print all of their fields, a line each.
    if not isinstance(value, str) and "\n" in repr(value):
        return type_of(value)
    text = brief(value)
    if not isinstance(value, types.FunctionType | types.MethodType):
        return text
    return "a lambda" if text == "<lambda>" else f"the function {text}"


def brief(value: Any) -> str:
    """Return the `repr` of a value in one line, cut, and without addresses.

    A function is its name.
    """
    text = _OBJECT.sub(r"\1(...)", _FUNCTION.sub(_name_of_function, repr(value)))
    text = " ".join(text.split())
    return text if len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH]}..."


def type_of(value: Any) -> str:
    """Return "a" and the name of a value's type; "None" for None."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"an {name}" if name[0] in "AEIOUaeiou" else f"a {name}"


def one_of(options: Iterable[Any]) -> str:
    """Return options as a text: "'a', 'b' or 'c'"."""
    *first, last = map(repr, options)
    return f"{', '.join(first)} or {last}" if first else last


def is_large_array(value: Any) -> bool:
    """Whether a value is an array of one dimension or more."""
    return tree_paths.is_array(value) and len(value.shape) > 0


def _name_of_function(match: re.Match[str]) -> str:
    return match[1].rpartition(".")[2]
