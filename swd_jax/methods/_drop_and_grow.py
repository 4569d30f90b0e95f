"""Dynamic sparsity: masks that drop weights and grow others while training goes on."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from swd_jax._allocation import exact_counts
from swd_jax._arguments import validation
from swd_jax._arguments.short_text import shown
from swd_jax._arrays import sort_keys
from swd_jax._arrays.explicit_sharding import device_put_like, reshard_like
from swd_jax._ranking import exact_k
from swd_jax._ranking.unit_thresholds import ScoredUnits
from swd_jax._selection.order_statistics import Pools
from swd_jax._targets.resolve import ResolvedTarget, resolve
from swd_jax._targets.state_checks import arrays_of_leaves, check_fields
from swd_jax._targets.target import Target, as_target
from swd_jax._transforms import threshold_state
from swd_jax._transforms.match_updates import check_params, match_updates
from swd_jax.criteria._magnitudes import magnitude
from swd_jax.structures._unstructured import Unstructured


class DynamicState(NamedTuple):
    """The state of an optimizer inside a dynamic sparsity method."""

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    """Optimizer steps so far. shape=(), dtype=int32"""
    active: Any
    """A tree like the parameters of bools, True = may differ from zero, sharded like
    the parameters; `optax.MaskedNode` where nothing is pruned."""
    inner: optax.OptState
    """The state of the optimizer inside."""


def drop_and_grow(
    name: str,
    optimizer: optax.GradientTransformation,
    target: Target | validation.Number,
    *,
    update_every: int,
    drop_fraction: Callable[[jax.Array], jax.Array],
    growth_scores: Callable[[jax.Array, jax.Array], jax.Array],
    seed: int,
) -> optax.GradientTransformationExtraArgs:
    """Return an optimizer of the active weights that now and then exchanges some.

    Args:
      name: the transformation's name in errors.
      optimizer: the optimizer of the active weights.
      target: what is pruned.
      update_every: the number of steps from one exchange to the next.
      drop_fraction: step -> the fraction of the active weights to drop; 0 for none.
      growth_scores: (gradient, random key) -> an array in the gradient's shape. The
        inactive weights with the largest magnitudes in it become active.
      seed: the seed of the first masks and of the random keys.
    """
    validation.check_optimizer(optimizer)
    if not isinstance(seed, Tracer):
        validation.check_seed(seed)
    target = as_target(target)
    _check_target(name, target)
    update_every = validation.as_step_count("update_every", update_every, minimum=1)
    inner = optax.with_extra_args_support(optimizer)

    def init_fn(params: optax.Params) -> DynamicState:
        tree, [resolved] = resolve([target], params)
        resolved.check_leaves()
        masks = _random_masks(resolved, seed)
        entries = {
            leaf.position: device_put_like(mask, leaf.weights)
            for leaf, mask in zip(resolved.leaves, masks, strict=True)
        }
        return DynamicState(
            count=jnp.zeros((), jnp.int32),
            active=tree.rebuild_masked(entries),
            inner=inner.init(params),
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, DynamicState]:
        check_params(params, name)
        check_fields(name, state, DynamicState._fields)
        tree, [resolved] = resolve([target], params)
        leaves = resolved.leaves
        matched = match_updates(updates, tree)
        if not leaves:
            new_updates, inner_state = inner.update(
                updates, state.inner, params, **extra_args
            )
            count = threshold_state.increment(state.count)
            return new_updates, DynamicState(count, state.active, inner_state)
        active = arrays_of_leaves("state.active", "masks", state.active, leaves)
        gradients = [matched.at(leaf) for leaf in leaves]
        fraction = drop_fraction(state.count)

        def zero_inactive(updates: Any, active: Sequence[jax.Array]) -> Any:
            """Return updates after which inactive weights are zero."""
            matched = match_updates(updates, tree)
            new_updates = [
                jnp.where(mask, update, -jnp.asarray(leaf.weights).astype(update.dtype))
                for mask, leaf, update in zip(
                    active, leaves, map(matched.at, leaves), strict=True
                )
            ]
            return matched.replaced(leaves, new_updates)

        def drop_and_grow_step() -> tuple[Any, Any, list[jax.Array]]:
            """Exchange weights in place of a step of the optimizer."""
            keys = _random_keys(seed, state.count + 1, len(leaves))
            scores = [
                growth_scores(*pair) for pair in zip(gradients, keys, strict=True)
            ]
            kept, new_active = _exchange(resolved, active, scores, fraction)
            no_step = jax.tree.map(jnp.zeros_like, updates)
            return zero_inactive(no_step, kept), state.inner, new_active

        def optimizer_step() -> tuple[Any, Any, list[jax.Array]]:
            masked = [
                jnp.where(mask, gradient, jnp.zeros_like(gradient))
                for mask, gradient in zip(active, gradients, strict=True)
            ]
            new_updates, inner_state = inner.update(
                matched.replaced(leaves, masked), state.inner, params, **extra_args
            )
            return zero_inactive(new_updates, active), inner_state, active

        is_due = (state.count > 0) & (state.count % update_every == 0) & (fraction > 0)
        new_updates, inner_state, new_active = jax.lax.cond(
            is_due, drop_and_grow_step, optimizer_step
        )
        active_tree = jax.tree.unflatten(jax.tree.structure(state.active), new_active)
        count = threshold_state.increment(state.count)
        return new_updates, DynamicState(count, active_tree, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _random_masks(resolved: ResolvedTarget, seed: int) -> list[jax.Array]:
    """Return masks that are False for the target's share of each pool, at random."""
    leaves = resolved.leaves
    if not leaves:
        return []
    keys = _random_keys(seed, 0, len(leaves))
    noise = [
        _uniform_like(key, leaf.weights) for key, leaf in zip(keys, leaves, strict=True)
    ]
    everywhere = [jnp.ones_like(array, dtype=bool) for array in noise]
    pools: Pools = resolved.structured.layout
    pool_sizes = [sum(noise[i].size for i in pool) for pool in pools]
    budgets = exact_counts.pruned_counts(resolved.sparsities(None), pool_sizes)
    pruned = _extreme_k_masks(noise, everywhere, pools, budgets)
    return [~mask for mask in pruned]


