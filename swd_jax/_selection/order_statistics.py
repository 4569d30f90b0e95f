"""The selection engine: exact order statistics by counting, leaf by leaf.

The engine works on integers and counts. Every leaf comes as *inputs* (any pytree of
arrays) that an elementwise function turns into integer keys of at least 0; keys are
never stored. The state of a search is one bracket per threshold, whatever the number of
weights.

One pass over the leaves counts the keys below a few candidates and finds, for each
candidate, the smallest key that is not below it. A candidate with a count equal to the
budget ends the search: the threshold is its next key. Otherwise the bracket shrinks to
the gap between two candidates, and the counts at its ends give the next candidates
(`bracket_candidates`). Ties at the threshold are left to `tie_cutoffs`.

With slack, the search ends at a candidate whose count is less than the budget by no
more than the slack, and the candidate itself is the threshold. Next keys are then of
no use.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import exact_sums, uint64, xla_cpu
from swd_jax._arrays.manual_sharding import Shards, pcast_like
from swd_jax._selection import bracket_candidates, count_below

LeafInputs = Any
"""The argument of the key function: a leaf, alone or with its statistics."""

KeyFunction = Callable[[LeafInputs], jax.Array]
"""Elementwise: inputs of a leaf -> integer keys of at least 0 in the leaf's shape."""

Pools = tuple[tuple[int, ...], ...]
"""Pools of leaves that share a threshold: a tuple of leaf positions for each."""


class KeyRange(NamedTuple):
    """Properties of the keys."""

    largest: int
    """The largest threshold that is returned. Keys above it count as large; their
    order among themselves is ignored."""
    trailing_zero_bits: int
    """The number of lowest bits that are zero in all keys."""
    interpolation_bits: int
    """In a bracket narrower than 2**interpolation_bits, keys are expected to be spread
    evenly enough for interpolation. Affects the number of passes only."""


class OrderStatistics(NamedTuple):
    """The thresholds of all pools."""

    keys: list[jax.Array]
    """A threshold for each pool, of the keys' dtype. shape=()"""
    counts_below: jax.Array
    """Cost of the elements below each threshold: emulated uint64, shape (pools, 4)."""
    num_passes: jax.Array
    """The number of passes over the leaves. shape=(), dtype=int32"""
    slack_widths: jax.Array
    """About how far apart two keys near the threshold are that the slack separates, at
    most 2**interpolation_bits; 0 without slack. shape=(pools,)"""


class _Search(NamedTuple):
    """A bracket for every pool, `low <= threshold < high`, without trailing zeros."""

    low: jax.Array  # (pools,); a key, once a candidate was within the budget
    high: jax.Array  # (pools,)
    below_low: jax.Array  # emulated, (pools, 4); at most the budget
    below_high: jax.Array  # emulated, (pools, 4); more than the budget
    bisect_next: jax.Array  # (pools,) bools: the last pass shrank the bracket little
    candidates: jax.Array  # (NUM_CANDIDATES, pools)
    slack_widths: jax.Array  # (pools,)
    num_passes: jax.Array


