"""Criteria: the score by which weights are ranked. The lowest scores are pruned."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from swd_jax import _float_order, _reductions


@dataclasses.dataclass(frozen=True)
class Criterion:
    """A score for every weight, in two parts that keep it from being stored.

    Attributes:
      name: the name by which `Target(criterion=...)` knows it too.
      score: elementwise: the weights of a leaf and its statistic to scores of at least
        zero. Called at every reading of the weights, so that no array of scores need
        exist.
      statistic: what the score needs to know of the whole leaf, worked out once a
        step; None if nothing.
      keeps_precision: whether a score has no more significant bits than its weight, as
        |w| has. Thresholds among weights of 16 bits are then found sooner.
    """

    name: str
    score: Callable[[jax.Array, Any], jax.Array]
    statistic: Callable[[jax.Array], jax.Array] | None = None
    keeps_precision: bool = False

    def __repr__(self) -> str:
        return f"swd_jax.{self.name}"


def _magnitude(weights: jax.Array, statistic: None) -> jax.Array:
    del statistic
    return jnp.abs(weights)


def _scaled_magnitude(weights: jax.Array, scale: jax.Array) -> jax.Array:
    # A product and not a quotient: XLA turns some divisions by one number into
    # products and others not, and then the same weight has two scores.
    return jnp.abs(weights) * scale


def l2_norm(weights: jax.Array) -> jax.Array:
    r"""The L2 norm of the finite weights of a leaf, however large or small they are.

    .. math:: \frac{p}{2} \sqrt{\textstyle\sum_i q_i / 2^{27}}, \quad
              q_i = \lfloor 2^{27} (2 w_i / p)^2 \rfloor

    where :math:`p` is the power of two below the largest weight. The sum is of
    integers, and so the same in whatever order, on however many devices, it is taken.
    """
    info = jnp.finfo(weights.dtype)
    keys = _float_order.to_key(weights)
    finite = keys < _float_order.largest_key(weights.dtype)
    largest = _reductions.largest(jnp.where(finite, keys, 0))
    power = _float_order.from_key(largest >> info.nmant << info.nmant, info.dtype)
    some = power >= info.tiny
    # At most 4: a factor of 1 / p would not be a normal number for the largest p.
    scale = 2 / jnp.where(some, power, 1)
    # The largest weight again, in other words: shared, the keys would be stored.
    shares = jnp.where(jnp.isfinite(weights), jnp.abs(weights) * scale, 0)
    squares = (jnp.square(shares) * 2.0**27).astype(jnp.int32).astype(jnp.uint32)
    half_root = jnp.sqrt(_reductions.sum_integers_as_float(squares) * 2.0**-29)
    return jnp.where(some, half_root.astype(info.dtype) * power, 0)


def _reciprocal_norm(weights: jax.Array) -> jax.Array:
    """1 / ||w||, in the range of normal numbers; 1 for a leaf of zeros."""
    norm = l2_norm(weights)
    tiny = jnp.finfo(weights.dtype).tiny
    return 1 / jnp.where(norm > 0, jnp.clip(norm, tiny, 1 / tiny), 1)


magnitude = Criterion("magnitude", _magnitude, keeps_precision=True)
"""The magnitude |w|: the criterion of the paper, and the default.

One threshold over layers whose weights differ in scale takes most from the layer with
the smallest weights, at worst all of it. `summarize` names the leaves that it empties.

Source: algorithm 1 of arXiv 2011.10520.
"""

normalized_magnitude = Criterion(
    "normalized_magnitude", _scaled_magnitude, _reciprocal_norm
)
"""The magnitude as a share of its leaf's L2 norm: |w| / ||leaf||.

Leaves whose weights are small throughout keep their part under a global target, and a
leaf cannot be emptied because of its scale alone. With `scope="local"` it selects as
`magnitude` does, up to rounding. A weight that is not finite counts in no norm.
"""

_BY_NAME = {
    criterion.name: criterion for criterion in (magnitude, normalized_magnitude)
}


def as_criterion(criterion: Criterion | str) -> Criterion:
    """The criterion itself, or the one of that name."""
    if isinstance(criterion, Criterion):
        return criterion
    if isinstance(criterion, str) and criterion in _BY_NAME:
        return _BY_NAME[criterion]
    raise ValueError(
        f"criterion must be one of {', '.join(map(repr, _BY_NAME.values()))} or its "
        f"name, got {criterion!r}"
    )


def scores(
    criterion: Criterion,
    weights: jax.Array,
    statistic: jax.Array | None,
    dtype: jnp.dtype,
) -> jax.Array:
    """One leaf's scores in the type in which leaves are ranked together."""
    return criterion.score(_float_order.widen(weights, dtype), statistic)


@functools.partial(jax.jit, static_argnames=("criterion", "dtype"))
def statistics(
    criterion: Criterion, leaves: list[jax.Array], dtype: jnp.dtype
) -> list[jax.Array | None]:
    """What the criterion's score needs to know of each leaf."""
    if criterion.statistic is None:
        return [None] * len(leaves)
    return [criterion.statistic(_float_order.widen(leaf, dtype)) for leaf in leaves]