def _uniform_like(key: jax.Array, leaf: Any) -> jax.Array:
    """Return uniform random numbers in the shape of a leaf, sharded like the leaf."""

    def uniform(key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, leaf.shape, jnp.float32)

    if isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer):
        return jax.jit(uniform, out_shardings=leaf.sharding)(key)
    return reshard_like(uniform(key), leaf)


def _exchange(
    resolved: ResolvedTarget,
    active: list[jax.Array],
    growth_scores: list[jax.Array],
    fraction: jax.Array,
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Drop a fraction of the active weights of each pool, and grow as many others.

    The weights with the smallest magnitudes are dropped. Weights that have just been
    dropped may grow again.

    Returns:
      The masks of the weights that stay active, and those with the grown weights.
    """
    weights = [
        jax.lax.stop_gradient(jnp.asarray(leaf.weights)) for leaf in resolved.leaves
    ]
    pools: Pools = resolved.structured.layout
    num_active = []
    for sparsity, pool in zip(resolved.sparsities(None), pools, strict=True):
        assert isinstance(sparsity, Fraction)
        size = sum(weights[i].size for i in pool)
        num_active.append(size - exact_counts.known_count(sparsity, size))
    budgets = exact_counts.pruned_counts([fraction] * len(num_active), num_active)
    dropped = _extreme_k_masks(weights, active, pools, budgets)
    kept = [old & ~drop for old, drop in zip(active, dropped, strict=True)]
    inactive = [~mask for mask in kept]
    grown = _extreme_k_masks(
        growth_scores, inactive, pools, budgets, largest_first=True
    )
    return kept, [old | new for old, new in zip(kept, grown, strict=True)]


@dataclasses.dataclass(frozen=True)
class _MagnitudeKey:
    """The sort key of magnitudes among candidates, in ascending or descending order.

    Values that are not finite come last in ascending order, and first in descending
    order. Elements that are no candidates are never taken.
    """

    dtype: jnp.dtype
    largest_first: bool

    def __call__(self, inputs: tuple[jax.Array, jax.Array]) -> jax.Array:
        array, is_candidate = inputs
        keys = sort_keys.to_key(sort_keys.widen(array, self.dtype))
        largest_key = sort_keys.largest_key(self.dtype)
        if self.largest_first:
            keys = largest_key - 1 - jnp.minimum(keys, largest_key - 1)
        return jnp.where(is_candidate, keys, largest_key)


# Jitted as a whole, so that an `init` or `update` outside of jit compiles one program.
@functools.partial(jax.jit, static_argnames=("pools", "largest_first"))
def _extreme_k_masks(
    arrays: list[jax.Array],
    candidates: list[jax.Array],
    pools: Pools,
    budgets: jax.Array,
    *,
    largest_first: bool = False,
) -> list[jax.Array]:
    """Return the k elements of each pool with the smallest or largest magnitudes.

    Args:
      arrays: floats in the shapes of the leaves.
      candidates: bools in these shapes, at least k of each pool.
      pools: the positions of the leaves that share a budget.
      budgets: k of every pool: emulated uint64, shape (pools, 4).
      largest_first: whether to take the largest magnitudes.
    """
    dtype = sort_keys.score_dtype(*(array.dtype for array in arrays))
    units = ScoredUnits(
        list(zip(arrays, candidates, strict=True)),
        key=_MagnitudeKey(dtype, largest_first),
        structure=Unstructured(),
        shapes=tuple(array.shape for array in arrays),
        pools=pools,
        dtype=dtype,
    )
    exact = exact_k.find_thresholds_with_ties(units, budgets)
    return exact_k.exact_k_masks(units, exact)


def _random_keys(seed: int, count: jax.Array | int, num_leaves: int) -> list[jax.Array]:
    """Return a random key for each leaf at a step."""
    step = jnp.asarray(count, jnp.int32).astype(jnp.uint32)
    key = jax.random.fold_in(jax.random.key(seed), step)
    return [*jax.random.split(key, num_leaves)]


def _check_target(name: str, target: Target) -> None:
    """Raise if the target's sparsity is a schedule, or it is not of single weights."""
    for sparsity in target.allocation.all_sparsities():
        validation.refuse_traced("sparsity", sparsity)
        if callable(sparsity) or validation.as_decimal("sparsity", sparsity) is None:
            raise ValueError(
                f"sparsity must be a number for {name}, which is sparse from the first "
                f"step on, got {shown(sparsity)}"
            )
    for field, value, supported in (
        ("criterion", target.criterion, magnitude),
        ("structure", target.structure, Unstructured()),
        ("min_kept", target.min_kept, 0),
    ):
        if value != supported:
            raise ValueError(
                f"{field} must be {supported!r} for {name}, got {shown(value)}"
            )
