"""The selection engine: exact order statistics by counting, leaf by leaf.

It knows integers and counts only. Every leaf comes as an *operand* (any pytree of
arrays) that an elementwise function turns into integer keys of at least 0; the keys are
never stored. What is stored of a search is, for each threshold, the bracket that it is
in, however many weights there are.

One reading of the leaves counts the keys below a few candidates and notes, for each,
the key that comes next. A candidate below which there are exactly as many as wanted
settles the threshold: it is the key that comes next. Otherwise the bracket becomes the
gap between two candidates, and the counts at its ends tell where in it to look.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import exact_sums, uint64, variadic_reduce
from swd_jax._arrays.manual_sharding import Shards, vary_as
from swd_jax._selection import count_below

Operand = Any
"""What the key function takes: a leaf, alone or with its statistics."""

KeyFunction = Callable[[Operand], jax.Array]
"""Elementwise: operand -> integer keys of at least 0 in the shape of its leaf."""

Groups = tuple[tuple[int, ...], ...]
"""Which operands are ranked together: one tuple of positions for each threshold."""

CANDIDATES = 4
"""How many candidates are counted in one reading."""

# Where the candidates stand when the bracket is interpolated, in standard deviations
# of the estimate.
_DEVIATIONS = (-1.5, -0.5, 0.5, 1.5)
# Beyond, an estimate is good for no more than an order of magnitude, either way.
_LARGEST_ERROR = 1.4
# In brackets so many times wider than an even one, nothing is known of where to look.
_VERY_WIDE = 16


class Keys(NamedTuple):
    """What the engine needs to know of the keys."""

    largest: int
    """Greatest threshold to return; keys above it count as large, whatever their order
    among themselves."""
    zero_bits: int
    """How many of the lowest bits are zero in all of them."""
    smooth_bits: int
    """In a bracket of less than 2**smooth_bits the keys are expected to lie evenly
    enough to be interpolated. A matter of speed only."""


class Found(NamedTuple):
    """The thresholds of all groups."""

    keys: list[jax.Array]
    """Of the keys' type, each of shape ()."""
    below: jax.Array
    """How many keys are below them, or what they cost. Wide, shape=(groups, 4)"""
    readings: jax.Array
    """How often the leaves were read. shape=(), dtype=int32"""


class _Search(NamedTuple):
    """A bracket for every group: `low <= threshold < high`, multiples of the unit."""

    low: jax.Array  # (groups,); once anything was found below the budget, a key
    high: jax.Array  # (groups,)
    below_low: jax.Array  # wide, (groups, 4); at most the budget
    below_high: jax.Array  # wide, (groups, 4); more than the budget
    uneven: jax.Array  # (groups,) bools: interpolation gained little
    candidates: jax.Array  # (CANDIDATES, groups)
    readings: jax.Array