def find_order_statistics(
    key: KeyFunction,
    inputs: Sequence[LeafInputs],
    pools: Pools,
    budgets: jax.Array,
    key_range: KeyRange,
    *,
    initial_candidates: jax.Array,
    costs: Sequence[exact_sums.Cost] | None = None,
    caps: jax.Array | None = None,
    slack: jax.Array | None = None,
    refresh: jax.Array | None = None,
    previous_keys: jax.Array | None = None,
    shards: Shards | None = None,
    runs_once: bool = False,
) -> OrderStatistics:
    """Find the largest key of every pool below which the cost is within the budget.

    Without costs and slack this is the key of rank `budget`, counted from zero.

    Args:
      key: elementwise function from a leaf's inputs to its keys.
      inputs: of each leaf.
      pools: the positions in `inputs` that are ranked together.
      budgets: emulated uint64, shape (pools, 4); less than the cost of the pool.
      key_range: properties of the keys.
      initial_candidates: shape (NUM_CANDIDATES, pools). Good ones save passes; bad ones
        change no result.
      costs: the cost of each element, at least 1; 1 if not given.
      caps: the most that the elements of each leaf may cost together: emulated uint64,
        shape (leaves, 4). The cost below a key counts up to the cap.
      slack: by how much less than the budget the cost may be: emulated uint64, shape
        (pools, 4). The first key that is found to be near enough is then returned.
      refresh: bools, shape () or (pools,). Where False, the search is skipped and
        `previous_keys` are returned; what else is returned is then meaningless. (A
        condition of the loop: for the branches of a `cond` around it, XLA copies all
        weights.)
      previous_keys: shape (pools,); required with `refresh`.
      shards: how the leaves are sharded manually, if they are. Counts are then summed
        over its axes, and budgets are those of whole leaves.
      runs_once: whether compiling is to be quick, rather than running.

    Returns:
      The thresholds; `key_range.largest` where no key exceeds the budget.
    """
    sizes = [jax.eval_shape(key, leaf_inputs).size for leaf_inputs in inputs]
    if shards is not None:
        sizes = [size * shards.num_shards(i) for i, size in enumerate(sizes)]
    totals = _total_costs(sizes, pools, costs, shards)
    pool_sizes = [max(sum(sizes[i] for i in pool), 1) for pool in pools]
    mean_costs = uint64.to_float32(totals) / np.array(pool_sizes, np.float32)
    shift = key_range.trailing_zero_bits
    largest = key_range.largest >> shift
    interpolation_bits = key_range.interpolation_bits - shift
    # The cost to aim at, in the middle of what is near enough.
    aim = budgets
    if slack is not None:
        half = uint64.minimum(uint64.divide(slack, 2), budgets)
        aim = uint64.subtract(budgets, half)

    def run_pass(search: _Search) -> _Search:
        tally = _count_pass(
            key,
            inputs,
            pools,
            search.candidates,
            costs=costs,
            caps=caps,
            find_next_keys=slack is None,
            shards=shards,
            runs_once=runs_once,
        )
        return shrink_brackets(search, tally)

    def shrink_brackets(search: _Search, tally: count_below.Tally) -> _Search:
        candidates = search.candidates >> shift
        next_keys = jnp.minimum(tally.next_key >> shift, largest)
        fits = ~uint64.less(budgets[None], tally.below) & (candidates <= largest)
        # The bracket shrinks to the highest candidate that fits and the lowest that
        # does not. Equal candidates have equal counts.
        highest = jnp.max(jnp.where(fits, candidates, -1), axis=0)
        is_highest = fits & (candidates == highest[None])
        new_low = jnp.max(jnp.where(is_highest, next_keys, -1), axis=0)
        improves_low = new_low >= search.low
        low = jnp.where(improves_low, new_low, search.low)
        below_low = _select(
            improves_low, _counts_at(is_highest, tally), search.below_low
        )
        lowest = jnp.min(jnp.where(fits, search.high[None], candidates), axis=0)
        improves_high = lowest < search.high
        high = jnp.where(improves_high, lowest, search.high)
        is_lowest = ~fits & (candidates == lowest[None])
        below_high = _select(
            improves_high, _counts_at(is_lowest, tally), search.below_high
        )
        slack_widths = search.slack_widths
        if slack is None:
            is_found = uint64.equal(below_low, budgets)
        else:
            is_found = ~uint64.less(slack, uint64.subtract(budgets, below_low))
            slack_widths = _slack_widths(
                jnp.clip(candidates, 0, largest),
                tally.below,
                slack,
                octave=1 << interpolation_bits,
            )
        high = jnp.where(improves_low & is_found, low + 1, high)
        shrank_little = (high - low) > (search.high - search.low) >> 3
        bisect_next = shrank_little & ~search.bisect_next
        interpolation = bracket_candidates.interpolate(
            below_low, below_high, aim, mean_costs
        )
        candidates = bracket_candidates.next_candidates(
            low, high, interpolation, bisect_next, interpolation_bits
        )
        return _Search(
            low,
            high,
            below_low,
            below_high,
            bisect_next,
            candidates << shift,
            slack_widths,
            search.num_passes + 1,
        )

    low = jnp.zeros(len(pools), initial_candidates.dtype)
    high = jnp.full_like(low, largest + 1)
    if refresh is not None and previous_keys is not None:
        low = jnp.where(refresh, low, previous_keys >> shift)
        high = jnp.where(refresh, high, low + 1)
    start = _Search(
        low=low,
        high=high,
        below_low=jnp.zeros_like(budgets),
        below_high=totals,
        bisect_next=jnp.zeros(len(pools), bool),
        candidates=initial_candidates >> shift << shift,
        slack_widths=jnp.zeros_like(low),
        num_passes=jnp.zeros((), jnp.int32),
    )
    arguments = (
        inputs,
        costs,
        budgets,
        initial_candidates,
        caps,
        slack,
        refresh,
        previous_keys,
    )
    search = jax.lax.while_loop(
        lambda search: jnp.any(search.high - search.low > 1),
        run_pass,
        pcast_like(start, jax.tree.leaves(arguments), shards),
    )
    keys = xla_cpu.unstack_unfused(search.low << shift)
    return OrderStatistics(
        keys, search.below_low, search.num_passes, search.slack_widths << shift
    )


