"""Random trees of parameters and targets for them.

A `RandomLayout` has what a compiled program depends on: the container, the shapes and
dtypes of the leaves, and the target without its sparsity. `weights` fills it with any
number of trees.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax
import jax
import ml_dtypes
import numpy as np

import swd_jax

NARROW = (np.float16, ml_dtypes.bfloat16, np.float32, np.float32)
WITH_FLOAT64 = (np.float64, np.float64, *NARROW)

SHAPES: Sequence[tuple[int, ...]] = [
    (),
    (0,),
    (1,),
    (7,),
    (12,),
    (0, 4),
    (3, 0),
    (1, 1),
    (5, 4),
    (4, 12),
    (9, 7),
    (2, 3, 4),
    (3, 1, 8),
    (2, 2, 3, 4),
]

SPARSITIES = (0.0, 0.25, 0.29, 0.5, 0.75, 0.9, 0.999, 0.9999999, 1e-7)


class Pair(NamedTuple):
    """A container with names in its paths."""

    first: Any
    second: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    """A dataclass that jax knows as a tree; one of its fields may be None."""

    weights: Any
    empty: Any = None


class RandomLayout:
    """The container, shapes, dtypes and target of many trees."""

    def __init__(self, seed: int, dtypes: Sequence[Any] = NARROW) -> None:
        self.generator = generator = np.random.default_rng(seed)
        self.structure = self._random_structure()
        fitting = [shape for shape in SHAPES if fits(self.structure, shape)]
        self.shapes = [
            fitting[generator.integers(len(fitting))]
            for _ in range(
                generator.choice([1, 2, 3, 4, 6], p=[0.2, 0.3, 0.3, 0.1, 0.1])
            )
        ]
        self.dtypes = [dtypes[generator.integers(len(dtypes))] for _ in self.shapes]
        # A leaf beside those that are pruned, of weights or of integers.
        self.other = [None, np.ones(3, np.float32), np.arange(4)][generator.integers(3)]
        self.container = int(generator.integers(7))
        self.scope = self._random_scope()
        self.min_kept = [0, 0, 1, 3, 0.2, 0.5, 100][generator.integers(7)]
        criteria = ["magnitude"] * 7
        # Rounding decides which of two nearly equal scores is the best of an NM set.
        if not isinstance(self.structure, swd_jax.NM):
            criteria += ["normalized_magnitude"] * 2 + ["rms_normalized_magnitude"]
        self.criterion = criteria[generator.integers(len(criteria))]
        # What is computed besides what every program computes.
        self.also = ["mask", "thresholds", "soft", "hard"][generator.integers(4)]
        self.max_sparsity = getattr(self.structure, "max_sparsity", 1)

    def target(self, sparsity: Any) -> swd_jax.Target:
        """Return the target with a sparsity."""
        return swd_jax.Target(
            sparsity,
            prunable=lambda path, leaf: "other" not in path,
            structure=self.structure,
            scope=self.scope,
            criterion=self.criterion,
            min_kept=self.min_kept,
        )

    def sparsity(self) -> float:
        """Return a random sparsity, a decimal of seven places."""
        if self.generator.random() < 0.4:
            value = self.generator.random()
        else:
            value = SPARSITIES[self.generator.integers(len(SPARSITIES))]
        # NM accepts no more.
        return round(min(value, float(self.max_sparsity)), 7)

    def weights(self) -> list[np.ndarray]:
        """Return random leaves."""
        kind = KINDS[self.generator.integers(len(KINDS))]
        leaves = []
        for shape, dtype in zip(self.shapes, self.dtypes, strict=True):
            # Mostly of one kind, so that leaves tie with each other.
            if self.generator.random() < 0.2:
                kind = KINDS[self.generator.integers(len(KINDS))]
            leaves.append(values(self.generator, kind, shape, np.dtype(dtype)))
        return leaves

    def tree(self, leaves: Sequence[Any], other: Any = None) -> Any:
        """Return leaves in the container; `jax.tree.leaves` has them in this order.

        Args:
          leaves: what stands for the leaves that are pruned, in the order of the tree.
          other: what stands for the leaf that is not pruned; by default the leaf.
        """
        if other is None:
            other = self.other
        # Names of two digits, since jax sorts them.
        names = [f"w{i:02}" for i in range(len(leaves))]
        mapping = dict(zip(names, leaves, strict=True))
        match self.container:
            case 0:
                return {**mapping, "x_other": other}
            case 1:
                reverse = dict(reversed(mapping.items()))
                return {"layer": reverse, "x_other": [other, None]}
            case 2:
                return {"layers": list(leaves), "x_other": (other,)}
            case 3:
                return Pair({"a": tuple(leaves)}, {"other": other})
            case 4:
                return {"a": Layer(Layer(list(leaves))), "other": other}
            case 5:
                frozen = flax.core.FrozenDict(mapping)
                return flax.core.FrozenDict({"params": frozen, "x_other": other})
            case _:
                return [None, *leaves, {"other": other}]

    def leaves(self, tree: Any) -> list[Any]:
        """Return the leaves that are pruned."""
        return jax.tree.leaves(tree)[: len(self.shapes)]

    def pools(self) -> list[list[int]]:
        """Return the positions of the leaves that are ranked together."""
        everything = [*range(len(self.shapes))]
        if self.scope == "global":
            return [everything]
        if self.scope == "local":
            return [[i] for i in everything]
        return [[0], everything[1:]] if len(everything) > 1 else [[0]]

    def pool_sparsities(self, sparsity: float) -> list[float]:
        """Return the sparsity of each pool."""
        if isinstance(self.scope, str):
            return [sparsity] * len(self.pools())
        return [*self.scope.values(), sparsity][: len(self.pools())]

    def __str__(self) -> str:
        leaves = [
            f"{np.dtype(dtype).name}{list(shape)}"
            for shape, dtype in zip(self.shapes, self.dtypes, strict=True)
        ]
        return (
            f"container {self.container}, {', '.join(leaves)}; {self.structure}, "
            f"scope={self.scope}, min_kept={self.min_kept}, {self.criterion}; "
            f"{self.also}"
        )

    def _random_structure(self) -> Any:
        generator = self.generator

        def one_of(*choices: Any) -> Any:
            return choices[generator.integers(len(choices))]

        norm = one_of("rms", "l2", "mean", "l1")
        match generator.choice(4, p=[0.4, 0.2, 0.2, 0.2]):
            case 0:
                return swd_jax.Unstructured()
            case 1:
                n, m = one_of((1, 2), (2, 4), (1, 3), (3, 5), (1, 40))
                return swd_jax.NM(n, m, axis=one_of(-1, 0, -2))
            case 2:
                shape = one_of((2,), (4,), (2, 2), (3, 5), (None, 2), (1, None), (50,))
                return swd_jax.Block(shape, norm=norm)
            case _:
                size = one_of(1, 1, 1, 2, 4)
                return swd_jax.Channel(one_of(-1, 0, -2), size=size, norm=norm)

    def _random_scope(self) -> Any:
        choice = self.generator.integers(4)
        if choice < 2:
            return "global"
        if choice == 2:
            return "local"
        first = ["w00", "layer/w00", "layers/0", "a/0", "weights/0", "w00", "^1$"]
        sparsity = round(self.generator.random(), 3)
        most = float(getattr(self.structure, "max_sparsity", 1))
        return {first[self.container]: min(sparsity, most)}


def fits(structure: Any, shape: tuple[int, ...]) -> bool:
    """Return whether a structure divides a leaf of this shape."""
    if isinstance(structure, swd_jax.Unstructured):
        return True
    if isinstance(structure, swd_jax.Block):
        return len(shape) >= len(structure.shape)
    axis = structure.axis
    if not -len(shape) <= axis < len(shape):
        return False
    return isinstance(structure, swd_jax.NM) or shape[axis] % structure.size == 0


KINDS = (
    "normal",
    "rounded",
    "two values",
    "constant",
    "zeros",
    "mostly zeros",
    "subnormal",
    "not finite",
    "all not finite",
    "wide",
    "large",
    "neighbours",
)


def values(
    generator: np.random.Generator, kind: str, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
    """Return random weights of a kind."""
    info = ml_dtypes.finfo(dtype)
    normal = generator.normal(size=shape)
    signs = np.sign(normal)
    match kind:
        case "normal":
            found = normal
        case "rounded":
            found = normal.round(1)
        case "two values":
            found = np.where(generator.random(shape) < 0.5, 1.0, -2.0)
        case "constant":
            found = 0.5 * signs
        case "zeros":
            found = 0.0 * signs
        case "mostly zeros":
            found = np.where(generator.random(shape) < 0.8, 0.0 * signs, normal)
        case "subnormal":
            steps = generator.integers(0, 5, shape)
            found = signs * steps * float(info.smallest_subnormal)
        case "not finite":
            found = normal.round(1)
            found = np.where(generator.random(shape) < 0.2, np.inf * signs, found)
            found = np.where(generator.random(shape) < 0.2, np.nan, found)
        case "all not finite":
            found = np.where(generator.random(shape) < 0.5, np.inf * signs, np.nan)
        case "wide":
            low, high = np.log(float(info.tiny)), np.log(float(info.max))
            found = signs * np.exp(generator.uniform(low, high, shape))
        case "large":
            found = signs * float(info.max) * generator.choice([1, 0.5, 0.25], shape)
        case _:
            # A few that differ in their last bits only.
            found = 1 + generator.integers(0, 4, shape) * float(info.eps)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(found).astype(dtype)
