"""Schedules of the target sparsity: a cubic rise, and a staircase."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import optax
from jax.typing import ArrayLike

from swd_jax._arguments import hashable, validation
from swd_jax._arguments.schedule_probes import CheckedSchedule
from swd_jax._arguments.short_text import shown
from swd_jax.schedules._ascending_steps import check_ascending


def cubic_sparsity(final: validation.Number, begin: int, end: int) -> optax.Schedule:
    """A target sparsity that rises from 0, fast at first and more slowly later.

        s(t) = final * (1 - (1 - (t - begin) / (end - begin)) ** 3)

    between `begin` and `end`, 0 before and `final` after. A high sparsity from the
    first step on removes weights before the network has learned which ones it needs.
    Let the rise end well before training does (at 0.7 of the steps, say), so that the
    decay can finish its work.

    Args:
      final: the sparsity to end with, in [0, 1).
      begin: the step at which it starts to rise, at least 0.
      end: the step from which it is `final`, greater than `begin`.

    Returns:
      A schedule for `Target(sparsity=...)`, whose final value `prune` and `summarize`
      find by themselves. Schedules of equal arguments are equal.

    Raises:
      ValueError: if an argument is out of range.

    Examples:
      >>> import swd_jax
      >>> sparsity = swd_jax.cubic_sparsity(0.9, begin=0, end=1000)
      >>> [round(float(sparsity(step)), 4) for step in (0, 500, 1000, 2000)]
      [0.0, 0.7875, 0.9, 0.9]
      >>> target = swd_jax.Target(sparsity)

    Source: equation 1 of Zhu & Gupta, "To prune, or not to prune" (arXiv 1710.01878),
    with an initial sparsity of 0.
    """
    _check_final(final)
    validation.as_step_count("begin", begin, minimum=0)
    validation.check_end(begin, end)
    return _CubicSparsity(
        _as_float(final), hashable.whole_number(begin), hashable.whole_number(end)
    )


@dataclasses.dataclass(frozen=True, repr=False)
class _CubicSparsity(CheckedSchedule):
    final: Any
    begin: Any
    end: Any

    def __call__(self, step: ArrayLike) -> ArrayLike:
        return optax.polynomial_schedule(
            init_value=0.0,
            end_value=self.final,
            power=3,
            transition_steps=self.end - self.begin,
            transition_begin=self.begin,
        )(step)


def staircase_sparsity(final: float, steps: Sequence[int]) -> optax.Schedule:
    """A target sparsity that rises at a few steps: pruning at once, or in rounds.

        s(t) = 1 - (1 - final) ** (i / n)   from the i-th of n steps on, 0 before

    so that every round prunes the same fraction of the remaining weights, and the last
    round reaches `final`. With a single step this is one-shot pruning, after which
    training goes on as fine-tuning.

    Args:
      final: the sparsity to end with, in [0, 1).
      steps: the optimizer steps at which it rises, in ascending order, each at least 0.

    Returns:
      A schedule for `Target(sparsity=...)`, meant for `magnitude_pruning`. Schedules of
      equal arguments are equal.

    Raises:
      ValueError: if an argument is out of range, or there are no steps.

    Examples:
      >>> import swd_jax
      >>> in_rounds = swd_jax.schedules.staircase_sparsity(0.75, [100, 200])
      >>> [round(float(in_rounds(step)), 4) for step in (0, 99, 100, 199, 200, 1000)]
      [0.0, 0.0, 0.5, 0.5, 0.75, 0.75]
      >>> at_once = swd_jax.Target(swd_jax.schedules.staircase_sparsity(0.9, [1000]))

    Source: Han et al., "Learning both weights and connections" (arXiv 1506.02626),
    section 3.4; the same fraction in each round: Frankle & Carbin, "The lottery ticket
    hypothesis" (arXiv 1803.03635), section 2.
    """
    _check_final(final)
    check_ascending("steps", steps)
    return _StaircaseSparsity(
        _as_float(final), tuple(hashable.whole_number(step) for step in steps)
    )


@dataclasses.dataclass(frozen=True, repr=False)
class _StaircaseSparsity(CheckedSchedule):
    final: Any
    steps: tuple[Any, ...]

    def __call__(self, step: ArrayLike) -> ArrayLike:
        rounds = len(self.steps)
        levels = [1 - (1 - self.final) ** (i / rounds) for i in range(rounds)]
        constants = [optax.constant_schedule(level) for level in (*levels, self.final)]
        return optax.join_schedules(constants, list(self.steps))(step)


def _check_final(final: Any) -> None:
    exact = validation.as_decimal("final", final)
    if exact is not None and not 0 <= exact < 1:
        raise ValueError(
            f"final must be in [0, 1), got {shown(final)}"
            f"{validation.percentage_hint(exact)}"
        )


def _as_float(final: Any) -> Any:
    """Convert to the float that prints as the same decimal; tracers stay."""
    exact = validation.as_decimal("final", final)
    return final if exact is None else float(exact)
