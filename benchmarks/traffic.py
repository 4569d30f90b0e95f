"""Bytes that a compiled program moves between a device's processors and its memory.

The text of a compiled program says what every operation reads and writes. What happens
inside of a fusion happens in registers, and arrays in a TPU's vector memory (memory
space S(1)) never leave the chip: neither counts.
"""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

BITS = {
    "pred": 8,
    "s4": 4,
    "u4": 4,
    "s8": 8,
    "u8": 8,
    "s16": 16,
    "u16": 16,
    "bf16": 16,
    "f16": 16,
    "s32": 32,
    "u32": 32,
    "f32": 32,
    "s64": 64,
    "u64": 64,
    "f64": 64,
    "c64": 64,
    "c128": 128,
}

# Operations that name arrays and move nothing.
_FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast optimization-barrier after-all "
    "partition-id replica-id".split()
)
# Those that read only the part of their first operand that they return.
_SLICES = frozenset("slice dynamic-slice gather".split())

_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
_OPERATION = re.compile(
    r"\s*(?P<root>ROOT )?%?(?P<name>[\w.\-+]+) = "
    r"(?P<result>\(.*?\)(?= [a-z])|\S+) (?P<kind>[\w\-]+)\((?P<rest>.*)"
)
_HEAD = re.compile(r"(?P<entry>ENTRY )?%?(?P<name>[\w.\-+]+) \(.*->.*\{\s*$")
_CALLED = re.compile(
    r"(?P<role>calls|body|condition|to_apply|true_computation|false_computation|"
    r"branch_computations)=(?P<names>\{[^}]*\}|%?[\w.\-+]+)"
)


class Bytes(NamedTuple):
    """Bytes read from the memory, and written to it."""

    read: int
    written: int

    def plus(self, other: "Bytes") -> "Bytes":
        return Bytes(self.read + other.read, self.written + other.written)

    def times(self, count: int) -> "Bytes":
        return Bytes(self.read * count, self.written * count)

    @property
    def total(self) -> int:
        """Both."""
        return self.read + self.written


class Traffic(NamedTuple):
    """What a program moves."""

    outside: Bytes
    """In all iterations of loops whose number is known, and outside of loops, with the
    branch of each conditional that moves the most."""
    loops: list[Bytes]
    """In one iteration of each other loop, without such loops inside of it."""


class _Operation(NamedTuple):
    name: str
    result: str
    """Its type: one array or several."""
    kind: str
    operands: list[str]
    attributes: str
    is_root: bool

    def called(self, *roles: str) -> list[str]:
        """Return the computations that it calls, in these roles."""
        return [
            name
            for match in _CALLED.finditer(self.attributes)
            if match["role"] in roles
            for name in re.findall(r"[\w.\-+]+", match["names"])
        ]


_Computation = dict[str, _Operation]


def traffic(text: str) -> Traffic:
    """Count the bytes that a program moves.

    Args:
      text: `jax.jit(...).lower(...).compile().as_text()`.

    Returns:
      The bytes, of one device. Arrays count with the padding of their tiles.
    """
    computations, entry = _parse(text)
    loops: list[Bytes] = []
    return Traffic(_moved(computations[entry], computations, loops), loops)


def bytes_of(arrays: str) -> int:
    """Return how much of a device's memory the arrays of a type take.

    Args:
      arrays: as `f32[8,128]{1,0:T(8,128)}`, or a tuple of such arrays.
    """
    return sum(array.size for array in _arrays(arrays) if array.is_in_memory)


class _Array(NamedTuple):
    size: int
    is_in_memory: bool


def _arrays(result: str) -> list[_Array]:
    """Return the arrays of a type, in its order."""
    return [
        _Array(
            math.prod(_padded([int(axis) for axis in axes.split(",") if axis], layout))
            * BITS[dtype]
            // 8,
            "S(1)" not in layout,
        )
        for dtype, axes, layout in _ARRAY.findall(result)
        if dtype in BITS
    ]