def order_statistics(
    key: KeyFunction,
    operands: Sequence[Operand],
    groups: Groups,
    budgets: jax.Array,
    keys: Keys,
    *,
    guesses: jax.Array,
    costs: Sequence[exact_sums.Cost] | None = None,
    caps: jax.Array | None = None,
    renew: jax.Array | None = None,
    kept: jax.Array | None = None,
    shards: Shards | None = None,
) -> Found:
    """The greatest key of every group below which there is no more than its budget.

    Without costs this is the key of rank `budget`, counted from zero.

    Args:
      key: elementwise function from an operand to its keys.
      operands: one for each leaf.
      groups: the positions in `operands` that are ranked together.
      budgets: wide numbers, shape (groups, 4); less than the cost of the group.
      keys: what is known of the keys.
      guesses: the first candidates, shape (CANDIDATES, groups). Good ones save
        readings; none can do harm.
      costs: what each element counts for, at least 1; 1 if not given.
      caps: the most that the elements of each leaf may count for together, wide
        numbers, shape (leaves, 4); what is below a key is then no more than that.
      renew: bools, shape () or (groups,): where false, nothing is looked for. The
        `kept` thresholds are returned; what is below them is not told. (A condition of
        the loop: for the branches of a `cond` round it, XLA copies all weights.)
      kept: keys, shape (groups,); with `renew`.
      shards: how the leaves are divided by hand, if they are: what is counted is then
        counted along its axes, and budgets are those of whole leaves.

    Returns:
      The thresholds, `keys.largest` where no key is above the budget.
    """
    sizes = [jax.eval_shape(key, operand).size for operand in operands]
    if shards is not None:
        sizes = [size * shards.parts(i) for i, size in enumerate(sizes)]
    totals = _totals(sizes, groups, costs, shards)
    counts = [max(sum(sizes[i] for i in group), 1) for group in groups]
    mean_costs = uint64.to_float32(totals) / np.array(counts, np.float32)
    unit, largest = keys.zero_bits, keys.largest >> keys.zero_bits
    smooth_bits = keys.smooth_bits - keys.zero_bits

    def read(search: _Search) -> _Search:
        tally = _read(
            key,
            operands,
            groups,
            search.candidates,
            costs=costs,
            caps=caps,
            shards=shards,
        )
        candidates = search.candidates >> unit
        following = jnp.minimum(tally.next >> unit, largest)
        fits = ~uint64.less(budgets[None], tally.below) & (candidates <= largest)
        # The highest candidate that fits, and the lowest that does not. (Of equal ones,
        # all, with the same counts.)
        highest = jnp.max(jnp.where(fits, candidates, -1), axis=0)
        at_highest = fits & (candidates == highest[None])
        found = jnp.max(jnp.where(at_highest, following, -1), axis=0)
        rises = found >= search.low
        low = jnp.where(rises, found, search.low)
        below_low = _where(rises, _counts_at(at_highest, tally), search.below_low)
        lowest = jnp.min(jnp.where(fits, search.high[None], candidates), axis=0)
        falls = lowest < search.high
        high = jnp.where(falls, lowest, search.high)
        at_lowest = ~fits & (candidates == lowest[None])
        below_high = _where(falls, _counts_at(at_lowest, tally), search.below_high)
        exact = rises & uint64.equal(below_low, budgets)
        high = jnp.where(exact, low + 1, high)
        gained_little = (high - low) > (search.high - search.low) >> 3
        uneven = gained_little & ~search.uneven
        ranks = _ranks(below_low, below_high, budgets, mean_costs)
        offered = _next_candidates(low, high, ranks, uneven, smooth_bits)
        return _Search(
            low,
            high,
            below_low,
            below_high,
            uneven,
            offered << unit,
            search.readings + 1,
        )

    low = jnp.zeros(len(groups), guesses.dtype)
    high = jnp.full_like(low, largest + 1)
    if renew is not None and kept is not None:
        low = jnp.where(renew, low, kept >> unit)
        high = jnp.where(renew, high, low + 1)
    start = _Search(
        low=low,
        high=high,
        below_low=jnp.zeros_like(budgets),
        below_high=totals,
        uneven=jnp.zeros(len(groups), bool),
        candidates=guesses >> unit << unit,
        readings=jnp.zeros((), jnp.int32),
    )
    varying = jax.tree.leaves((operands, costs, budgets, guesses, caps, renew, kept))
    search = jax.lax.while_loop(
        lambda search: jnp.any(search.high - search.low > 1),
        read,
        vary_as(start, varying, shards),
    )
    found = variadic_reduce.separate(search.low << unit)
    return Found(found, search.below_low, search.readings)


def _where(chosen: jax.Array, wides: jax.Array, others: jax.Array) -> jax.Array:
    return jnp.where(chosen[:, None], wides, others)


def _counts_at(chosen: jax.Array, tally: count_below.Tally) -> jax.Array:
    """The counts below a chosen candidate of each group; equal ones if several are."""
    return jnp.max(jnp.where(chosen[..., None], tally.below, 0), axis=0)


class _Ranks(NamedTuple):
    """Where the thresholds are in their brackets."""

    share: jax.Array  # (groups,), float32, in (0, 1): of the bracket, below the budget
    elements: jax.Array  # (groups,), float32: about how many the bracket holds


