"""Prunable leaves: found by a pattern of the path, a predicate or a tree of bools."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._allocation import weight_or_bias
from swd_jax._allocation.weight_or_bias import is_weight
from swd_jax._arguments import validation
from swd_jax._arguments.short_text import brief, shown
from swd_jax._arrays import tree_paths

Prunable: TypeAlias = str | re.Pattern[str] | Callable[[str, Any], bool] | Any
"""A regular expression, a predicate (path, leaf) -> bool, or a tree of bools."""

_NORMALISATION_CLASSES = {
    *("BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "RMSNorm"),
    "StateIndex",  # statistics of Equinox layers
}


class PrunableLeaf(NamedTuple):
    """A leaf that a target prunes."""

    position: int  # among the leaves of the whole tree
    path: str
    weights: jax.Array


@dataclasses.dataclass(frozen=True)
class BoolTree:
    """An immutable, hashable copy of a tree of bools.

    Attributes:
      entries: the path and the value of each bool, in the order of the tree.
    """

    entries: tuple[tuple[str, bool], ...]

    @classmethod
    def from_tree(cls, tree: Any) -> "BoolTree":
        """Copy the bools of any tree, such as a dict, a list or a module."""
        flat = tree_paths.flatten(tree)
        pairs = zip(flat.paths, flat.leaves, strict=True)
        return cls(tuple((path, bool(value)) for path, value in pairs))

    def __repr__(self) -> str:
        bools = ", ".join(f"{path!r}: {value}" for path, value in self.entries)
        return f"{{{bools}}}"


def as_prunable(prunable: Prunable) -> Prunable:
    """Check a user's choice of leaves and make it hashable. Idempotent.

    Args:
      prunable: a regular expression, a predicate or a tree of bools.

    Returns:
      A `BoolTree` for a tree of bools; anything else as it was given.

    Raises:
      ValueError: for an invalid regular expression, or for another type.
    """
    if isinstance(prunable, BoolTree | re.Pattern):
        return prunable
    if isinstance(prunable, str):
        try:
            re.compile(prunable)
        except re.error as error:
            raise ValueError(
                f"prunable={prunable!r} is not a regular expression: {error}"
            ) from error
        return prunable
    # Trees before predicates, because a module of bools may be callable.
    if _is_tree_of_bools(prunable):
        return BoolTree.from_tree(prunable)
    if not callable(prunable):
        raise ValueError(
            "prunable must be a regular expression on the path ('kernel|embedding'), a "
            f"predicate (path, leaf) -> bool or a tree of bools, got {shown(prunable)}"
        )
    reason = validation.why_not_callable(prunable, 2)
    if reason is not None:
        raise ValueError(
            "prunable must be a predicate (path, leaf) -> bool, and "
            f"{shown(prunable)} does not take two arguments: {reason}"
        )
    return prunable


def _is_tree_of_bools(prunable: Any) -> bool:
    leaves = jax.tree.leaves(prunable)
    return bool(leaves) and all(isinstance(leaf, bool | np.bool_) for leaf in leaves)


class Chosen(NamedTuple):
    """The leaves of some parameters that are pruned, and those that a name spares."""

    leaves: list[PrunableLeaf]
    left_by_name: tuple[str, ...]
    """The paths of floating-point leaves of two or more dimensions that the default
    takes for biases or scales; () if the user has chosen the leaves."""


def find_prunable(
    prunable: Prunable, params: tree_paths.FlatTree, tree: Any
) -> list[PrunableLeaf]:
    """Find the leaves to prune, in the tree's order: those of `choose`."""
    return choose(prunable, params, tree).leaves


def choose(prunable: Prunable, params: tree_paths.FlatTree, tree: Any) -> Chosen:
    """Find the leaves to prune, in the tree's order.

    Leaves of integers, of bools and of random keys are left alone.

    Args:
      prunable: which leaves.
      params: the parameters, flattened.
      tree: the same parameters as a tree.

    Returns:
      The leaves; none for a tree that has no arrays.

    Raises:
      ValueError: if none of the leaves matches, all that match are no floating-point
        weights, one of them has complex numbers, or a tree of bools does not fit the
        parameters.
    """
    prunable = as_prunable(prunable)
    matches = _matcher(prunable, params, tree)
    arrays = [PrunableLeaf(*array) for array in tree_paths.arrays(params)]
    matching = [leaf for leaf in arrays if matches(leaf)]
    leaves = [leaf for leaf in matching if _is_of(leaf, jnp.floating)]
    left_by_name: tuple[str, ...] = ()
    if prunable is is_weight:
        positions = {leaf.position for leaf in matching}
        left_by_name = tuple(
            leaf.path
            for leaf in arrays
            if leaf.position not in positions
            and leaf.weights.ndim >= 2
            and _is_of(leaf, jnp.floating)
        )
    if arrays and not matching:
        left = ""
        if left_by_name:
            left = f"Left dense by name:{tree_paths.listing(left_by_name)}\n"
        raise ValueError(
            f"prunable={_described(prunable)} matches none of the parameters. {left}"
            f"Their paths are:{tree_paths.listing(leaf.path for leaf in arrays)}"
        )
    _check_numbers(matching, leaves)
    return Chosen(leaves, left_by_name)


