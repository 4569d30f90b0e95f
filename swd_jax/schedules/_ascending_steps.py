"""Check of the steps at which a schedule changes."""

import itertools
from collections.abc import Sequence

from swd_jax._arguments import validation
from swd_jax._arguments.short_text import shown


def check_ascending(name: str, steps: Sequence[int]) -> None:
    """Raise if these are not whole numbers, at least one, each above the previous."""
    expected = "a list of steps in ascending order, such as [1000, 2000]"
    if not hasattr(steps, "__len__") or isinstance(steps, str):
        raise ValueError(f"{name} must be {expected}, got {shown(steps)}")
    for step in steps:
        validation.as_step_count(name, step, minimum=0)
    rising = all(first < second for first, second in itertools.pairwise(steps))
    if len(steps) == 0 or not rising:
        raise ValueError(f"{name} must be {expected}, got {shown(steps)}")
