"""Whole numbers that modules keep in fields, and in tuples and dataclasses there."""

import copy
import dataclasses
import types
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from swd_jax._shrinking.frameworks import module_trees

# A configuration may hold another one.
_MAX_DEPTH = 4


class SizeField(NamedTuple):
    """A whole number in a module."""

    prefix: str
    """The module's path."""
    module: Any
    keys: tuple[Any, ...]
    """The attribute, and the keys inside its value: ("config", "heads")."""
    value: int

    @property
    def path(self) -> str:
        """The number's path in the tree."""
        return "/".join(map(str, (*filter(None, [self.prefix]), *self.keys)))


def iterate_size_fields(tree: Any) -> Iterator[SizeField]:
    """All whole numbers from 2 on in the modules of a tree."""
    for prefix, module in module_trees.iterate_modules(tree):
        for name, value in module_trees.attributes(module):
            for keys, number in _numbers(value, (name,)):
                yield SizeField(prefix, module, keys, number)


def set_value(module: Any, keys: tuple[Any, ...], value: Any) -> None:
    """Set a number in a module.

    What contains it is copied, because other modules may share it.
    """
    name, *rest = keys
    # Equinox modules are frozen dataclasses.
    object.__setattr__(module, name, _replaced(getattr(module, name), rest, value))


def _numbers(
    value: Any, keys: tuple[Any, ...]
) -> Iterator[tuple[tuple[Any, ...], int]]:
    if isinstance(value, int) and not isinstance(value, bool):
        if value >= 2:
            yield keys, value
    elif len(keys) < _MAX_DEPTH:
        for key, inner in _items(value):
            yield from _numbers(inner, (*keys, key))


def _items(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, tuple | list):
        return list(enumerate(value))
    if isinstance(value, Mapping):
        return [(key, inner) for key, inner in value.items() if isinstance(key, str)]
    if _is_configuration(value):
        return list(vars(value).items())
    return []


def _is_configuration(value: Any) -> bool:
    is_dataclass = dataclasses.is_dataclass(value) and hasattr(value, "__dict__")
    return (is_dataclass or isinstance(value, types.SimpleNamespace)) and not (
        isinstance(value, type) or module_trees.is_module(value)
    )


def _replaced(container: Any, keys: list[Any], value: Any) -> Any:
    if not keys:
        return value
    key, *rest = keys
    if isinstance(container, tuple | list):
        items = [*container]
        items[key] = _replaced(items[key], rest, value)
        is_named = hasattr(container, "_fields")
        return type(container)(*items) if is_named else type(container)(items)
    if isinstance(container, Mapping):
        new_value = _replaced(container[key], rest, value)
        return type(container)({**container, key: new_value})  # pyright: ignore[reportCallIssue]
    new = copy.copy(container)
    object.__setattr__(new, key, _replaced(getattr(container, key), rest, value))
    return new
