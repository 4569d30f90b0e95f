"""Ready-made schedules: the growth of the decay, the rise of the target."""

import itertools
from collections.abc import Sequence

import optax

from swd_jax._arguments import validation


def exponential_growth(a_min: float, a_max: float, total_steps: int) -> optax.Schedule:
    """The multiplier of the selective decay over training, as in the paper.

        a(t) = a_min * (a_max / a_min) ** (t / total_steps),   and a_max from then on.

    A small a_min leaves the network free to choose its weights; a_max is what presses
    the losing ones to zero. Whether it was large enough is what the residual of
    `summarize` tells: if much is left of it at the end of training, raise a_max, or
    give the schedule more steps. The code of the paper goes from 0.1 to 1e5. Adam moves
    a weight by about its learning rate at most, whatever a is: there it is the sum of
    the learning rates that must suffice to bring weights to zero, and a from 10 to 1e6
    or more did better than from 0.1 (the page on the paper has a grid). With SGD see
    `bound_multiplier`: a large a_max can make it diverge.

    Args:
      a_min: multiplier at step 0, greater than 0.
      a_max: multiplier at `total_steps`, at least `a_min`.
      total_steps: T, the optimizer steps of the whole training, at least 1.

    Returns:
      A schedule for `swd(a=...)` and the forms after the optimizer.

    Raises:
      ValueError: if an argument is out of range.

    Examples:
      >>> import swd_jax
      >>> a = swd_jax.exponential_growth(a_min=0.1, a_max=1e3, total_steps=400)
      >>> [round(float(a(step)), 4) for step in (0, 100, 200, 400, 1000)]
      [0.1, 1.0, 10.0, 1000.0, 1000.0]

    Source: equation 3 and algorithm 1 of arXiv 2011.10520.
    """
    lowest = validation.as_decimal("a_min", a_min)
    highest = validation.as_decimal("a_max", a_max)
    validation.check_step_count("total_steps", total_steps, least=1)
    if lowest is None or highest is None:
        raise ValueError(
            "a_min and a_max must be known when the schedule is made, got a traced "
            "value: give swd a function of the step instead"
        )
    if lowest <= 0:
        raise ValueError(f"a_min must be greater than 0, got {a_min!r}")
    if highest < lowest:
        raise ValueError(f"a_max must be at least a_min={a_min!r}, got {a_max!r}")
    return optax.exponential_decay(
        init_value=float(lowest),
        transition_steps=total_steps,
        decay_rate=float(highest / lowest),
        end_value=float(highest),
    )


def cubic_sparsity(final: float, begin: int, end: int) -> optax.Schedule:
    """A target sparsity that rises from 0, fast at first and slower towards its end.

        s(t) = final * (1 - (1 - (t - begin) / (end - begin)) ** 3)

    between `begin` and `end`, 0 before and `final` after. A hard target that is in
    force from the first step starves the network while it still has everything to
    learn; one that rises leaves it the time. Let it end well before training does (at
    0.7 of the steps, say), so that the decay can finish its work.

    Args:
      final: the sparsity to end with, in [0, 1).
      begin: the step at which it starts to rise, at least 0.
      end: the step from which it is `final`, greater than `begin`.

    Returns:
      A schedule for `Target(sparsity=...)`, whose final value `prune` and `summarize`
      find by themselves.

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
    value = validation.as_decimal("final", final)
    if value is not None and not 0 <= value < 1:
        raise ValueError(f"final must be in [0, 1), got {final!r}")
    validation.check_step_count("begin", begin, least=0)
    validation.check_step_count("end", end, least=begin + 1)
    return optax.polynomial_schedule(
        init_value=0.0,
        end_value=final,
        power=3,
        transition_steps=end - begin,
        transition_begin=begin,
    )


def staircase_sparsity(final: float, steps: Sequence[int]) -> optax.Schedule:
    """A target sparsity that rises at a few steps: pruning at once, or in rounds.

        s(t) = 1 - (1 - final) ** (i / n)   from the i-th of n steps on, 0 before

    so that every round takes the same part of what is left, and the last one is at
    `final`. With a single step this is one-shot pruning, after which training goes on
    as fine-tuning.

    Args:
      final: the sparsity to end with, in [0, 1).
      steps: the optimizer steps at which it rises, in ascending order, each at least 0.

    Returns:
      A schedule for `Target(sparsity=...)`, made for `magnitude_pruning`.

    Raises:
      ValueError: if an argument is out of range, or there are no steps.

    Examples:
      >>> import swd_jax
      >>> in_rounds = swd_jax.schedules.staircase_sparsity(0.75, [100, 200])
      >>> [round(float(in_rounds(step)), 4) for step in (0, 99, 100, 199, 200, 1000)]
      [0.0, 0.0, 0.5, 0.5, 0.75, 0.75]
      >>> at_once = swd_jax.Target(swd_jax.schedules.staircase_sparsity(0.9, [1000]))

    Source: Han et al., "Learning both weights and connections" (arXiv 1506.02626),
    section 3.4; the same part of what is left: Frankle & Carbin, "The lottery ticket
    hypothesis" (arXiv 1803.03635), section 2.
    """
    value = validation.as_decimal("final", final)
    if value is not None and not 0 <= value < 1:
        raise ValueError(f"final must be in [0, 1), got {final!r}")
    _check_ascending("steps", steps)
    # A number as a float, which keeps the decimal that it prints as; or what is traced.
    last = final if value is None else float(value)
    levels = [1 - (1 - last) ** (i / len(steps)) for i in range(len(steps))]
    constants = [optax.constant_schedule(level) for level in (*levels, last)]
    return optax.join_schedules(constants, list(steps))


def rewind(schedule: optax.Schedule, steps: Sequence[int], to: int) -> optax.Schedule:
    """A learning rate that goes back to where it was, each time something is pruned.

        lr(t)            before the first of the steps
        lr(to + t - t_i)  from the step t_i on, until the next

    Args:
      schedule: the learning rate lr, a schedule of the optimizer step.
      steps: t_i, the optimizer steps at which it goes back, in ascending order: those
        of `staircase_sparsity`.
      to: the step of `schedule` to which it goes back, at least 0.

    Returns:
      A schedule for the optimizer.

    Raises:
      ValueError: if an argument is out of range, or there are no steps.

    Examples:
      >>> import optax, swd_jax
      >>> falling = optax.linear_schedule(1.0, 0.0, transition_steps=10)
      >>> again = swd_jax.schedules.rewind(falling, [10], to=5)
      >>> [round(float(again(step)), 4) for step in (0, 5, 9, 10, 12, 15)]
      [1.0, 0.5, 0.1, 0.5, 0.3, 0.0]

    Source: Renda et al., "Comparing rewinding and fine-tuning in neural network
    pruning" (arXiv 2003.02389), section 2.
    """
    if not callable(schedule):
        raise ValueError(
            "schedule must be a schedule of the step, such as "
            f"optax.cosine_decay_schedule(...), got {schedule!r}"
        )
    _check_ascending("steps", steps)
    validation.check_step_count("to", to, least=0)
    return optax.join_schedules(
        [schedule, *[lambda step: schedule(step + to)] * len(steps)], list(steps)
    )


def _check_ascending(name: str, steps: Sequence[int]) -> None:
    """Raise if these are not whole numbers, at least one, each above the last."""
    for step in steps:
        validation.check_step_count(name, step, least=0)
    rising = all(first < second for first, second in itertools.pairwise(steps))
    if len(steps) == 0 or not rising:
        raise ValueError(f"{name} must be some steps in ascending order, got {steps!r}")
