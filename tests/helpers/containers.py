"""Containers of parameters: each makes a tree of three leaves, in this order."""

import collections
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import equinox as eqx
import flax.linen as nn
import flax.struct
import jax
from flax import nnx
from flax.core import FrozenDict


class Named(NamedTuple):
    a_kernel: Any
    b_kernel: Any
    c_bias: Any


@flax.struct.dataclass
class Struct:
    a_kernel: Any
    b_kernel: Any
    c_bias: Any
    width: int = flax.struct.field(pytree_node=False, default=5)


@chex.dataclass
class Chex:
    a_kernel: Any
    b_kernel: Any
    c_bias: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Registered:
    a_kernel: Any
    b_kernel: Any
    c_bias: Any


class Module(eqx.Module):
    a_kernel: Any
    b_kernel: Any
    c_bias: Any
    nothing: None = None
    name: str = eqx.field(static=True, default="module")


class Variables(nnx.Module):
    def __init__(self, a, b, c):
        self.a_kernel = nnx.Param(a)
        self.b_kernel = nnx.Param(b)
        self.c_bias = nnx.Param(c)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class NamedArray:
    """An array with names of its axes, as haliax and penzai have."""

    array: Any
    axes: tuple[str, ...] = dataclasses.field(metadata={"static": True})


@jax.tree_util.register_pytree_with_keys_class
class Labelled:
    """A parameter with a label and its value, as penzai has, with keys of its own."""

    def __init__(self, value, label):
        self.value, self.label = value, label

    def tree_flatten_with_keys(self):
        return [(jax.tree_util.GetAttrKey("value"), self.value)], self.label

    @classmethod
    def tree_unflatten(cls, label, children):
        return cls(*children, label)


@jax.tree_util.register_pytree_node_class
class WithoutKeys:
    """A class of a user that is registered without names for its fields."""

    def __init__(self, *leaves):
        self.leaves = leaves

    def tree_flatten(self):
        return self.leaves, None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(*leaves)


def plain(a, b, c):
    return {"a_kernel": a, "b_kernel": b, "c_bias": c}


def boxed(box):
    """Return a container of dicts in which `box` is put round every leaf."""
    return lambda *leaves: plain(*map(box, leaves))


# Of the last leaf nothing is prunable.
CONTAINERS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "dict": plain,
    "nested dicts": lambda a, b, c: {
        "x": {"kernel": a},
        "y": {"d": {"kernel": b, "z": c}},
    },
    "OrderedDict": lambda a, b, c: collections.OrderedDict(z=a, y=b, x=c),
    "FrozenDict": lambda *leaves: FrozenDict(plain(*leaves)),
    "haiku": lambda a, b, c: {"conv": {"w": a}, "mlp/~/linear_0": {"w": b, "w_b": c}},
    "list": lambda *leaves: list(leaves),
    "tuple": lambda *leaves: leaves,
    "lists of dicts": lambda a, b, c: [{"w": a}, [], ({"w": b}, {"b": c})],
    "NamedTuple": Named,
    "flax.struct": Struct,
    "chex.dataclass": lambda a, b, c: Chex(a_kernel=a, b_kernel=b, c_bias=c),
    "dataclass": Registered,
    "eqx.Module": Module,
    "nnx.State": lambda *leaves: nnx.state(Variables(*leaves), nnx.Param),
    "None among the leaves": lambda a, b, c: {
        "a": a,
        "m": None,
        "n": b,
        "z": [None, c],
    },
    "nnx.Module": Variables,
    "linen boxes": boxed(lambda leaf: nn.Partitioned(leaf, names=(None,) * leaf.ndim)),
    "named arrays": boxed(lambda leaf: NamedArray(leaf, tuple("abc"[: leaf.ndim]))),
    "labelled values": boxed(lambda leaf: Labelled(leaf, "parameter")),
    "without keys": WithoutKeys,
}
