"""The combinations of the table, and what becomes of each."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from tests.helpers.containers import CONTAINERS
from tests.table.dtypes import DTYPES, Dtypes
from tests.table.methods import METHODS, NOTHING
from tests.table.wraps import WRAPS, Case

SHAPES = ((8, 6), (4, 8), (6,))


def case(method: str | None, dtypes: str = "float32", container: str = "dict") -> Case:
    row = NOTHING if method is None else METHODS[method]
    return Case(row, parameters(container, DTYPES[dtypes]), DTYPES[dtypes])


def parameters(container: str, dtypes: Dtypes) -> Any:
    names = (dtypes.first, dtypes.others, dtypes.others)
    leaves = [
        jax.ShapeDtypeStruct(shape, name)
        for shape, name in zip(SHAPES, names, strict=True)
    ]
    return CONTAINERS[container](*leaves)


def check(
    method: str | None,
    wrap: str = "jit",
    dtypes: str = "float32",
    container: str = "dict",
) -> None:
    """Raise if a combination fails; without a method, if optax by itself fails."""
    with jax.enable_x64("float64" in dtypes):
        WRAPS[wrap](case(method, dtypes, container))


def failures(check: Callable[[str], None], names: Iterable[str]) -> list[str]:
    """Return every name at which a check fails, with the error."""
    failed = []
    for name in names:
        try:
            check(name)
        except Exception as error:
            failed.append(f"{name}: {type(error).__name__}: {error}")
    return failed


def combinations(num_dtypes: int) -> Iterator[tuple[str, str, str]]:
    """Yield wraps, dtypes and containers such that any two of them meet.

    Args:
      num_dtypes: how many dtypes each wrap has with each container. With 1, any two
        still meet, since there are fewer dtypes than wraps and than containers.
    """
    dtypes = list(DTYPES)
    for i, wrap in enumerate(WRAPS):
        for j, container in enumerate(CONTAINERS):
            for shift in range(num_dtypes):
                yield wrap, dtypes[(i + j + shift) % len(dtypes)], container
