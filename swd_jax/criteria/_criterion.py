"""`Criterion`: the score by which weights are ranked. The lowest are pruned."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from swd_jax._arguments import validation
from swd_jax._arguments.short_text import shown
from swd_jax._arrays import sort_keys
from swd_jax._arrays.manual_sharding import Shards

ExtraInputs: TypeAlias = Mapping[str, jax.Array]
"""Arrays that a criterion reads besides the weights of a leaf, in the leaf's shape, by
name: "gradient", "accumulated", or an extra argument."""

ScoreInputs: TypeAlias = tuple[jax.Array, Any, ExtraInputs]
"""A leaf's weights, its statistic, and its extra inputs."""


@dataclasses.dataclass(frozen=True)
class Accumulator:
    """An array per prunable leaf that a criterion updates at every step.

    The arrays are part of the state of the transformation, as "accumulated". They need
    as much memory as the prunable weights in float32.

    A step whose gradients overflow, as with a loss scale that is too large, must not
    count for ever. Where `update` gives NaN or infinity, the accumulated number stays
    as it was, and the state of the transformation counts the step in `steps_left_out`.

    Attributes:
      update: (accumulated, weights, gradient) -> accumulated, called once a step and
        leaf with arrays in the leaf's shape, in float32 or float64. The first
        `accumulated` is zeros. Must be elementwise, and hashable.
    """

    update: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True, repr=False)
