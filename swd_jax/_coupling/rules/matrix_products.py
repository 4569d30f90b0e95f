"""Rule for dot_general: matrix products, batched products, attention."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from swd_jax._coupling import type_aliases, union_find
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CONSUMER, PRODUCER, CouplingAnalysis
from swd_jax._coupling.label_operations import (
    assign_block_to_axis,
    freeze_atoms,
    freeze_axes,
    has_removable_atoms,
    unite_axes,
)
from swd_jax._coupling.rules import removed_values
from swd_jax._coupling.rules.rule_interface import (
    Evaluator,
    Rule,
    Step,
    bind,
    param,
    result_shape,
)
from swd_jax._coupling.rules.shared_operations import expand_axis


class _Operand(NamedTuple):
    """Labels of one operand of a product, and what its axes are there for."""

    labels: Labels
    summed: Sequence[int]
    batch: Sequence[int]

    @property
    def shared(self) -> tuple[int, ...]:
        """The axes that the other operand has too."""
        return (*self.summed, *self.batch)

    @property
    def free(self) -> list[int]:
        """The axes that the other operand does not have."""
        return [dim for dim in range(self.labels.rank) if dim not in self.shared]


def _label_dot_general(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> Labels:
    (left_sum, right_sum), (left_batch, right_batch) = param(
        equation, "dimension_numbers"
    )
    left = _Operand(inputs[0], left_sum, left_batch)
    right = _Operand(inputs[1], right_sum, right_batch)
    left_labels, right_labels = unite_axes(
        analysis,
        _assign_split_blocks(analysis, left),
        left.shared,
        _assign_split_blocks(analysis, right),
        right.shared,
    )
    left = left._replace(labels=left_labels)
    right = right._replace(labels=right_labels)
    _note_roles(analysis, left, right)
    freeze_unless_sum_ignores_zeros(
        analysis, left.labels, left.summed, right.labels, right.summed
    )
    left, right = _freeze_inside_heads(analysis, left, right)
    if analysis.counts_products:
        _note_multiply_adds(analysis, left, right)
    return _result_labels(result_shape(equation), left, right)


def _assign_split_blocks(analysis: CouplingAnalysis, operand: _Operand) -> Labels:
    """Keep one axis of each block of which the product sums over a part.

    In the products of an attention the axis of the heads, which is a batch axis, keeps
    the labels, not the features inside a head.
    """
    labels, summed, batch = operand.labels, set(operand.summed), set(operand.batch)
    for key in operand.labels.blocks:
        dims = set(key)
        if len(key) > 1 and dims & summed and dims - summed:
            labels = assign_block_to_axis(analysis, labels, dims & summed)
        elif len(key) > 1 and dims & batch:
            labels = assign_block_to_axis(analysis, labels, dims - batch or {key[-1]})
    return labels


def _note_roles(analysis: CouplingAnalysis, left: _Operand, right: _Operand) -> None:
    # In a product of two parameters, as of a low-rank layer, the left one computes the
    # channels that the right one reads.
    is_low_rank = not (left.labels.depends_on_input or right.labels.depends_on_input)
    analysis.note_role(left.labels, left.summed, PRODUCER if is_low_rank else CONSUMER)
    analysis.note_role(right.labels, right.summed, CONSUMER)
    analysis.note_role(left.labels, [*left.free, *left.batch], PRODUCER)
    analysis.note_role(right.labels, [*right.free, *right.batch], PRODUCER)


def freeze_unless_sum_ignores_zeros(
    analysis: CouplingAnalysis,
    left: Labels,
    left_dims: Sequence[int],
    right: Labels,
    right_dims: Sequence[int],
) -> None:
    """Freeze summed axes unless a removed channel contributes 0 to the sum."""
    for left_dim, right_dim in zip(left_dims, right_dims, strict=True):
        removed_values.freeze_not_finite(analysis, left, [left_dim])
        removed_values.freeze_not_finite(analysis, right, [right_dim])
        why = ""
        if left.depends_on_input and right.depends_on_input:
            why = "a product of two activations sums over it"
        elif 0 not in (left.removed_value(left_dim), right.removed_value(right_dim)):
            why = "summed over with factors that need not be 0 when its parameters are"
        if why:
            freeze_atoms(analysis, left, why, [left_dim])
            freeze_atoms(analysis, right, why, [right_dim])


def _freeze_inside_heads(
    analysis: CouplingAnalysis, left: _Operand, right: _Operand
) -> tuple[_Operand, _Operand]:
    """Freeze the free axes of a batched product of activations, as in attention.

    All heads of one array have the same size, so a head is removed as a whole.
    """
    if not (left.labels.depends_on_input and right.labels.depends_on_input):
        return left, right
    if not (
        has_removable_atoms(analysis, left.labels, left.batch)
        or has_removable_atoms(analysis, right.labels, right.batch)
    ):
        return left, right
    why = "inside the heads of an attention"
    left_free, right_free = left.free, right.free
    left = left._replace(labels=freeze_axes(analysis, left.labels, why, left_free))
    right = right._replace(labels=freeze_axes(analysis, right.labels, why, right_free))
    return left, right


def _note_multiply_adds(
    analysis: CouplingAnalysis, left: _Operand, right: _Operand
) -> None:
    shared = zip(left.shared, right.shared, strict=True)
    analysis.note_product(
        1,
        [
            *_free_factors(left),
            *_free_factors(right),
            *[
                ids
                for left_dim, right_dim in shared
                for ids in _shared_factor(
                    left.labels, left_dim, right.labels, right_dim
                )
            ],
        ],
    )


def _free_factors(operand: _Operand) -> list[type_aliases.AtomIds]:
    """Return the atoms of the free axes, block by block, to count multiply-adds."""
    labels = operand.labels
    keys = {labels.block_key(dim) or (dim,) for dim in operand.free}
    return [
        labels.blocks[key].ravel()
        if key in labels.blocks
        else np.full(labels.shape[key[0]], union_find.NOT_REMOVABLE)
        for key in sorted(keys)
    ]


def _shared_factor(
    left: Labels, left_dim: int, right: Labels, right_dim: int
) -> list[type_aliases.AtomIds]:
    """Return the atoms of an axis that both operands have.

    A block with several axes counts once, at its first axis.
    """
    for labels, dim in ((left, left_dim), (right, right_dim)):
        key = labels.block_key(dim)
        if key:
            return [labels.blocks[key].ravel()] if key[0] == dim else []
    return [np.full(left.shape[left_dim], union_find.NOT_REMOVABLE)]


def _result_labels(shape: type_aliases.Dims, left: _Operand, right: _Operand) -> Labels:
    num_batch = len(left.batch)
    blocks: dict[type_aliases.Dims, type_aliases.AtomIds] = {}
    broadcast_axes: set[int] = set()
    for labels, dims, start in (
        (left.labels, [*left.batch, *left.free], 0),
        (right.labels, right.batch, 0),
        (right.labels, right.free, num_batch + len(left.free)),
    ):
        new_dims = {dim: start + number for number, dim in enumerate(dims)}
        for key, ids in labels.blocks_within(new_dims).items():
            blocks.setdefault(key, ids)
        broadcast_axes |= {new_dims[d] for d in new_dims if d in labels.broadcast_axes}
    for number, (left_dim, right_dim) in enumerate(
        zip(left.batch, right.batch, strict=True)
    ):
        if not (
            left_dim in left.labels.broadcast_axes
            and right_dim in right.labels.broadcast_axes
        ):
            broadcast_axes.discard(number)
    values = _values_at_removed(left, right)
    return Labels(
        shape,
        blocks,
        frozenset(broadcast_axes),
        depends_on_input=left.labels.depends_on_input or right.labels.depends_on_input,
        removed_values={d: v for d, v in values.items() if any(d in k for k in blocks)},
        not_finite_at=left.labels.not_finite_at or right.labels.not_finite_at,
    )


def _values_at_removed(left: _Operand, right: _Operand) -> dict[int, float]:
    """Return the values of the product at removed positions, by axis of the result."""
    num_batch = len(left.batch)
    factors: dict[int, list[float | None]] = {
        number: [left.labels.removed_value(i), right.labels.removed_value(j)]
        for number, (i, j) in enumerate(zip(left.batch, right.batch, strict=True))
    }
    free = [(x.labels, dim) for x in (left, right) for dim in x.free]
    for number, (labels, dim) in enumerate(free, num_batch):
        factors[number] = [labels.removed_value(dim)]
    values = {dim: removed_values.product_value(*f) for dim, f in factors.items()}
    return {dim: value for dim, value in values.items() if value is not None}


def _run_dot_general(evaluator: Evaluator, step: Step, values: list[Any]) -> Any:
    (left_sum, right_sum), (left_batch, right_batch) = param(
        step.equation, "dimension_numbers"
    )
    left, right = values
    left_labels, right_labels = step.inputs
    for left_dim, right_dim in zip(
        (*left_sum, *left_batch), (*right_sum, *right_batch), strict=True
    ):
        # The sum over an axis that both operands broadcast is a multiple of its size.
        if (
            left_dim in left_sum
            and left_dim in left_labels.broadcast_axes
            and right_dim in right_labels.broadcast_axes
        ):
            left = evaluator.broadcast_to_full(left, left_labels, [left_dim])
        left = expand_axis(left, left_dim, right.shape[right_dim])
        right = expand_axis(right, right_dim, left.shape[left_dim])
    return bind(step.equation, left, right)


RULES = {"dot_general": Rule(_label_dot_general, _run_dot_general)}
