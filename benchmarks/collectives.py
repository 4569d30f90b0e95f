"""Bytes that devices exchange in a compiled program."""

import math
import re

from traffic import BITS

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "all-to-all",
    "collective-permute",
    "reduce-scatter",
)


def bytes_exchanged(text: str) -> dict[str, int]:
    """Sum the bytes of the results of each kind of collective in a program.

    Args:
      text: `jax.jit(...).lower(...).compile().as_text()`. Every operation counts once,
        also in a loop.
    """
    return {kind: found["bytes"] for kind, found in collectives_of(text).items()}


def collectives_of(text: str) -> dict[str, dict[str, int]]:
    """Return the number of each kind of collective, and the bytes of their results.

    Args:
      text: as for `bytes_exchanged`.
    """
    found: dict[str, dict[str, int]] = {}
    kinds = "|".join(COLLECTIVES)
    for line in text.splitlines():
        operation = re.search(rf"= (.*?) ({kinds})(?:-start)?\(", line)
        if operation is None:
            continue
        results, kind = operation.groups()
        of_kind = found.setdefault(kind, {"count": 0, "bytes": 0})
        of_kind["count"] += 1
        for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", results):
            elements = math.prod(map(int, filter(None, shape.split(","))))
            of_kind["bytes"] += elements * BITS[dtype] // 8
    return found
