"""Rule for broadcast_in_dim: new axes are stored with size 1 in the smaller program."""

from typing import Any

import jax.numpy as jnp
from jax import lax

from swd_jax._coupling import type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CouplingAnalysis
from swd_jax._coupling.label_operations import broadcast_axes_to
from swd_jax._coupling.rules.rule_interface import (
    Evaluator,
    Rule,
    Step,
    UnsupportedPrimitive,
    param,
)


def _label_broadcast_in_dim(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> Labels:
    if len(inputs) > 1:
        raise UnsupportedPrimitive("broadcast_in_dim with dynamic sizes")
    [labels] = inputs
    shape = param(equation, "shape")
    dims = param(equation, "broadcast_dimensions")
    labels = broadcast_axes_to(analysis, labels, [shape[dim] for dim in dims])
    return labels.move_axes(dict(enumerate(dims)), shape)


def _run_broadcast_in_dim(evaluator: Evaluator, step: Step, values: list[Any]) -> Any:
    del evaluator
    dims = param(step.equation, "broadcast_dimensions")
    sizes = [1] * step.outputs[0].rank
    for dim, size in zip(dims, jnp.shape(values[0]), strict=True):
        sizes[dim] = size
    return lax.broadcast_in_dim(values[0], sizes, dims)


RULES = {"broadcast_in_dim": Rule(_label_broadcast_in_dim, _run_broadcast_in_dim)}
