"""Dynamic sparsity: a network that is sparse from the start and moves its zeros."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from swd_jax._allocation import exact_counts
from swd_jax._arguments import validation
from swd_jax._arrays import sort_keys
from swd_jax._ranking import exact_k
from swd_jax._ranking.leaf_ranking import Ranking
from swd_jax._targets import resolve
from swd_jax._targets.target import Target, as_target
from swd_jax._transforms import match_updates, threshold_state
from swd_jax.criteria import _magnitudes
from swd_jax.criteria._criterion import Criterion
from swd_jax.structures import _structure


class DynamicState(NamedTuple):
    """The state of an optimizer with the masks of what is active."""

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    """Optimizer steps so far. shape=(), dtype=int32"""
    active: list[jax.Array]
    """Bools in the shape of each prunable leaf: True = may differ from zero."""
    inner: optax.OptState
    """The state of the optimizer inside."""


def dynamic_sparsity(
    name: str,
    optimizer: optax.GradientTransformation,
    target: Target | validation.Number,
    *,
    update_every: int,
    fraction: Callable[[jax.Array], jax.Array],
    desire: Callable[[jax.Array, jax.Array], jax.Array],
    seed: int,
) -> optax.GradientTransformationExtraArgs:
    """An optimizer of the active weights, which are exchanged now and then.

    Args:
      name: what it is called in errors.
      optimizer: what is wrapped.
      target: what is pruned.
      update_every: weights are exchanged every so many steps.
      fraction: step -> how many of the active weights are dropped; 0 for none.
      desire: (gradient, random key) -> what decides by its magnitude which become
        active, the largest first.
      seed: for the first masks and the random keys.
    """
    target = as_target(target)
    _check_target(name, target)
    validation.check_step_count("update_every", update_every, least=1)
    inner = optax.with_extra_args_support(optimizer)

    def init_fn(params: optax.Params) -> DynamicState:
        _, [of_target] = resolve.rank(params, [target])
        leaves, ranking = of_target.leaves, of_target.ranking
        assert isinstance(ranking, Ranking)
        keys = _keys(seed, 0, len(leaves))
        pairs = zip(leaves, keys, strict=True)
        noise = [jax.random.uniform(key, leaf.weights.shape) for leaf, key in pairs]
        everywhere = [jnp.ones(each.shape, bool) for each in noise]
        counts = of_target.counts(None)
        return DynamicState(
            count=jnp.zeros((), jnp.int32),
            active=[~lost for lost in _lowest(noise, everywhere, ranking, counts)],
            inner=inner.init(params),
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, DynamicState]:
        matched = match_updates.match(updates, params, name)
        _, [of_target] = resolve.rank(params, [target])
        leaves, ranking = of_target.leaves, of_target.ranking
        assert isinstance(ranking, Ranking)
        gradients = [matched.of(leaf) for leaf in leaves]
        share = fraction(state.count)

        def held(updates: Any, active: list[jax.Array]) -> Any:
            """Updates that set to zero what is not active."""
            matched = match_updates.match(updates, params, name)
            new = [matched.of(leaf) for leaf in leaves]
            triples = zip(active, new, ranking.weights, strict=True)
            held = [jnp.where(m, u, -w.astype(u.dtype)) for m, u, w in triples]
            return matched.replaced(leaves, held)

        def exchange() -> tuple[Any, Any, list[jax.Array]]:
            """No step of the optimizer: some weights to zero, others free to move."""
            keys = _keys(seed, state.count + 1, len(leaves))
            wanted = [desire(g, key) for g, key in zip(gradients, keys, strict=True)]
            known = [s for s in of_target.sparsities(None) if isinstance(s, Fraction)]
            pairs = zip(known, ranking.sizes(), strict=True)
            active = [n - exact_counts.known_count(s, n) for s, n in pairs]
            counts = jnp.stack([exact_counts.pruned_count(share, n) for n in active])
            staying, active = _exchanged(state.active, wanted, ranking, counts)
            still = jax.tree.map(jnp.zeros_like, updates)
            return held(still, staying), state.inner, active

        def train() -> tuple[Any, Any, list[jax.Array]]:
            pairs = zip(state.active, gradients, strict=True)
            masked = [jnp.where(m, g, jnp.zeros_like(g)) for m, g in pairs]
            handed = matched.replaced(leaves, masked)
            new, inside = inner.update(handed, state.inner, params, **extra_args)
            return held(new, state.active), inside, state.active

        due = (state.count > 0) & (state.count % update_every == 0) & (share > 0)
        changed, inside, active = jax.lax.cond(due, exchange, train)
        return changed, DynamicState(
            threshold_state.next_count(state.count), active, inside
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _exchanged(
    active: list[jax.Array],
    wanted: list[jax.Array],
    ranking: Ranking,
    counts: jax.Array,
) -> tuple[list[jax.Array], list[jax.Array]]:
    """The active weights without the k smallest of each group, and with k others.

    Returns:
      Those that stay active, and those with the new ones, which may be some that have
      just been dropped.
    """
    dropped = _lowest(ranking.weights, active, ranking, counts)
    staying = [old & ~lost for old, lost in zip(active, dropped, strict=True)]
    inactive = [~each for each in staying]
    grown = _lowest(wanted, inactive, ranking, counts, largest=True)
    return staying, [old | new for old, new in zip(staying, grown, strict=True)]


def _lowest(
    scored: list[jax.Array],
    among: list[jax.Array],
    ranking: Ranking,
    counts: jax.Array,
    *,
    largest: bool = False,
) -> list[jax.Array]:
    """Where the k smallest, or largest, magnitudes of every group are.

    Args:
      scored: arrays in the shapes of the leaves.
      among: where in them to look: at least k in each group.
      ranking: of the leaves, for the groups.
      counts: k of every group: wide numbers, shape (groups, 4).
      largest: whether the largest are wanted.
    """
    dtype = sort_keys.score_dtype(*(each.dtype for each in scored))
    chosen = Ranking(
        weights=list(scored),
        statistics=list(among),
        criterion=_LARGEST if largest else _SMALLEST,
        dtype=dtype,
        groups=ranking.groups,
    )
    return exact_k.lost_exactly(chosen, exact_k.settle(chosen, counts))


def _smallest_score(scored: jax.Array, among: jax.Array) -> jax.Array:
    return jnp.where(among, jnp.abs(scored), jnp.inf)


def _largest_score(scored: jax.Array, among: jax.Array) -> jax.Array:
    """The magnitudes in the opposite order; what is not finite comes first."""
    greatest = sort_keys.largest_key(scored.dtype) - 1
    keys = jnp.minimum(sort_keys.to_key(scored), greatest)
    return jnp.where(among, sort_keys.from_key(greatest - keys, scored.dtype), jnp.inf)


_SMALLEST = Criterion("smallest", _smallest_score)
_LARGEST = Criterion("largest", _largest_score)


def _keys(seed: int, count: jax.Array | int, leaves: int) -> list[jax.Array]:
    """A random key for each leaf at a step."""
    step = jnp.asarray(count, jnp.int32).astype(jnp.uint32)
    return [*jax.random.split(jax.random.fold_in(jax.random.key(seed), step), leaves)]


def _check_target(name: str, target: Target) -> None:
    """Raise if the target's sparsity is not known, or it is not of single weights."""
    sparsities = [target.sparsity]
    if not isinstance(target.scope, str):
        sparsities += target.scope.values()
    for sparsity in sparsities:
        if callable(sparsity) or validation.as_decimal("sparsity", sparsity) is None:
            raise ValueError(
                f"sparsity must be a number for {name}, which is sparse from the first "
                f"step on, got {sparsity!r}"
            )
    for what, value, only in (
        ("criterion", target.criterion, _magnitudes.magnitude),
        ("structure", target.structure, _structure.Unstructured()),
        ("min_kept", target.min_kept, 0),
    ):
        if value != only:
            raise ValueError(f"{what} must be {only!r} for {name}, got {value!r}")
