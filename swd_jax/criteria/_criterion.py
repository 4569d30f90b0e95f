"""What a criterion is: the score by which weights are ranked. The lowest are pruned."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from swd_jax._arrays import sort_keys
from swd_jax._arrays.manual_sharding import Shards

Evidence = Mapping[str, jax.Array]
"""What a criterion looks at besides the weights of a leaf, by name: "gradient",
"tracked", or an extra argument; arrays in the leaf's shape."""


Scored: TypeAlias = tuple[jax.Array, Any, Evidence]
"""A leaf, what a criterion knows of it, and what it looks at besides."""


@dataclasses.dataclass(frozen=True)
class Tracked:
    """What a criterion gathers from step to step: an array for each prunable leaf.

    It is kept in the state of the transformation, as "tracked", and takes as much
    memory as the prunable weights in float32.

    Attributes:
      advance: (tracked, weights, gradient) -> tracked, all of one leaf, in float32 at
        least. It begins with zeros.
    """

    advance: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Criterion:
    """A score for every weight, in two parts that keep it from being stored.

    A plain function of the weights does as well: `Target(criterion=jnp.abs)`. What its
    further parameters are called says what it needs (see `needs`).

    Attributes:
      name: what it is called in errors, and, for those of this library, the name by
        which `Target(criterion=...)` knows it too.
      score: elementwise: the weights of a leaf and its statistic to scores of at least
        zero, in float32 or float64. Called at every reading of the weights, so that no
        array of scores need exist. What is in `needs` it gets by keyword.
      statistics: of all leaves, what the score needs to know of each as a whole,
        worked out once a step; None if nothing.
      divided_statistics: the same of leaves divided by hand, of which each device has a
        part: given these and the `Shards` that say how. None if it is not known.
      keeps_precision: whether a score has no more significant bits than its weight, as
        a magnitude has no more. Thresholds among weights of 16 bits are then found
        sooner.
      needs: the names of what it looks at besides the weights: "gradient", or extra
        arguments of `update` that are trees like the parameters.
      tracked: what it gathers from step to step, which its score gets as `tracked`;
        None if nothing.
      signed: whether scores may be negative. They are then told apart by 23 instead of
        24 bits.
      by_weight: whether the score of a weight is known, to the bit, from the weight,
        its evidence and a statistic that is one number, wherever it stands. N of m
        weights are then found without storing scores.
    """

    name: str
    score: Callable[..., jax.Array]
    statistics: Callable[[Sequence[jax.Array]], Sequence[Any]] | None = None
    divided_statistics: (
        Callable[[Sequence[jax.Array], Shards], Sequence[Any]] | None
    ) = None
    keeps_precision: bool = False
    needs: tuple[str, ...] = ()
    tracked: Tracked | None = None
    signed: bool = False
    by_weight: bool = False

    def __repr__(self) -> str:
        return f"swd_jax.{self.name}"

    @property
    def evidence(self) -> tuple[str, ...]:
        """The names of all that it looks at besides the weights."""
        return self.needs if self.tracked is None else (*self.needs, "tracked")


# One function is one criterion, whoever asks: what is compiled for it is found again.
@functools.lru_cache(maxsize=256)
def from_function(function: Callable[..., Any]) -> Criterion:
    """A plain function of the weights, and perhaps of more, as a criterion.

    Raises:
      ValueError: if it takes no weights, or a number of arguments that is not known.
    """
    name = getattr(function, "__name__", type(function).__name__)
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    required = [p for p in parameters if p.default is p.empty]
    variadic = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)
    if not required or variadic:
        raise ValueError(
            f"criterion {name!r} must be a function of the weights, such as "
            "lambda weights: ..., or of weights and what it needs besides them by "
            "name, such as lambda weights, gradient: ..."
        )
    needs = tuple(p.name for p in required[1:])

    def score(weights: jax.Array, statistic: None, **evidence: jax.Array) -> jax.Array:
        del statistic
        found = function(weights, **evidence)
        if jnp.shape(found) != weights.shape:
            raise ValueError(
                f"criterion {name!r} must give scores in the shape of the weights, "
                f"{weights.shape}, and gave {jnp.shape(found)}"
            )
        return found.astype(weights.dtype)

    return Criterion(name, score, needs=needs)


def scores(
    criterion: Criterion,
    weights: jax.Array,
    statistic: Any,
    evidence: Evidence,
    dtype: jnp.dtype,
) -> jax.Array:
    """One leaf's scores in the type in which leaves are ranked together."""
    wide = {name: sort_keys.widen(each, dtype) for name, each in evidence.items()}
    return criterion.score(sort_keys.widen(weights, dtype), statistic, **wide)


def magnitudes(
    criterion: Criterion,
    weights: jax.Array,
    statistic: Any,
    evidence: Evidence,
    dtype: jnp.dtype,
) -> jax.Array:
    """The scores in an order of magnitudes: those with signs moved to where none is."""
    found = scores(criterion, weights, statistic, evidence, dtype)
    return sort_keys.ordered(found) if criterion.signed else found


@functools.partial(jax.jit, static_argnames=("criterion", "dtype", "shards"))
def statistics(
    criterion: Criterion,
    leaves: list[jax.Array],
    dtype: jnp.dtype,
    shards: Shards | None = None,
) -> list[Any]:
    """What the criterion's score needs to know of each leaf."""
    if criterion.statistics is None or not leaves:
        return [None] * len(leaves)
    wide = [sort_keys.widen(leaf, dtype) for leaf in leaves]
    if shards is None:
        return [*criterion.statistics(wide)]
    if criterion.divided_statistics is None:
        raise ValueError(
            f"axis_name is {shards.axes}, but {criterion!r} knows statistics of whole "
            "leaves only: give it divided_statistics, which add up what each device has"
        )
    return [*criterion.divided_statistics(wide, shards)]
