"""The combinations of the table, and what becomes of each."""

import itertools
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


def combinations(columns: int) -> Iterator[tuple[str, str, str]]:
    """Yield wraps, dtypes and containers.

    Args:
      columns: 1 for every entry with the first ones of the others, 2 for combinations
        such that any two entries meet, 3 for all.
    """
    wraps, dtypes, containers = list(WRAPS), list(DTYPES), list(CONTAINERS)
    if columns == 1:
        yield from ((wrap, dtypes[0], containers[0]) for wrap in wraps)
        yield from ((wraps[0], each, containers[0]) for each in dtypes[1:])
        yield from ((wraps[0], dtypes[0], each) for each in containers[1:])
        return
    # There are fewer dtypes than wraps and than containers: in turn, each meets all.
    number = 1 if columns == 2 else len(dtypes)
    for (i, wrap), (j, container) in itertools.product(
        enumerate(wraps), enumerate(containers)
    ):
        for shift in range(number):
            yield wrap, dtypes[(i + j + shift) % len(dtypes)], container


def is_explained(method: str, wrap: str, dtypes: str) -> bool:
    """Say which combinations docs/chain.md declares impossible, and why.

    The updates of `sparsify` and `latent_pruning` are wider than their gradients where
    these have fewer bits than the weights, and `cond` wants equal types.
    """
    return (
        METHODS[method].wide_updates
        and wrap in {"apply_if_finite", "conditionally_transform"}
        and dtypes
        in {"float32, gradients in bfloat16", "float32, gradients in float16"}
    )
