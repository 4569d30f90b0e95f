"""Criteria: the score by which weights are ranked. The lowest scores are pruned."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from swd_jax import _float_order, _joint_reductions, _reductions
from swd_jax._shards import Shards


@dataclasses.dataclass(frozen=True)
class Criterion:
    """A score for every weight, in two parts that keep it from being stored.

    Attributes:
      name: the name by which `Target(criterion=...)` knows it too.
      score: elementwise: the weights of a leaf and its statistic to scores of at least
        zero. Called at every reading of the weights, so that no array of scores need
        exist.
      statistics: of all leaves, what the score needs to know of each as a whole,
        worked out once a step; None if nothing.
      divided_statistics: the same of leaves divided by hand, of which each device has a
        part: given these and the `Shards` that say how. None if it is not known.
      keeps_precision: whether a score has no more significant bits than its weight, as
        a magnitude has no more. Thresholds among weights of 16 bits are then found
        sooner.
    """

    name: str
    score: Callable[[jax.Array, Any], jax.Array]
    statistics: Callable[[Sequence[jax.Array]], list[jax.Array]] | None = None
    divided_statistics: (
        Callable[[Sequence[jax.Array], Shards], list[jax.Array]] | None
    ) = None
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


def l2_norms(leaves: Sequence[jax.Array], shards: Shards | None = None) -> jax.Array:
    r"""The L2 norms of the finite weights of leaves, however large or small they are.

    .. math:: \frac{p}{2} \sqrt{\textstyle\sum_i q_i / 2^{27}}, \quad
              q_i = \lfloor 2^{27} (2 w_i / p)^2 \rfloor

    where :math:`p` is the power of two below the largest weight. The sum is of
    integers, and so the same in whatever order, on however many devices, it is taken.

    Args:
      leaves: of one type, float32 or float64; at least one.
      shards: how they are divided by hand, if they are.

    Returns:
      Their norms, shape (leaves,), all worked out together: with a thousand leaves,
      what is compiled counts.
    """
    info = jnp.finfo(leaves[0].dtype)
    largest = _reductions.largest([_finite_keys(leaf) for leaf in leaves], shards)
    powers = _float_order.from_key(largest >> info.nmant << info.nmant, info.dtype)
    some = powers >= info.tiny
    # At most 4: a factor of 1 / p would not be a normal number for the largest p.
    scales = _joint_reductions.separate(2 / jnp.where(some, powers, 1))
    squares = [_squares(*each) for each in zip(leaves, scales, strict=True)]
    sums = _reductions.sums_as_float(squares, shards)
    half_roots = jnp.sqrt(sums * 2.0**-29).astype(info.dtype)
    return jnp.where(some, half_roots * powers, 0)


def _finite_keys(weights: jax.Array) -> jax.Array:
    """The keys of weights, 0 for those that are not finite."""
    keys = _float_order.to_key(weights)
    return jnp.where(keys < _float_order.largest_key(weights.dtype), keys, 0)


def _squares(weights: jax.Array, scale: jax.Array) -> jax.Array:
    """(w * scale)^2 in units of 2^-27, less than 2^31; 0 where w is not finite."""
    shares = jnp.where(jnp.isfinite(weights), jnp.abs(weights) * scale, 0)
    return (jnp.square(shares) * 2.0**27).astype(jnp.int32).astype(jnp.uint32)


def _reciprocal_norms(
    leaves: Sequence[jax.Array], shards: Shards | None = None
) -> list[jax.Array]:
    """1 / ||w|| of each leaf, in the range of normal numbers; 1 for a leaf of zeros."""
    norms = l2_norms(leaves, shards)
    tiny = jnp.finfo(norms.dtype).tiny
    factors = 1 / jnp.where(norms > 0, jnp.clip(norms, tiny, 1 / tiny), 1)
    return _joint_reductions.separate(factors)


magnitude = Criterion("magnitude", _magnitude, keeps_precision=True)
"""The magnitude |w|: the criterion of the paper, and the default.

One threshold over layers whose weights differ in scale takes most from the layer with
the smallest weights, at worst all of it. `summarize` names the leaves that it empties.

Source: algorithm 1 of arXiv 2011.10520.
"""

normalized_magnitude = Criterion(
    "normalized_magnitude",
    _scaled_magnitude,
    statistics=_reciprocal_norms,
    divided_statistics=_reciprocal_norms,
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


@functools.partial(jax.jit, static_argnames=("criterion", "dtype", "shards"))
def statistics(
    criterion: Criterion,
    leaves: list[jax.Array],
    dtype: jnp.dtype,
    shards: Shards | None = None,
) -> list[jax.Array | None]:
    """What the criterion's score needs to know of each leaf."""
    if criterion.statistics is None or not leaves:
        return [None] * len(leaves)
    wide = [_float_order.widen(leaf, dtype) for leaf in leaves]
    if shards is None:
        return [*criterion.statistics(wide)]
    if criterion.divided_statistics is None:
        raise ValueError(
            f"axis_name is {shards.axes}, but {criterion!r} knows statistics of whole "
            "leaves only: give it divided_statistics, which add up what each device has"
        )
    return [*criterion.divided_statistics(wide, shards)]
