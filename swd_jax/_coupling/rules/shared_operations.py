"""Operations on arrays of the smaller program that several rules share."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from swd_jax._coupling import type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.rules.rule_interface import Evaluator


def expand_axis(value: Any, dim: int, size: int) -> Any:
    """Broadcast an axis of size 1 to `size`; leave any other axis as it is."""
    if value.shape[dim] != 1 or size == 1:
        return value
    return jnp.broadcast_to(value, (*value.shape[:dim], size, *value.shape[dim + 1 :]))


def broadcast_operands(values: list[Any]) -> list[Any]:
    """Broadcast arrays to one shape; leave scalars as they are."""
    shapes = [jnp.shape(value) for value in values if jnp.ndim(value)]
    if len(set(shapes)) <= 1:
        return values
    shape = jnp.broadcast_shapes(*shapes)
    return [
        jnp.broadcast_to(value, shape) if jnp.ndim(value) else value for value in values
    ]


def broadcast_to_result(
    evaluator: Evaluator, value: Any, labels: Labels, result: Labels
) -> Any:
    """Broadcast axes that are broadcast in `labels` but not in `result`."""
    sizes = list(jnp.shape(value))
    for dim in labels.broadcast_axes - result.broadcast_axes:
        sizes[dim] = evaluator.kept_size(result, dim)
    return jnp.broadcast_to(value, sizes)


def slice_kept(
    evaluator: Evaluator, value: Any, labels: Labels, dim: int, positions: slice
) -> Any:
    """Slice an axis of an array with kept positions by `positions` of the full axis."""
    if dim in labels.broadcast_axes:
        return value
    kept_mask = evaluator.kept_positions(labels, dim)
    if kept_mask.all():
        return lax.slice_in_dim(
            value, positions.start, positions.stop, positions.step or 1, axis=dim
        )
    selected = np.zeros_like(kept_mask)
    selected[positions] = True
    return select_positions(value, selected[kept_mask], dim)


def select_positions(value: Any, selected: type_aliases.Bools, dim: int) -> Any:
    """Return the selected positions along an axis; a slice if they are consecutive."""
    positions = np.flatnonzero(selected)
    if len(positions) and len(positions) == positions[-1] + 1 - positions[0]:
        return lax.slice_in_dim(
            value, int(positions[0]), int(positions[-1]) + 1, axis=dim
        )
    return jnp.take(value, positions, axis=dim)
