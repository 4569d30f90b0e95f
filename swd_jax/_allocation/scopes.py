"""Scopes: which leaves share a threshold, and the sparsity of each such pool."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from jax.typing import ArrayLike

from swd_jax._allocation import erk, exact_counts, sparsity_values
from swd_jax._allocation.prunable_leaves import PrunableLeaf
from swd_jax._arguments.short_text import shown
from swd_jax._arrays import tree_paths
from swd_jax._selection.order_statistics import Pools

Scope: TypeAlias = (
    Literal["global", "local", "erk"]
    | Mapping[str, sparsity_values.Sparsity]
    | Mapping[re.Pattern[str], sparsity_values.Sparsity]
)
"""All leaves together, each by itself, each by itself with a sparsity from its shape,
or pools of leaves by patterns of their paths, with a sparsity for each."""

_NAMES = ("global", "local", "erk")


class FrozenMapping(Mapping[Any, Any]):
    """An immutable, hashable copy of a mapping from patterns to sparsities.

    The order of the entries is part of the value, because a leaf belongs to the first
    pattern that matches it.
    """

    __slots__ = ("_entries",)

    def __init__(self, entries: Mapping[Any, Any]) -> None:
        self._entries = dict(entries)

    def __getitem__(self, pattern: Any) -> Any:
        return self._entries[pattern]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return tuple(self.items()) == tuple(other.items())

    def __hash__(self) -> int:
        return hash(tuple(self.items()))

    def __repr__(self) -> str:
        return repr(self._entries)


def as_scope(scope: Any) -> Literal["global", "local", "erk"] | FrozenMapping:
    """Check a user's scope and make it hashable. Idempotent.

    Args:
      scope: a name, or a mapping from patterns to sparsities.

    Returns:
      The name, or a `FrozenMapping` with `as_sparsity` of every sparsity.

    Raises:
      ValueError: if it is neither, or has an invalid pattern or sparsity.
    """
    if isinstance(scope, FrozenMapping):
        return scope
    if isinstance(scope, str) and scope in _NAMES:
        return scope
    if not isinstance(scope, Mapping) or not scope:
        raise ValueError(
            f"scope must be {', '.join(map(repr, _NAMES))} or a mapping from patterns "
            "of paths to sparsities, such as {'attention': 0.5, 'mlp': 0.9}, got "
            f"{shown(scope)}"
        )
    return FrozenMapping(
        {
            _as_pattern(pattern): sparsity_values.as_sparsity(
                sparsity, name=f"scope[{shown(pattern)}]"
            )
            for pattern, sparsity in scope.items()
        }
    )


def _as_pattern(pattern: Any) -> str | re.Pattern[str]:
    if not isinstance(pattern, str | re.Pattern):
        raise ValueError(
            "scope must map regular expressions on the paths to sparsities, such as "
            f"{{'attention': 0.5, 'mlp': 0.9}}, got {shown(pattern)} for a pattern"
        )
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"scope has {pattern!r}, which is not a regular expression: {error}"
        ) from error
    return pattern


def find_pools(scope: Scope, leaves: Sequence[PrunableLeaf]) -> Pools:
    """Find the positions of the leaves that share a threshold.

    Raises:
      ValueError: if a pattern matches none of the leaves, or only leaves that an
        earlier pattern matches.
    """
    everything = tuple(range(len(leaves)))
    if not isinstance(scope, Mapping):
        return (everything,) if scope == "global" else tuple((i,) for i in everything)
    pools: list[tuple[int, ...]] = []
    unmatched = everything
    for pattern in scope:
        matching = {i for i in everything if re.search(pattern, leaves[i].path)}
        pool = tuple(i for i in unmatched if i in matching)
        if leaves and not pool:
            why = (
                "only leaves that earlier patterns have taken. Put it before them. It "
                "matches"
                if matching
                else "none of the prunable leaves. These are"
            )
            paths = (leaves[i].path for i in sorted(matching) or everything)
            raise ValueError(
                f"scope has the pattern {str(pattern)!r}, which matches {why}:"
                f"{tree_paths.listing(paths)}"
            )
        pools.append(pool)
        unmatched = tuple(i for i in unmatched if i not in matching)
    return (*pools, unmatched) if unmatched else tuple(pools)


def pool_sparsities(
    scope: Scope,
    sparsity: sparsity_values.Sparsity,
    step: ArrayLike | None,
    shapes: Sequence[tuple[int, ...]],
    pools: Pools,
) -> exact_counts.PoolSparsities:
    """Evaluate the sparsity of each pool at a step.

    Args:
      scope: how the leaves are pooled.
      sparsity: of the target.
      step: the optimizer step; None for the values on which schedules settle.
      shapes: of the leaves, as if they were unsharded.
      pools: the positions of the leaves of each pool.

    Returns:
      The sparsities for `exact_counts.pruned_counts`: one for each pool, or, if they
      are traced and differ from leaf to leaf, one array of shape (pools,). Pools of the
      same schedule have the same array, so that it is evaluated once.
    """
    if not isinstance(scope, Mapping):
        value = sparsity_values.sparsity_at(sparsity, step)
        if scope == "erk":
            return erk.erk_sparsities(value, shapes)
        return [value] * len(pools)
    schedules = list(scope.values())
    schedules += [sparsity] * (len(pools) - len(schedules))
    distinct = {id(schedule): schedule for schedule in schedules}
    values = {
        key: sparsity_values.sparsity_at(schedule, step)
        for key, schedule in distinct.items()
    }
    return [values[id(schedule)] for schedule in schedules]
