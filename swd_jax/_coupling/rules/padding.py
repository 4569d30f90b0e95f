"""Rule for pad, also with negative padding, which removes positions."""

from typing import Any

import numpy as np
from jax import lax

from swd_jax._coupling import type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CouplingAnalysis
from swd_jax._coupling.label_operations import assign_block_to_axis, freeze_axes
from swd_jax._coupling.rules.removed_values import (
    joined_uniform_value,
    joined_values,
)
from swd_jax._coupling.rules.rule_interface import (
    Evaluator,
    Rule,
    Step,
    param,
    result_shape,
)


def _label_pad(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> Labels:
    labels, filler = inputs
    shape = result_shape(equation)
    for dim, (low, high, interior) in enumerate(param(equation, "padding_config")):
        if (low, high, interior) == (0, 0, 0):
            continue
        if dim in labels.labelled_axes and interior:
            labels = freeze_axes(
                analysis, labels, "padding between its channels", [dim]
            )
        elif dim in labels.labelled_axes:
            labels = _pad_ends(analysis, labels, dim, low, high)
        labels = labels.replace(
            shape=(*labels.shape[:dim], shape[dim], *labels.shape[dim + 1 :]),
            broadcast_axes=labels.broadcast_axes - {dim},
        )
    return labels.replace(
        depends_on_input=labels.depends_on_input or filler.depends_on_input,
        removed_values=joined_values([labels, filler], labels.labelled_axes),
        uniform_value=joined_uniform_value([labels, filler]),
    )


def _pad_ends(
    analysis: CouplingAnalysis, labels: Labels, dim: int, low: int, high: int
) -> Labels:
    """Add new atoms for padding at the ends of an axis.

    The padding is one number, so any of its positions can be removed together with
    those of the array to which the result is added.
    """
    labels = assign_block_to_axis(analysis, labels, [dim])
    ids = labels.axis_atoms(dim)[max(-low, 0) : labels.shape[dim] + min(high, 0)]
    low_ids = analysis.atoms.create(max(low, 0))
    high_ids = analysis.atoms.create(max(high, 0))
    padded = np.concatenate([low_ids, ids, high_ids])
    if not len(padded):
        return labels.replace(blocks=labels.blocks_except((dim,)))
    return labels.replace(blocks={**labels.blocks, (dim,): padded})


def _run_pad(evaluator: Evaluator, step: Step, values: list[Any]) -> Any:
    labels, [result] = step.inputs[0], step.outputs
    config = list(param(step.equation, "padding_config"))
    padded = [dim for dim, amounts in enumerate(config) if any(amounts)]
    value = evaluator.broadcast_to_full(values[0], labels, padded)
    for dim in padded:
        low, high, interior = config[dim]
        kept_before = evaluator.kept_positions(labels, dim)
        kept_after = evaluator.kept_positions(result, dim)
        if interior or (kept_before.all() and kept_after.all()):
            continue
        # Pad by the positions at the ends that are kept in the result. Negative padding
        # removes the positions at the ends that are kept in the operand.
        new_low = kept_after[:low].sum() if low >= 0 else -kept_before[:-low].sum()
        new_high = (
            kept_after[len(kept_after) - high :].sum()
            if high >= 0
            else -kept_before[len(kept_before) + high :].sum()
        )
        config[dim] = (int(new_low), int(new_high), 0)
    return lax.pad(value, values[1], config)


RULES = {"pad": Rule(_label_pad, _run_pad)}