def _ranks(
    below_low: jax.Array, below_high: jax.Array, budgets: jax.Array, means: jax.Array
) -> _Ranks:
    held = uint64.to_float32(uint64.subtract(below_high, below_low))
    wanted = uint64.to_float32(uint64.subtract(budgets, below_low))
    # The threshold is an element itself: on average, half of one further up.
    share = (wanted + means / 2) / held
    return _Ranks(jnp.clip(share, 1e-12, 1 - 1e-7), held / means)


def _next_candidates(
    low: jax.Array, high: jax.Array, ranks: _Ranks, uneven: jax.Array, smooth_bits: int
) -> jax.Array:
    """Where to look in brackets: strictly inside, shape (CANDIDATES, groups)."""
    low, high, uneven = low[None], high[None], uneven[None]
    share, elements = ranks.share[None], ranks.elements[None]
    width = high - low
    nearer_low = share <= 0.5
    nearer = jnp.where(nearer_low, share, 1 - share)
    # The estimate's relative error: of a rank among random elements, or, in a wide
    # bracket, of keys that do not lie evenly.
    error = jnp.sqrt((1 - nearer) / (nearer * elements))
    unevenness = width.astype(jnp.float32) / (1 << smooth_bits)
    error = jnp.minimum(jnp.maximum(error, unevenness), _LARGEST_ERROR)
    spread = jnp.exp(jnp.array(_DEVIATIONS, jnp.float32)[:, None] * error)
    real = jnp.float32 if width.dtype == jnp.int32 else jnp.float64
    shares = jnp.minimum(nearer * spread, 1).astype(real)
    interpolated = (shares * width.astype(real)).astype(width.dtype)
    # Powers of the width, where the end that is nearer in rank may be very near.
    stepped = jnp.concatenate([width >> 20, width >> 13, width >> 6, width >> 1])
    # The key after the lowest, since many may be equal to that, and even parts.
    evenly = jnp.concatenate(
        [jnp.ones_like(width), width >> 2, width >> 1, width // 4 * 3]
    )
    even = (width >> smooth_bits > 0) | uneven
    very_wide = width >> smooth_bits >= _VERY_WIDE
    offsets = jnp.where(even, evenly, interpolated)
    offsets = jnp.where(very_wide, stepped, offsets)
    from_low = nearer_low | (even & ~very_wide)
    candidates = jnp.where(from_low, low + offsets, high - offsets)
    return jnp.clip(candidates, low + 1, high - 1)


def _read(
    key: KeyFunction,
    operands: Sequence[Operand],
    groups: Groups,
    candidates: jax.Array,
    *,
    costs: Sequence[exact_sums.Cost] | None,
    caps: jax.Array | None,
    shards: Shards | None,
) -> count_below.Tally:
    """What one reading tells of every group's candidates."""
    # One array for each group and not one for all, of which every leaf would read its
    # own part: so leaves of one shape share one compiled loop.
    of_groups = variadic_reduce.separate(candidates)
    # Inside a loop the compiler would move the keys, which no candidate changes, out
    # of it and keep a copy of all of them. The barrier ties them to the candidates.
    operands, of_groups = jax.lax.optimization_barrier((operands, of_groups))
    keys = [key(operand) for operand in operands]
    return count_below.tally(keys, groups, of_groups, costs, caps=caps, shards=shards)


def _totals(
    sizes: Sequence[int],
    groups: Groups,
    costs: Sequence[exact_sums.Cost] | None,
    shards: Shards | None,
) -> jax.Array:
    """What all elements of each group cost: wide numbers, shape (groups, 4)."""
    totals = []
    for group in groups:
        known, total = 0, jnp.zeros(uint64.LIMBS, jnp.uint32)
        for i in group:
            cost = 1 if costs is None or costs[i] is None else costs[i]
            if isinstance(cost, int):
                known += cost * sizes[i]
            else:
                here = exact_sums.sum_integers(jnp.asarray(cost))
                if shards is not None:
                    here = uint64.carry(shards.total(shards.once(i, here)))
                total = uint64.add(total, here)
        totals.append(uint64.add(total, jnp.asarray(uint64.from_int(known))))
    return jnp.stack(totals)
