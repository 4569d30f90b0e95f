"""Rules for reductions over axes: sum, max, argmax, ..."""

import math
from typing import Any

from swd_jax._coupling import type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CouplingAnalysis
from swd_jax._coupling.label_operations import freeze_atoms
from swd_jax._coupling.rules.removed_values import reduced_value
from swd_jax._coupling.rules.rule_interface import Evaluator, Rule, Step, bind, param


def _label_reduce(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> list[Labels]:
    axes = {axis % inputs[0].rank for axis in param(equation, "axes")}
    name = equation.primitive.name
    return [_reduce_labels(analysis, labels, axes, name) for labels in inputs]


def _reduce_labels(
    analysis: CouplingAnalysis, labels: Labels, axes: set[int], name: str
) -> Labels:
    """Freeze blocks that are reduced whole; reduce the others to their other axes."""
    for key in list(labels.blocks):
        if axes.issuperset(key):
            freeze_atoms(analysis, labels, "reduced over all of its channels", key)
        elif axes.intersection(key):
            labels = _reduce_block(analysis, labels, key, axes)
    blocks = {key: ids for key, ids in labels.blocks.items() if not axes & set(key)}
    rest = [dim for dim in range(labels.rank) if dim not in axes]
    count = math.prod(labels.shape[dim] for dim in axes)
    values = {
        dim: reduced_value(name, value, count)
        for dim, value in labels.removed_values.items()
    }
    return labels.replace(
        blocks=blocks,
        removed_values={d: value for d, value in values.items() if value is not None},
        uniform_value=reduced_value(name, labels.uniform_value, count),
    ).move_axes(
        {dim: new for new, dim in enumerate(rest)}, [labels.shape[dim] for dim in rest]
    )


def _reduce_block(
    analysis: CouplingAnalysis, labels: Labels, key: type_aliases.Dims, axes: set[int]
) -> Labels:
    """Unite a block's atoms along the axes that are reduced.

    A group norm reshapes c channels to (n, c / n) and reduces over the second axis, so
    the first axis keeps the labels.
    """
    ids = labels.blocks[key]
    reduced = [axis for axis, dim in enumerate(key) if dim in axes]
    rest = [axis for axis, dim in enumerate(key) if dim not in axes]
    rows = ids.transpose([*rest, *reduced])
    rows = rows.reshape(*rows.shape[: len(rest)], -1)
    reason = analysis.reason("reduced over a part of its channels")
    analysis.atoms.unite(rows[..., :1], rows, reason)
    rest_key = tuple(dim for dim in key if dim not in axes)
    return labels.replace(blocks={**labels.blocks_except(key), rest_key: rows[..., 0]})


def _run_reduce(evaluator: Evaluator, step: Step, values: list[Any]) -> Any:
    axes = param(step.equation, "axes")
    full = [
        evaluator.broadcast_to_full(value, labels, axes)
        for value, labels in zip(values, step.inputs, strict=True)
    ]
    return bind(step.equation, *full)


RULES = dict.fromkeys(
    """
    reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor
    argmax argmin
    """.split(),
    Rule(_label_reduce, _run_reduce),
)
