"""Operations on labels that unite and freeze atoms of a `CouplingAnalysis`."""

from collections.abc import Iterable, Sequence

import jax
import jax.export
import numpy as np

from swd_jax._coupling import axis_labels, type_aliases, union_find
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CouplingAnalysis


def freeze_atoms(
    analysis: CouplingAnalysis,
    labels: Labels,
    why: str,
    dims: Iterable[int] | None = None,
) -> None:
    """Freeze the atoms of all blocks that touch some axes (by default, any axis)."""
    selected = labels.labelled_axes if dims is None else set(dims)
    for key, ids in labels.blocks.items():
        if selected.intersection(key):
            analysis.atoms.freeze(ids.ravel(), analysis.reason(why))


def freeze_axes(
    analysis: CouplingAnalysis, labels: Labels, why: str, dims: Iterable[int]
) -> Labels:
    """Freeze the atoms along some axes, and return labels with fixed size there."""
    dims = set(dims)
    labels = assign_block_to_axis(analysis, labels, dims)
    freeze_atoms(analysis, labels, why, dims)
    blocks = {key: ids for key, ids in labels.blocks.items() if key[0] not in dims}
    return labels.replace(blocks=blocks, broadcast_axes=labels.broadcast_axes - dims)


def has_removable_atoms(
    analysis: CouplingAnalysis, labels: Labels, dims: Iterable[int]
) -> bool:
    """Return whether any atom along some axes is not frozen."""
    keys = {key for key in labels.blocks if set(key).intersection(dims)}
    roots = {
        root
        for key in keys
        for root in analysis.atoms.roots(labels.blocks[key]).ravel().tolist()
    }
    frozen = analysis.atoms.frozen_roots()
    return bool(roots.difference(frozen, [union_find.NOT_REMOVABLE]))


def assign_block_to_axis(
    analysis: CouplingAnalysis, labels: Labels, touching: Iterable[int]
) -> Labels:
    """Keep the labels on one axis only, in each block that touches some axes.

    The labels stay on the block's first axis outside `touching` if there is one, else
    on its first axis. So a contraction keeps the labels on a free axis rather than on
    the axis that it sums over.
    """
    touching = set(touching)
    for key in list(labels.blocks):
        if len(key) > 1 and touching.intersection(key):
            outside = [dim for dim in key if dim not in touching]
            labels = _keep_one_axis(analysis, labels, key, outside)
    return labels


def _keep_one_axis(
    analysis: CouplingAnalysis,
    labels: Labels,
    key: type_aliases.Dims,
    preferred: Sequence[int],
) -> Labels:
    """Keep a block's labels on one axis, and unite its atoms along the other axes.

    If atoms of one class already fill all axes but one, that axis keeps the labels,
    whatever is preferred: any other choice would unite the whole block.
    """
    roots = analysis.atoms.roots(labels.blocks[key])
    varying = [
        dim for axis, dim in enumerate(key) if (roots != roots.take([0], axis)).any()
    ]
    carrier = varying[0] if len(varying) == 1 else [*preferred, *key][0]
    ids = np.moveaxis(labels.blocks[key], key.index(carrier), 0)
    rows = ids.reshape(len(ids), -1)
    why = "a part of a split axis that is removed as a whole"
    analysis.atoms.unite(rows[:, :1], rows, analysis.reason(why))
    return labels.replace(blocks={**labels.blocks_except(key), (carrier,): rows[:, 0]})


def assign_remaining_blocks(analysis: CouplingAnalysis) -> None:
    """Keep the labels on one axis of each block that no operation has assigned."""
    for ids, position in analysis.split_blocks:
        roots = analysis.atoms.roots(ids)
        varying = [
            axis for axis in range(roots.ndim) if (roots != roots.take([0], axis)).any()
        ]
        if len(varying) > 1:
            rows = np.moveaxis(roots, varying[0], 0)
            rows = rows.reshape(len(rows), -1)
            why = f"a part of a split axis that is removed as a whole ({position})"
            analysis.atoms.unite(rows[:, :1], rows, why)


def unite_along(analysis: CouplingAnalysis, labels: Labels, dim: int) -> Labels:
    """Unite the atoms along one axis of a block, before an operation takes it apart.

    All parts then keep the same positions. Without it, the smaller query, key and value
    of a fused projection (3, heads, features) could have different sizes and would no
    longer fit one array.
    """
    key = labels.block_key(dim)
    if key is None or len(key) == 1:
        return labels
    ids = labels.blocks[key]
    reason = analysis.reason("slices of one array, which must keep one size")
    analysis.atoms.unite(ids.take([0], key.index(dim)), ids, reason)
    return drop_constant_axes(analysis, labels)


def drop_constant_axes(analysis: CouplingAnalysis, labels: Labels) -> Labels:
    """Remove axes along which the roots are constant from the blocks."""
    blocks: dict[type_aliases.Dims, type_aliases.AtomIds] = {}
    for key, block in labels.blocks.items():
        dims, ids, roots = list(key), block, analysis.atoms.roots(block)
        for dim in key:
            axis = dims.index(dim)
            first = roots.take([0], axis)
            if roots.ndim > 1 and (roots == first).all():
                roots, ids = first.squeeze(axis), np.take(ids, 0, axis)
                dims.remove(dim)
        if (roots >= 0).any():
            blocks[tuple(dims)] = ids
            if len(dims) > 1:
                analysis.split_blocks.append((ids, analysis.position.description))
    return labels.replace(blocks=blocks)