def _padded(shape: list[int], layout: str) -> list[int]:
    """Return a shape in the order of the memory, padded to whole tiles."""
    order, _, tiling = layout.partition(":")
    minor_to_major = [int(axis) for axis in order.split(",") if axis.strip().isdigit()]
    if len(minor_to_major) == len(shape):
        shape = [shape[axis] for axis in reversed(minor_to_major)]
    if tile := re.search(r"T\(([\d,]+)\)", tiling):
        sides = [int(side) for side in tile[1].split(",")]
        shape = [1] * (len(sides) - len(shape)) + shape
        for axis, side in enumerate(reversed(sides), start=1):
            shape[-axis] = -(-shape[-axis] // side) * side
    return shape


def _parse(text: str) -> tuple[dict[str, _Computation], str]:
    computations: dict[str, _Computation] = {}
    current: _Computation | None = None
    entry = ""
    for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
        if head := _HEAD.match(line):
            current = computations[head["name"]] = {}
            if head["entry"]:
                entry = head["name"]
        elif line.startswith("}"):
            current = None
        elif current is not None and (found := _OPERATION.match(line)):
            operands, attributes = _split_at_parenthesis(found["rest"])
            current[found["name"]] = _Operation(
                found["name"],
                found["result"],
                found["kind"],
                re.findall(r"%([\w.\-+]+)", operands) or [operands],
                attributes,
                found["root"] is not None,
            )
    if not entry:
        raise ValueError("the text has no ENTRY: is it that of a compiled program?")
    return computations, entry


def _split_at_parenthesis(rest: str) -> tuple[str, str]:
    """Split what follows an opening parenthesis at the one that closes it."""
    depth = 1
    for i, letter in enumerate(rest):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth == 0:
            return rest[:i], rest[i + 1 :]
    return rest, ""


def _moved(
    computation: _Computation,
    computations: dict[str, _Computation],
    loops: list[Bytes],
) -> Bytes:
    """Return what a computation moves outside of loops, and add its loops."""
    total = Bytes(0, 0)
    for operation in computation.values():
        if operation.kind == "while":
            [name] = operation.called("body")
            inner: list[Bytes] = []
            moved = _moved(computations[name], computations, inner)
            iterations = _iterations(operation, computations)
            if iterations is None:
                loops.append(moved)
            else:
                total = total.plus(moved.times(iterations))
            loops += inner
        elif operation.kind == "conditional":
            names = operation.called(
                "branch_computations", "true_computation", "false_computation"
            )
            branches = (
                _moved(computations[name], computations, loops) for name in names
            )
            total = total.plus(max(branches, key=lambda moved: moved.total))
        elif operation.kind in ("call", "async-start"):
            for name in operation.called("to_apply", "calls"):
                total = total.plus(_moved(computations[name], computations, loops))
        else:
            total = total.plus(_of_operation(operation, computation, computations))
    return total


def _iterations(loop: _Operation, computations: dict[str, _Computation]) -> int | None:
    """Return how often a loop is run, if the program says it.

    XLA for CPUs and GPUs notes it. In a TPU's program the condition compares a counter,
    the only integer that conditions are on, with a constant.
    """
    if noted := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes):
        return int(noted[1])
    [name] = loop.called("condition")
    condition = computations[name]
    (root,) = (operation for operation in condition.values() if operation.is_root)
    if root.kind != "compare" or "direction=LT" not in root.attributes:
        return None
    limit = condition[root.operands[1]]
    is_count = limit.kind == "constant" and limit.result.startswith("s32[]")
    return int(limit.operands[0]) if is_count else None


def _of_operation(
    operation: _Operation,
    computation: _Computation,
    computations: dict[str, _Computation],
) -> Bytes:
    kind = operation.kind
    is_allocation = '"AllocateBuffer"' in operation.attributes
    if kind in _FREE or kind.endswith("-done") or is_allocation:
        return Bytes(0, 0)
    operands = [
        computation[name].result
        for name in dict.fromkeys(operation.operands)
        if name in computation
    ]
    if kind == "copy-start":  # its result: (to, from, context)
        to, origin, *_ = _arrays(operation.result)
        return _copied(origin, to)
    if kind == "slice-start":  # ((from), to, context)
        origin, to, *_ = _arrays(operation.result)
        return _copied(origin, to)
    if kind.endswith("-start") and kind != "all-reduce-start":  # (from, to)
        read = sum(map(bytes_of, operands))
        return Bytes(read, bytes_of(operation.result) - read)
    if kind in _SLICES:
        return _copied(_arrays(operands[0])[0], _arrays(operation.result)[0])
    if kind == "dynamic-update-slice":
        part = sum(map(bytes_of, operands[1:2]))
        return Bytes(part, part)
    if kind == "fusion":
        (name,) = operation.called("calls")
        return _of_fusion(operation, computation, computations[name])
    return Bytes(sum(map(bytes_of, operands)), bytes_of(operation.result))


def _of_fusion(
    operation: _Operation, computation: _Computation, fused: _Computation
) -> Bytes:
    """A fusion reads of an operand what it slices, and writes what it updates."""
    (root,) = (inner for inner in fused.values() if inner.is_root)
    updated: dict[str, int] = {}
    for result in _results(root, fused):
        if result.kind == "dynamic-update-slice":
            whole, part = result.operands[:2]
            updated[_origin(whole, fused)] = _arrays(fused[part].result)[0].size
    parameters = {
        int(inner.operands[0]): inner
        for inner in fused.values()
        if inner.kind == "parameter"
    }
    read, seen = 0, set()
    for i, name in enumerate(operation.operands):
        if name in seen or name not in computation:
            continue
        seen.add(name)
        size = bytes_of(computation[name].result)
        parameter = parameters[i].name
        if size and parameter not in updated:
            read += min(size, _read_of(parameter, fused, size))
    written = bytes_of(operation.result)
    for name, part in updated.items():
        written -= bytes_of(fused[name].result) - part
    return Bytes(read, written)


def _results(root: _Operation, fused: _Computation) -> Iterable[_Operation]:
    if root.kind == "tuple":
        return [fused[name] for name in root.operands]
    return [root]


def _origin(name: str, fused: _Computation) -> str:
    """Return the parameter that a value is, seen through bitcasts; else the value."""
    while fused[name].kind == "bitcast":
        name = fused[name].operands[0]
    return name


def _read_of(parameter: str, fused: _Computation, size: int) -> int:
    """Return how much of a parameter a fusion reads."""
    users = [inner for inner in fused.values() if parameter in inner.operands]
    if users and all(user.kind in _SLICES for user in users):
        return sum(_arrays(user.result)[0].size for user in users)
    return size


def _copied(origin: _Array, to: _Array) -> Bytes:
    """As many bytes as arrive, each counted where it is in memory."""
    return Bytes(
        to.size if origin.is_in_memory else 0, to.size if to.is_in_memory else 0
    )
