"""One reading of the leaves: what is below some thresholds, and what comes next.

Leaves have a reduction each. In trees of very many leaves, where it is the reductions
that take long to compile and to start, small leaves of the same shape are added up
element by element and share one.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import exact_sums, uint64, variadic_reduce
from swd_jax._arrays.manual_sharding import Shards

# From so many leaves on, small ones share reductions, so many at a time. Not where the
# compiler may divide them among devices, each in its own way: to be added up they would
# have to be moved.
_MANY = 256
_SMALL = 1 << 16
_BATCH = 16


class Tally(NamedTuple):
    """What one reading of the leaves tells of several thresholds of each group."""

    below: jax.Array
    """How much is below each: wide numbers, shape (thresholds, groups, 4)."""
    next: jax.Array
    """The smallest key that is not below it; the largest integer if there is none.
    shape=(thresholds, groups)"""


def tally(
    keys: Sequence[jax.Array],
    groups: Sequence[Sequence[int]],
    thresholds: Sequence[jax.Array],
    costs: Sequence[exact_sums.Cost] | None = None,
    *,
    caps: jax.Array | None = None,
    shards: Shards | None = None,
) -> Tally:
    """Count what is below each threshold, and find the key that comes next.

    Args:
      keys: integers of at least 0 for every leaf, in its shape.
      groups: the positions in `keys` that are counted together.
      thresholds: for every group keys, shape (thresholds,).
      costs: what each element counts for; 1 if not given.
      caps: the most that each leaf may count for, wide numbers, shape (leaves, 4).
      shards: how the leaves are divided by hand, if they are.
    """
    costs = [None] * len(keys) if costs is None else costs
    may_share = caps is None
    sums, minima, ends, order = [], [], [], []
    for group, limits in zip(groups, thresholds, strict=True):
        for batch in _batches(keys, group, costs, shards, may_share=may_share):
            leaves, cost = [keys[i] for i in batch], costs[batch[0]]
            small = may_share and _shares(keys, batch[0], costs)
            order.append(batch[0])
            count = _count_batch if small else _count_leaf
            of_batch, next_keys = count(leaves, limits, cost)
            sums.append(of_batch if shards is None else shards.once(batch[0], of_batch))
            minima.append(next_keys)
        ends.append(len(sums))
    # All batches together as far as possible: with a thousand, what is compiled counts.
    below = jnp.swapaxes(exact_sums.stacked(sums), 0, 1)
    following = jnp.stack(minima, axis=1)
    if caps is not None:
        # Each leaf's own count is needed on every device before it can be capped.
        below = below if shards is None else uint64.carry(shards.total(below))
        below = uint64.minimum(below, caps[np.array(order)][None])
    if len(sums) > len(groups):
        parts = [slice(start, end) for start, end in itertools.pairwise([0, *ends])]
        totals = [uint64.sum_last_but_one(below[:, part]) for part in parts]
        below = jnp.stack(totals, axis=1)
        least = [jnp.min(following[:, part], axis=1) for part in parts]
        following = jnp.stack(least, axis=1)
    if shards is not None:
        # A few numbers for each group cross, however many leaves there are.
        below = uint64.carry(shards.total(below)) if caps is None else below
        following = shards.least(following)
    return Tally(below, following)


def _count_leaf(
    leaves: Sequence[jax.Array], limits: jax.Array, cost: exact_sums.Cost
) -> tuple[jax.Array, jax.Array]:
    """The sums and the next keys of one leaf: an array for each limit."""
    [keys] = leaves
    masks = [keys < limit for limit in limits]
    ones = [mask.astype(jnp.uint32) for mask in masks]
    rest = [jnp.where(mask, _greatest(keys), keys) for mask in masks]
    sums, minima = exact_sums.sums_and_minima(ones, cost, rest)
    return sums, jnp.stack(minima)


def _count_batch(
    leaves: Sequence[jax.Array], limits: jax.Array, cost: exact_sums.Cost
) -> tuple[jax.Array, jax.Array]:
    """The sums and the next keys of a batch: all limits along an axis in front.

    That is less to compile. To run, it reads a leaf once for each limit, which does not
    matter while it stays in the cache.
    """
    axes = range(1, leaves[0].ndim + 1)
    limits = limits.reshape(-1, *(1 for _ in axes))
    counts, rest = [], []
    for keys in leaves:
        mask = keys[None] < limits
        counts.append(mask.astype(jnp.uint32))
        rest.append(jnp.where(mask, _greatest(keys), keys[None]))
    total, least = sum(counts[1:], counts[0]), rest[0]
    for keys in rest[1:]:
        least = jnp.minimum(least, keys)
    [sums], [minima] = variadic_reduce.joint_reduction([total], [least], axes)
    assert cost is None or isinstance(cost, int)
    return exact_sums.times(sums, cost), minima


def _batches(
    keys: Sequence[jax.Array],
    group: Sequence[int],
    costs: Sequence[exact_sums.Cost],
    shards: Shards | None,
    *,
    may_share: bool,
) -> list[list[int]]:
    """The positions of a group, those together that share a reduction."""
    batches: list[list[int]] = []
    open_batches: dict[object, list[int]] = {}
    for i in group:
        if not (may_share and _shares(keys, i, costs)):
            batches.append([i])
            continue
        divided = None if shards is None else shards.of_leaf[i]
        kind = (keys[i].shape, divided, costs[i])
        if len(open_batches.get(kind, [])) in (0, _BATCH):
            open_batches[kind] = []
            batches.append(open_batches[kind])
        open_batches[kind].append(i)
    return batches


def _shares(
    keys: Sequence[jax.Array], i: int, costs: Sequence[exact_sums.Cost]
) -> bool:
    """Whether a leaf may share a reduction."""
    if len(keys) < _MANY or variadic_reduce.may_be_divided():
        return False
    uniform = costs[i] is None or isinstance(costs[i], int)
    return uniform and keys[i].size <= _SMALL


def _greatest(keys: jax.Array) -> np.ndarray:
    return np.array(np.iinfo(keys.dtype).max, keys.dtype)