class Criterion:
    """A scoring rule: an elementwise function of the weights and a number per leaf.

        score = f(w, statistic of the leaf, extra inputs at the weight's position)

    Of the weights that share a threshold, those with the lowest scores are pruned. The
    rule has two parts, so that no array of scores is stored: `statistics` is computed
    once a step, and `score` is called again in every pass over the weights.

    A plain function is enough for a rule without statistics and accumulator:
    `Target(criterion=lambda weights, gradient: ...)`. The names of its parameters after
    the first become `extra_args`, and its scores may have either sign.

    Criteria are static arguments of compiled functions. Two criteria are equal if all
    their attributes are, so give functions that are defined once, or callable frozen
    dataclasses: a lambda that is made anew for each criterion is compiled anew.

    Attributes:
      name: the name in error messages.
      score: `(weights, statistic, **extra_inputs) -> scores`, in the weights' shape.
        Weights and extra inputs are float32, or float64 if a leaf is; the scores must
        have that dtype. `statistic` is the leaf's entry of `statistics`, or None. Each
        of `input_names` is passed by keyword. Weights whose score is infinite or NaN
        are never pruned.
      statistics: leaves -> one statistic for each leaf, any pytree of arrays. The
        leaves are all those of a target, in float32 or float64. None if the score
        needs none.
      sharded_statistics: (leaves, shards) -> the same, for leaves of which each device
        has a shard, inside `shard_map` or `pmap` with `axis_name`. `leaves` are then
        this device's shards, and `shards`, a `swd_jax.typing.Shards`, says over which
        mesh axes each leaf is sharded and sums over these axes. Every device must
        compute the statistic of the whole leaf. None if that is not supported: a target
        with `axis_name` then raises.
      preserves_mantissa_bits: whether a score has no more significant bits than its
        weight, as a magnitude has. Thresholds among 16-bit weights are then found in
        fewer passes.
      extra_args: names of trees like the parameters that the score reads besides the
        weights: "gradient", which `swd` supplies itself, or extra arguments of
        `update`.
      accumulator: the array per leaf that the score reads as `accumulated`; None for
        none.
      signed: whether scores may be negative. Ordering signed scores costs one mantissa
        bit: scores that differ only in the last bit tie. If False, the sign of a score
        is ignored, so leave it False only if scores are at least 0.
      elementwise: whether the score of a weight depends, to the bit, only on the weight
        itself, its extra inputs and a statistic of shape (): not on its position. N:M
        structures then need no array of scores.

    Examples:
      The distance from the leaf's mean, of sharded leaves too. `once` zeroes a sum on
      all devices but one that have the same shard, `total` adds the sums up, and
      `parts` is the number of shards:

      >>> import jax.numpy as jnp, swd_jax
      >>> def distance(weights, mean):
      ...     return jnp.abs(weights - mean)
      >>> def means(leaves):
      ...     return [jnp.mean(leaf) for leaf in leaves]
      >>> def sharded_means(leaves, shards):
      ...     sums = [
      ...         shards.mask_replicas(i, jnp.sum(leaf))
      ...         for i, leaf in enumerate(leaves)
      ...     ]
      ...     sizes = [
      ...         leaf.size * shards.num_shards(i) for i, leaf in enumerate(leaves)
      ...     ]
      ...     return [s / n for s, n in zip(shards.psum(sums), sizes)]
      >>> criterion = swd_jax.criteria.Criterion(
      ...     "distance",
      ...     distance,
      ...     statistics=means,
      ...     sharded_statistics=sharded_means,
      ...     elementwise=True,
      ... )
      >>> params = {"kernel": jnp.array([[0.0, 1.0, 2.0, 3.0, 9.0]])}
      >>> pruned = swd_jax.prune(params, swd_jax.Target(0.4, criterion=criterion))
      >>> print(pruned["kernel"])
      [[0. 1. 0. 0. 9.]]

      The sum of the gradients' magnitudes over all steps, times an importance that the
      caller passes to `update` as an extra argument:

      >>> def add_magnitude(accumulated, weights, gradient):
      ...     return accumulated + jnp.abs(gradient)
      >>> def weighted(weights, statistic, *, accumulated, importance):
      ...     return accumulated * importance
      >>> criterion = swd_jax.criteria.Criterion(
      ...     "weighted_gradients",
      ...     weighted,
      ...     extra_args=("importance",),
      ...     accumulator=swd_jax.criteria.Accumulator(add_magnitude),
      ...     elementwise=True,
      ... )
      >>> criterion.input_names
      ('importance', 'accumulated')
    """

    name: str
    score: Callable[..., jax.Array]
    statistics: Callable[[Sequence[jax.Array]], Sequence[Any]] | None = None
    sharded_statistics: (
        Callable[[Sequence[jax.Array], Shards], Sequence[Any]] | None
    ) = None
    preserves_mantissa_bits: bool = False
    extra_args: tuple[str, ...] = ()
    accumulator: Accumulator | None = None
    signed: bool = False
    elementwise: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(
                f"name of Criterion must be a string, got {shown(self.name)}"
            )
        if isinstance(self.extra_args, str):
            raise ValueError(
                f"extra_args of {self!r} must be a tuple of names, got the string "
                f"{self.extra_args!r}: give ({self.extra_args!r},)"
            )
        object.__setattr__(self, "extra_args", tuple(self.extra_args))
        reason = "it is no function"
        if callable(self.score):
            reason = validation.why_not_callable(self.score, 2, *self.input_names)
        if reason is not None:
            arguments = ", ".join(("weights", "statistic", *self.input_names))
            raise ValueError(
                f"score of {self!r} must be a function of ({arguments}), got "
                f"{shown(self.score)}: {reason}"
            )

    def __repr__(self) -> str:
        return f"Criterion({self.name!r})"

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of all that the score reads besides weights and statistic."""
        if self.accumulator is None:
            return self.extra_args
        return (*self.extra_args, "accumulated")


@dataclasses.dataclass(frozen=True, repr=False)
class LibraryCriterion(Criterion):
    """A criterion of this package, which prints as the expression that gives it."""

    def __repr__(self) -> str:
        return f"swd_jax.criteria.{self.name}"


def scores(
    criterion: Criterion,
    weights: jax.Array,
    statistic: Any,
    inputs: ExtraInputs,
    dtype: jnp.dtype,
) -> jax.Array:
    """Score one leaf in the dtype in which the leaves of a target are compared."""
    wide = {name: sort_keys.widen(array, dtype) for name, array in inputs.items()}
    return criterion.score(sort_keys.widen(weights, dtype), statistic, **wide)


def nonnegative_scores(
    criterion: Criterion,
    weights: jax.Array,
    statistic: Any,
    inputs: ExtraInputs,
    dtype: jnp.dtype,
) -> jax.Array:
    """Score one leaf, with signed scores mapped to non-negative floats in their order.

    Of the result only the magnitude is significant.
    """
    values = scores(criterion, weights, statistic, inputs, dtype)
    return sort_keys.signed_to_nonnegative(values) if criterion.signed else values


@functools.partial(jax.jit, static_argnames=("criterion", "dtype", "shards"))
def statistics(
    criterion: Criterion,
    leaves: list[jax.Array],
    dtype: jnp.dtype,
    shards: Shards | None = None,
) -> list[Any]:
    """Compute the statistic of each leaf; None for a criterion without statistics.

    Raises:
      ValueError: if leaves are sharded, and the criterion has statistics of whole
        leaves only.
    """
    if criterion.statistics is None or not leaves:
        return [None] * len(leaves)
    wide = [sort_keys.widen(leaf, dtype) for leaf in leaves]
    if shards is None:
        return [*criterion.statistics(wide)]
    if criterion.sharded_statistics is None:
        raise ValueError(
            f"axis_name is {shards.axes}, but {criterion!r} has statistics of whole "
            "leaves only: give it sharded_statistics, which compute them from shards"
        )
    return [*criterion.sharded_statistics(wide, shards)]