def _check_numbers(matching: list[PrunableLeaf], leaves: list[PrunableLeaf]) -> None:
    """Raise if a leaf has complex numbers, or no leaf has floating-point ones."""
    for leaf in matching:
        described = f"{leaf.path!r}, which holds {leaf.weights.dtype} numbers"
        if _is_of(leaf, jnp.complexfloating):
            raise ValueError(
                f"prunable matches {described}, not floating-point weights. Leave it "
                "out, for instance with a predicate: prunable=lambda path, leaf: ..."
            )
        if not leaves:
            raise ValueError(
                f"prunable matches {described}, and no floating-point weights. It "
                f"matches:{tree_paths.listing(leaf.path for leaf in matching)}"
            )


def _is_of(leaf: PrunableLeaf, kind: Any) -> bool:
    return bool(jnp.issubdtype(leaf.weights.dtype, kind))


def _matcher(
    prunable: Prunable, params: tree_paths.FlatTree, tree: Any
) -> Callable[[PrunableLeaf], bool]:
    if isinstance(prunable, str | re.Pattern):
        pattern = re.compile(prunable)
        return lambda leaf: pattern.search(leaf.path) is not None
    if isinstance(prunable, BoolTree):
        bools = _bools_by_position(prunable, params)
        return lambda leaf: bools[leaf.position]
    if prunable is is_weight:
        return _default_matcher(params, tree)
    return lambda leaf: _call_predicate(prunable, leaf.path, leaf.weights)


def _default_matcher(
    params: tree_paths.FlatTree, tree: Any
) -> Callable[[PrunableLeaf], bool]:
    """Return `is_weight` with what the tree says besides a leaf's path."""
    layers = _normalisation_layers(tree)
    # By the paths that name the leaves: without the fields of wrappers, except where
    # the field is a name itself, as the weight of a linear layer without a bias.
    names = [
        path if weight_or_bias.says_matrix(path) else unwrapped
        for path, unwrapped in zip(params.paths, params.unwrapped_paths, strict=True)
    ]
    siblings: dict[str, dict[str, Any]] = {}
    for position, _, array in tree_paths.arrays(params):
        name = names[position]
        siblings.setdefault(name.rpartition("/")[0], {})[name] = array

    def is_named_weight(leaf: PrunableLeaf) -> bool:
        name = names[leaf.position]
        beside = siblings[name.rpartition("/")[0]]
        return weight_or_bias.is_named_weight(name, beside) and (
            name == leaf.path or weight_or_bias.is_named_weight(leaf.path)
        )

    return lambda leaf: (
        leaf.weights.ndim >= 2
        and is_named_weight(leaf)
        and not any(tree_paths.is_inside(leaf.path, layer) for layer in layers)
    )


def _call_predicate(predicate: Callable[[str, Any], Any], path: str, leaf: Any) -> bool:
    answer = predicate(path, leaf)
    if not isinstance(answer, bool | np.bool_):
        raise ValueError(
            "prunable must be a predicate (path, leaf) -> bool, and answered "
            f"{shown(answer)} for {path!r}"
        )
    return bool(answer)


def _bools_by_position(bools: BoolTree, params: tree_paths.FlatTree) -> dict[int, bool]:
    """Give each parameter its own bool, or that of the subtree that contains it."""
    paths = [path for path, _ in bools.entries]
    if paths == params.paths:
        return dict(enumerate(value for _, value in bools.entries))
    by_position: dict[int, bool] = {}
    for node, value in bools.entries:
        inside = [
            i for i, p in enumerate(params.paths) if tree_paths.is_inside(p, node)
        ]
        if not inside and not tree_paths.is_masked(node, params):
            raise ValueError(
                f"prunable has a bool at {node!r}, where the parameters have nothing. "
                f"Their paths are:{tree_paths.listing(params.paths)}"
            )
        by_position.update(dict.fromkeys(inside, value))
    for position, path, _ in tree_paths.arrays(params):
        if position not in by_position:
            raise ValueError(
                f"prunable has no bool for the parameter {path!r}. Give it the "
                "structure of the parameters, or of their upper levels."
            )
    return by_position


def _normalisation_layers(tree: Any) -> list[str]:
    """List the paths of modules that are normalisation layers by their class.

    Paths alone do not tell: an Equinox layer in a list has no name, and its scale may
    have as many dimensions as a kernel.
    """

    def is_layer(node: Any) -> bool:
        names = {base.__name__ for base in type(node).__mro__}
        return not names.isdisjoint(_NORMALISATION_CLASSES)

    nodes, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_layer)
    return [
        tree_paths.path_name(key_path) for key_path, node in nodes if is_layer(node)
    ]


def _described(prunable: Prunable) -> str:
    if prunable is is_weight:
        return "is_weight (two or more dimensions, no bias, no scale)"
    return brief(prunable)
