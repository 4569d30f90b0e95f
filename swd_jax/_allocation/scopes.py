"""Scopes: which leaves are ranked together, and how much each such group loses."""

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from swd_jax._allocation import exact_counts
from swd_jax._allocation.prunable_leaves import PrunableLeaf
from swd_jax._arrays import tree_paths
from swd_jax._selection.order_statistics import Groups

Scope: TypeAlias = (
    Literal["global", "local", "erk"] | Mapping[str, exact_counts.Sparsity]
)
"""All leaves together, each by itself, each by itself with a sparsity from its shape,
or groups of leaves by patterns of their paths, with a sparsity for each."""

_NAMES = ("global", "local", "erk")

# A traced float32 tells so many decimal places apart, near 1.
_PLACES = 10**7


def check_scope(scope: Any) -> None:
    """Raise what is known to be wrong before there are parameters."""
    if isinstance(scope, str) and scope in _NAMES:
        return
    if not isinstance(scope, Mapping) or not scope:
        raise ValueError(
            f"scope must be one of {_NAMES} or a mapping from patterns of paths to "
            f"sparsities, such as {{'attention': 0.5, 'mlp': 0.9}}, got {scope!r}"
        )
    for pattern, sparsity in scope.items():
        if not isinstance(pattern, str | re.Pattern):
            raise ValueError(
                f"scope must map regular expressions to sparsities, got {pattern!r}"
            )
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"scope has {pattern!r}, which is not a regular expression: {error}"
            ) from error
        exact_counts.check_sparsity(sparsity)


def find_groups(scope: Scope, leaves: Sequence[PrunableLeaf]) -> Groups:
    """The positions of the leaves that are ranked together.

    Raises:
      ValueError: if a pattern matches none of the leaves, or none that an earlier one
        has not taken.
    """
    everything = tuple(range(len(leaves)))
    if not isinstance(scope, Mapping):
        return (everything,) if scope == "global" else tuple((i,) for i in everything)
    groups, left = [], everything
    for pattern in scope:
        matching = [i for i in everything if re.search(pattern, leaves[i].path)]
        group = tuple(i for i in matching if i in left)
        if leaves and not group:
            why = "but earlier patterns have taken" if matching else "among"
            paths = (leaves[i].path for i in matching or everything)
            raise ValueError(
                f"scope has the pattern {str(pattern)!r}, which matches nothing {why} "
                f"the prunable leaves:{tree_paths.listing(paths)}"
            )
        groups.append(group)
        left = tuple(i for i in left if i not in group)
    return (*groups, left) if left else tuple(groups)


def group_sparsities(
    scope: Scope,
    sparsity: exact_counts.Sparsity,
    step: ArrayLike | None,
    shapes: Sequence[tuple[int, ...]],
    groups: Groups,
) -> list[Fraction | jax.Array]:
    """The sparsity of each group at a step.

    Args:
      scope: how the leaves are grouped.
      sparsity: of the target.
      step: the optimizer step; None for the values on which schedules settle.
      shapes: of the leaves, as if they were whole.
      groups: the positions of the leaves that are ranked together.
    """
    if isinstance(scope, Mapping):
        own = [exact_counts.sparsity_at(each, step) for each in scope.values()]
        rest = len(groups) - len(own)
        return own + [exact_counts.sparsity_at(sparsity, step) for _ in range(rest)]
    wanted = exact_counts.sparsity_at(sparsity, step)
    if scope == "erk":
        return erk_sparsities(wanted, shapes)
    return [wanted] * len(groups)


def erk_sparsities(
    sparsity: Fraction | jax.Array, shapes: Sequence[tuple[int, ...]]
) -> list[Fraction | jax.Array]:
    r"""The sparsity of each leaf after Erdos and Renyi, with kernels.

    .. math:: 1 - s_l = \min(1, \epsilon\, r_l), \quad
              r_l = \frac{\sum_d n_{l,d}}{\prod_d n_{l,d}}

    with the lengths :math:`n_{l,d}` of the leaf's dimensions, and the
    :math:`\epsilon` for which all leaves together have the sparsity wanted. The leaves
    with the largest ratios stay dense until it fits.

    Args:
      sparsity: of all leaves together.
      shapes: of the leaves.

    Returns:
      The leaves' sparsities: exact fractions of one that is known, and of a schedule's
      traced value rounded down to seven decimal places.

    Source: Evci et al., "Rigging the lottery" (arXiv 1911.11134), section 3, part 1.
    """
    sizes = [max(int(np.prod(shape, dtype=object)), 1) for shape in shapes]
    ratios = [
        Fraction(max(sum(shape), 1), size)
        for shape, size in zip(shapes, sizes, strict=True)
    ]
    order = sorted(range(len(shapes)), key=lambda i: -ratios[i])
    # With the first j of them dense, epsilon is (kept - dense[j]) / sparse[j].
    total = sum(sizes)
    dense = [sum(sizes[i] for i in order[:j]) for j in range(len(order))]
    sparse = [sum(ratios[i] * sizes[i] for i in order[j:]) for j in range(len(order))]
    if isinstance(sparsity, Fraction):
        kept = (1 - sparsity) * total
        epsilons = [(kept - dense[j]) / sparse[j] for j in range(len(order))]
        # At the latest with all but one of them dense it fits.
        pairs = zip(epsilons, order, strict=True)
        first = [epsilon * ratios[i] <= 1 for epsilon, i in pairs].index(True)
        left = {i: 1 - epsilons[first] * ratios[i] for i in order[first:]}
        return [left.get(i, Fraction(0)) for i in range(len(shapes))]

    def floats(numbers: Sequence[Any]) -> np.ndarray:
        return np.array([float(number) for number in numbers], np.float32)

    # As shares of the total, which float32 can hold however many weights there are.
    kept = 1 - sparsity
    shares = floats([Fraction(each, total) for each in dense])
    epsilons = (kept - shares) / floats([each / total for each in sparse])
    in_order = floats([ratios[i] for i in order])
    fits = epsilons * in_order <= 1
    first = jnp.argmax(fits)
    densities = jnp.minimum(epsilons[first] * in_order, 1)
    is_dense = (np.arange(len(order)) < first) | ~jnp.any(fits)
    found = jnp.where(is_dense, 0, jnp.floor((1 - densities) * _PLACES) / _PLACES)
    place = {i: rank for rank, i in enumerate(order)}
    return [found[place[i]] for i in range(len(shapes))]


def as_scope(s):
    check_scope(s)
    return s