def broadcast_axes_to(
    analysis: CouplingAnalysis, labels: Labels, shape: Sequence[int]
) -> Labels:
    """Broadcast axes of size 1 to `shape`."""
    dims = [
        dim
        for dim, (old, new) in enumerate(zip(labels.shape, shape, strict=True))
        if old != new
    ]
    if not dims:
        return labels
    labels = freeze_axes(analysis, labels, "broadcast", dims)
    return labels.replace(
        shape=tuple(shape), broadcast_axes=labels.broadcast_axes.union(dims)
    )


def unite_axes(
    analysis: CouplingAnalysis,
    left: Labels,
    left_dims: Sequence[int],
    right: Labels,
    right_dims: Sequence[int],
) -> tuple[Labels, Labels]:
    """Unite axes of two arrays that run in parallel, position by position."""
    to_right = dict(zip(left_dims, right_dims, strict=True))
    to_left = dict(zip(right_dims, left_dims, strict=True))
    keys = None
    while keys != (set(left.blocks), set(right.blocks)):
        keys = set(left.blocks), set(right.blocks)
        left = _match_blocks(analysis, left, right, to_right)
        right = _match_blocks(analysis, right, left, to_left)
    _unite_blocks(analysis, left, right, to_right)
    _unite_blocks(analysis, right, left, to_left)
    return left, right


def _match_blocks(
    analysis: CouplingAnalysis, labels: Labels, partner: Labels, to: dict[int, int]
) -> Labels:
    """Keep one axis of each block with several axes that the partner cannot have."""
    for key in list(labels.blocks):
        partner_dims = [to[dim] for dim in key if dim in to]
        if (
            len(key) == 1
            or not partner_dims
            or partner.broadcast_axes.issuperset(partner_dims)
            or (
                len(partner_dims) == len(key)
                and tuple(sorted(partner_dims)) in partner.blocks
            )
        ):
            continue
        free = [
            dim for dim in key if dim not in to or to[dim] in partner.broadcast_axes
        ]
        labels = _keep_one_axis(analysis, labels, key, free)
    return labels


def _unite_blocks(
    analysis: CouplingAnalysis, labels: Labels, partner: Labels, to: dict[int, int]
) -> None:
    """Unite each block with the same positions of the partner."""
    reason = analysis.reason("meets an axis of fixed size")
    for key, ids in labels.blocks.items():
        partner_dims = [to[dim] for dim in key if dim in to]
        if partner_dims and not partner.broadcast_axes.issuperset(partner_dims):
            dims, transposed = axis_labels.sort_axes(partner_dims, ids)
            first, *rest = dims
            partner_ids = partner.blocks[dims] if rest else partner.axis_atoms(first)
            analysis.atoms.unite(transposed, partner_ids, reason)


def merge_elementwise(
    analysis: CouplingAnalysis, left: Labels, right: Labels
) -> Labels:
    """Return the labels of an elementwise result of two arrays of one shape."""
    dims = range(left.rank)
    left, right = unite_axes(analysis, left, dims, right, dims)
    return left.replace(
        blocks=add_blocks(left, right),
        broadcast_axes=left.broadcast_axes & right.broadcast_axes,
        depends_on_input=left.depends_on_input or right.depends_on_input,
        removed_values={},
        uniform_value=None,
        not_finite_at=left.not_finite_at or right.not_finite_at,
    )


def add_blocks(
    left: Labels, right: Labels
) -> dict[type_aliases.Dims, type_aliases.AtomIds]:
    """Return the blocks of `left`, and those of `right` where `left` is broadcast."""
    added = {
        key: ids
        for key, ids in right.blocks.items()
        if left.broadcast_axes.issuperset(key)
    }
    return {**left.blocks, **added}


def give_own_atoms(analysis: CouplingAnalysis, labels: Labels) -> Labels:
    """Replace broadcast axes by labelled ones with new atoms.

    A loop's carry needs this, because a later iteration may give it different values
    along an axis that is broadcast at the start.
    """
    blocks = create_blocks(analysis, labels.shape, labels.broadcast_axes)
    values = dict(labels.removed_values)
    if labels.uniform_value is not None:
        values |= {dim: labels.uniform_value for dims in blocks for dim in dims}
    return labels.replace(
        blocks={**labels.blocks, **blocks},
        broadcast_axes=frozenset(),
        removed_values=values,
        uniform_value=None,
    )


def create_blocks(
    analysis: CouplingAnalysis, shape: Sequence[int], dims: Iterable[int]
) -> dict[type_aliases.Dims, type_aliases.AtomIds]:
    """Create an atom for each position along some axes.

    Axes of size 0 get none, nor do axes of a symbolic size, which are the batch.
    """
    return {
        (dim,): analysis.atoms.create(shape[dim])
        for dim in dims
        if shape[dim] != 0 and not jax.export.is_symbolic_dim(shape[dim])
    }
