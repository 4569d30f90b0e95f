"""The criteria that have names."""

from typing import Any

from swd_jax.criteria import _criterion
from swd_jax.criteria._criterion import Criterion
from swd_jax.criteria._gradients import fisher, movement, saliency
from swd_jax.criteria._lamp import lamp
from swd_jax.criteria._magnitudes import (
    magnitude,
    normalized_magnitude,
    rms_normalized_magnitude,
)

_BY_NAME = {
    criterion.name: criterion
    for criterion in (
        magnitude,
        normalized_magnitude,
        rms_normalized_magnitude,
        lamp,
        saliency,
        movement,
        fisher,
    )
}


def as_criterion(criterion: Criterion | Any) -> Criterion:
    """The criterion itself, the one of that name, or one that a plain function is.

    Raises:
      ValueError: for anything else.
    """
    if isinstance(criterion, Criterion):
        return criterion
    if isinstance(criterion, str) and criterion in _BY_NAME:
        return _BY_NAME[criterion]
    if callable(criterion):
        return _criterion.from_function(criterion)
    raise ValueError(
        f"criterion must be one of {', '.join(map(repr, _BY_NAME.values()))}, its "
        f"name, or a function of the weights, got {criterion!r}"
    )
