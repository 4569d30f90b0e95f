"""Check of the steps at which a schedule changes."""

import itertools
from collections.abc import Sequence

from swd_jax._arguments import validation
from swd_jax._arguments.short_text import shown


def check_ascending(name: str, steps: Sequence[int]) -> None:
    """Raise if these are not whole numbers, at least one, each above the previous."""
    for step in steps:
        validation.as_step_count(name, step, minimum=0)
    rising = all(first < second for first, second in itertools.pairwise(steps))
    if len(steps) == 0 or not rising:
        raise ValueError(
            f"{name} must be some steps in ascending order, got {shown(steps)}"
        )
