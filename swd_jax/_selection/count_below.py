"""One pass over the leaves: counts below some thresholds, and the next key of each.

Each leaf has its own reduction. Trees of very many leaves spend their time on compiling
and launching reductions, so that small leaves of one shape share one there: they are
added elementwise first.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import exact_sums, uint64, variadic_reduce
from swd_jax._arrays.manual_sharding import Shards

# With at least _MANY leaves, leaves of at most _SMALL elements are reduced in batches
# of _BATCH, which saves compile time: 1.9 instead of 6.0 s of processor time for 200
# leaves (jaxlib 0.10.2). Steps became no slower. Not under XLA's partitioner: leaves of
# different shardings would have to be resharded to be added.
_MANY = 32
_SMALL = 1 << 16
_BATCH = 16

# A search that runs once, outside of a training step, takes far longer to compile than
# to run. Larger leaves share reductions there: 200 equal ones compile in a third of the
# time.
_SMALL_ONCE = 1 << 22


class Tally(NamedTuple):
    """Counts of one pass over the leaves, for several thresholds of each pool."""

    below: jax.Array
    """Cost of the elements below each threshold: emulated uint64, shape (thresholds,
    pools, 4)."""
    next_key: jax.Array
    """The smallest key not below each threshold, the largest integer if there is none.
    Without `find_next_keys`, the threshold itself. shape=(thresholds, pools)"""


def tally(
    keys: Sequence[jax.Array],
    pools: Sequence[Sequence[int]],
    thresholds: Sequence[jax.Array],
    costs: Sequence[exact_sums.Cost] | None = None,
    *,
    caps: jax.Array | None = None,
    find_next_keys: bool = True,
    shards: Shards | None = None,
    runs_once: bool = False,
) -> Tally:
    """Count the elements below each threshold, and find the key that comes next.

    Args:
      keys: integers of at least 0 for every leaf, in its shape.
      pools: the positions in `keys` that are counted together.
      thresholds: for every pool keys, shape (thresholds,).
      costs: the cost of each element; 1 if not given.
      caps: the most that each leaf may count for: emulated uint64, shape (leaves, 4).
      find_next_keys: without next keys, a pass is a fifth faster on a CPU.
      shards: how the leaves are sharded manually, if they are.
      runs_once: whether compiling is to be quick, rather than running.
    """
    costs = [None] * len(keys) if costs is None else costs
    batches, offsets = [], [0]
    for pool in pools:
        # A cap is of one leaf, whose count must stay apart from the others'.
        batches += _batches(
            keys, pool, costs, shards, may_batch=caps is None, runs_once=runs_once
        )
        offsets.append(len(batches))
    batch_thresholds = [
        pool_thresholds
        for pool_thresholds, (start, stop) in zip(
            thresholds, itertools.pairwise(offsets), strict=True
        )
        for _ in range(start, stop)
    ]
    sums, minima = [], []
    for batch, candidates in zip(batches, batch_thresholds, strict=True):
        first = batch[0]
        is_batchable = caps is None and _is_batchable(keys, first, costs, runs_once)
        count = _count_batch if is_batchable else _count_leaf
        counts, next_keys = count(
            [keys[i] for i in batch], candidates, costs[first], find_next_keys
        )
        sums.append(counts if shards is None else shards.mask_replicas(first, counts))
        minima.append(next_keys)
    # One array for all batches as early as possible: a thousand scalar operations take
    # long to compile.
    batch_costs = [costs[batch[0]] for batch in batches]
    below = exact_sums.scale_counts(exact_sums.stack_sums(sums), batch_costs)
    below = jnp.swapaxes(below, 0, 1)
    if caps is not None:
        # A cap applies to the count of a whole leaf, so that shards are summed first.
        below = below if shards is None else uint64.carry(shards.psum(below))
        leaf_ids = np.array([batch[0] for batch in batches])
        below = uint64.minimum(below, caps[leaf_ids][None])
    slices = [slice(*pair) for pair in itertools.pairwise(offsets)]
    has_shared_pools = len(batches) > len(pools)
    if has_shared_pools:
        totals = [uint64.sum_short_axis(below[:, part]) for part in slices]
        below = jnp.stack(totals, axis=1)
    if shards is not None:
        # Devices exchange numbers per pool, not per leaf.
        below = uint64.carry(shards.psum(below)) if caps is None else below
    if not find_next_keys:
        return Tally(below, jnp.stack(list(thresholds), axis=1))
    next_key = jnp.stack(minima, axis=1)
    if has_shared_pools:
        next_key = jnp.stack([jnp.min(next_key[:, part], axis=1) for part in slices], 1)
    return Tally(below, next_key if shards is None else shards.pmin(next_key))


def _count_leaf(
    leaves: Sequence[jax.Array],
    thresholds: jax.Array,
    cost: exact_sums.Cost,
    find_next_keys: bool,
) -> tuple[jax.Array, jax.Array | None]:
    """Return the counts and the next keys of one leaf, with a mask per threshold."""
    [keys] = leaves
    masks = [keys < threshold for threshold in thresholds]
    indicators = [mask.astype(jnp.uint32) for mask in masks]
    if not find_next_keys:
        return exact_sums.sums_and_minima(indicators, cost, [])[0], None
    keys_above = [jnp.where(mask, _max_value(keys), keys) for mask in masks]
    sums, minima = exact_sums.sums_and_minima(indicators, cost, keys_above)
    return sums, jnp.stack(minima)


def _count_batch(
    leaves: Sequence[jax.Array],
    thresholds: jax.Array,
    cost: exact_sums.Cost,
    find_next_keys: bool,
) -> tuple[jax.Array, jax.Array | None]:
    """Return the counts and the next keys of a batch, with an axis for the thresholds.

    The program is smaller than with a mask per threshold. It reads a leaf once per
    threshold, which costs little while the leaf stays in the cache.
    """
    axes = range(1, leaves[0].ndim + 1)
    thresholds = thresholds.reshape(-1, *(1 for _ in axes))
    counts, keys_above = [], []
    for keys in leaves:
        mask = keys[None] < thresholds
        counts.append(mask.astype(jnp.uint32))
        if find_next_keys:
            keys_above.append(jnp.where(mask, _max_value(keys), keys[None]))
    total = sum(counts[1:], counts[0])
    minimized = [functools.reduce(jnp.minimum, keys_above)] if find_next_keys else []
    [sums], minima = variadic_reduce.reduce_jointly([total], minimized, axes)
    assert cost is None or isinstance(cost, int)
    return sums, minima[0] if minima else None


def _batches(
    keys: Sequence[jax.Array],
    pool: Sequence[int],
    costs: Sequence[exact_sums.Cost],
    shards: Shards | None,
    *,
    may_batch: bool,
    runs_once: bool,
) -> list[list[int]]:
    """Return the positions of a pool, in lists of those that share a reduction."""
    batches: list[list[int]] = []
    open_batches: dict[object, list[int]] = {}
    for i in pool:
        if not (may_batch and _is_batchable(keys, i, costs, runs_once)):
            batches.append([i])
            continue
        leaf_axes = None if shards is None else shards.leaf_axes[i]
        kind = (keys[i].shape, leaf_axes, costs[i])
        if len(open_batches.get(kind, [])) in (0, _BATCH):
            open_batches[kind] = []
            batches.append(open_batches[kind])
        open_batches[kind].append(i)
    return batches


def _is_batchable(
    keys: Sequence[jax.Array], i: int, costs: Sequence[exact_sums.Cost], runs_once: bool
) -> bool:
    """Whether a leaf may share a reduction with others."""
    if len(keys) < _MANY or variadic_reduce.may_be_sharded():
        return False
    has_uniform_cost = costs[i] is None or isinstance(costs[i], int)
    return has_uniform_cost and keys[i].size <= (_SMALL_ONCE if runs_once else _SMALL)


def _max_value(keys: jax.Array) -> np.ndarray:
    return np.array(np.iinfo(keys.dtype).max, keys.dtype)