def _select(mask: jax.Array, numbers: jax.Array, others: jax.Array) -> jax.Array:
    return jnp.where(mask[:, None], numbers, others)


def _counts_at(mask: jax.Array, tally: count_below.Tally) -> jax.Array:
    """Return the count below the masked candidate of each pool; equal ones may be."""
    return jnp.max(jnp.where(mask[..., None], tally.below, 0), axis=0)


def _slack_widths(
    candidates: jax.Array, below: jax.Array, slack: jax.Array, *, octave: int
) -> jax.Array:
    """Return how far apart keys are that the slack separates, by all candidates."""
    least, most = jnp.argmin(candidates, axis=0), jnp.argmax(candidates, axis=0)
    pools = np.arange(candidates.shape[1])
    costs = uint64.subtract(below[most, pools], below[least, pools])
    distance = candidates[most, pools] - candidates[least, pools]
    slack_share = uint64.to_float32(slack) / uint64.to_float32(costs)
    widths = slack_share * distance.astype(jnp.float32)
    # Without a slack, or without a key between the candidates, it is 0 / 0 or infinite.
    widths = jnp.where(uint64.to_float32(slack) > 0, jnp.nan_to_num(widths), 0)
    return jnp.minimum(widths, octave).astype(candidates.dtype)


def _count_pass(
    key: KeyFunction,
    inputs: Sequence[LeafInputs],
    pools: Pools,
    candidates: jax.Array,
    *,
    costs: Sequence[exact_sums.Cost] | None,
    caps: jax.Array | None,
    find_next_keys: bool,
    shards: Shards | None,
    runs_once: bool,
) -> count_below.Tally:
    """Compute the keys of all leaves and count those below every pool's candidates."""
    pool_candidates = xla_cpu.unstack_unfused(candidates)
    inputs, pool_candidates = xla_cpu.keep_in_loop(inputs, pool_candidates)
    keys = [key(leaf_inputs) for leaf_inputs in inputs]
    tally = count_below.tally(
        keys,
        pools,
        pool_candidates,
        costs,
        caps=caps,
        find_next_keys=find_next_keys,
        shards=shards,
        runs_once=runs_once,
    )
    if find_next_keys:
        return tally
    # `keep_in_loop` gives the candidates the type of the shards, which vary by device.
    return tally._replace(next_key=candidates)


def _total_costs(
    sizes: Sequence[int],
    pools: Pools,
    costs: Sequence[exact_sums.Cost] | None,
    shards: Shards | None,
) -> jax.Array:
    """Return the cost of all elements of each pool: emulated, shape (pools, 4)."""
    totals = []
    for pool in pools:
        static_total, total = 0, jnp.zeros(uint64.LIMBS, jnp.uint32)
        for i in pool:
            cost = 1 if costs is None or costs[i] is None else costs[i]
            if isinstance(cost, int):
                static_total += cost * sizes[i]
            else:
                leaf_total = exact_sums.sum_integers(jnp.asarray(cost))
                if shards is not None:
                    masked = shards.mask_replicas(i, leaf_total)
                    leaf_total = uint64.carry(shards.psum(masked))
                total = uint64.add(total, leaf_total)
        static_total_uint64 = jnp.asarray(uint64.from_int(static_total))
        totals.append(uint64.add(total, static_total_uint64))
    return jnp.stack(totals)
