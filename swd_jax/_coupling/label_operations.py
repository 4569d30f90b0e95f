"""The operations of an analysis that unite and freeze atoms."""

from collections.abc import Iterable, Sequence

import numpy as np

from swd_jax._coupling import array_types, axis_labels
from swd_jax._coupling.analysis_record import Record
from swd_jax._coupling.axis_labels import Labels


class Context(Record):
    """The state of one analysis, and what can be done to labels in it."""

    def freeze(
        self, labels: Labels, why: str, dims: Iterable[int] | None = None
    ) -> None:
        """Freeze some axes of an array, or all of them."""
        chosen = labels.labelled if dims is None else set(dims)
        for key, ids in labels.blocks.items():
            if chosen.intersection(key):
                self.atoms.freeze(ids.ravel(), f"{why} ({self.where})")

    def frozen(self, labels: Labels, why: str, dims: Iterable[int]) -> Labels:
        """The labels with some axes frozen, and of a fixed size from now on."""
        dims = set(dims)
        labels = self.resolved(labels, dims)
        self.freeze(labels, why, dims)
        blocks = {key: v for key, v in labels.blocks.items() if key[0] not in dims}
        return labels.replaced(blocks=blocks, uniform=labels.uniform - dims)

    def resolved(self, labels: Labels, touching: Iterable[int]) -> Labels:
        """Let one axis keep the labels, in each block that has one of these axes.

        It is the first that is not among them, if there is one: what a product sums
        over goes with what it does not. Otherwise it is the first.
        """
        touching = set(touching)
        for key in list(labels.blocks):
            if len(key) > 1 and touching.intersection(key):
                outside = [dim for dim in key if dim not in touching]
                labels = self._resolved_to(labels, key, outside)
        return labels

    def _resolved_to(
        self, labels: Labels, key: array_types.Dims, preferred: Sequence[int]
    ) -> Labels:
        """Let one axis of a block keep the labels: where others are known to be one."""
        roots = self.atoms.roots(labels.blocks[key])
        varying = [
            dim
            for axis, dim in enumerate(key)
            if (roots != roots.take([0], axis)).any()
        ]
        carrier = varying[0] if len(varying) == 1 else next(iter([*preferred, *key]))
        ids = np.moveaxis(labels.blocks[key], key.index(carrier), 0)
        rows = ids.reshape(len(ids), -1)
        vector = rows[:, 0]
        self.atoms.unite(
            rows[:, :1],
            rows,
            f"split off a labelled axis, to be removed as a whole ({self.where})",
        )
        return labels.replaced(blocks={**labels.without(key), (carrier,): vector})

    def parallel(self, labels: Labels, dim: int) -> Labels:
        """Unite along an axis that is about to be taken apart, of several in a block.

        All parts keep the same positions, as query, key and value do in (3, heads,
        features): the array could not be cut otherwise.
        """
        key = labels.block_of(dim)
        if key is None or len(key) == 1:
            return labels
        ids = labels.blocks[key]
        why = f"parts of an array that are taken apart ({self.where})"
        self.atoms.unite(ids.take([0], key.index(dim)), ids, why)
        return self.simplified(labels)

    def simplified(self, labels: Labels) -> Labels:
        """Take axes along which nothing changes out of blocks: their size is fixed."""
        blocks: dict[array_types.Dims, array_types.Ids] = {}
        for key, ids in labels.blocks.items():
            dims, left, roots = list(key), ids, self.atoms.roots(ids)
            for dim in key:
                axis = dims.index(dim)
                first = roots.take([0], axis)
                if roots.ndim > 1 and (roots == first).all():
                    roots, left = first.squeeze(axis), np.take(left, 0, axis)
                    dims.remove(dim)
            if (roots >= 0).any():
                blocks[tuple(dims)] = left
                if len(dims) > 1:
                    self.splits.append((left, self.where))
        return labels.replaced(blocks=blocks)

    def stretched(self, labels: Labels, shape: Sequence[int]) -> Labels:
        """Labels under broadcasting of axes of size 1, which become uniform."""
        dims = [
            dim
            for dim, (size, wanted) in enumerate(zip(labels.shape, shape, strict=True))
            if size != wanted
        ]
        if not dims:
            return labels
        labels = self.frozen(labels, "broadcast", dims)
        return labels.replaced(shape=tuple(shape), uniform=labels.uniform.union(dims))

    def together(
        self,
        left: Labels,
        left_dims: Sequence[int],
        right: Labels,
        right_dims: Sequence[int],
    ) -> tuple[Labels, Labels]:
        """Unite axes of two arrays that run in parallel, position by position."""
        to_right = dict(zip(left_dims, right_dims, strict=True))
        to_left = dict(zip(right_dims, left_dims, strict=True))
        before = None
        while before != (set(left.blocks), set(right.blocks)):
            before = set(left.blocks), set(right.blocks)
            left = self._fitted(left, right, to_right)
            right = self._fitted(right, left, to_left)
        why = f"meets an axis of fixed size ({self.where})"
        for key, ids in left.blocks.items():
            others = [to_right[dim] for dim in key if dim in to_right]
            if others and not right.uniform.issuperset(others):
                dims, turned = axis_labels.ordered(others, ids)
                self.atoms.unite(turned, self._ids(right, dims), why)
        for key, ids in right.blocks.items():
            others = [to_left[dim] for dim in key if dim in to_left]
            if others and not left.uniform.issuperset(others):
                dims, turned = axis_labels.ordered(others, ids)
                self.atoms.unite(turned, self._ids(left, dims), why)
        return left, right

    def _ids(self, labels: Labels, dims: array_types.Dims) -> array_types.Ids:
        first, *others = dims
        return labels.blocks[dims] if others else labels.vector(first)

    def _fitted(self, labels: Labels, other: Labels, to: dict[int, int]) -> Labels:
        """Resolve the blocks with several axes that the other array cannot have."""
        for key in list(labels.blocks):
            partners = [to[dim] for dim in key if dim in to]
            if (
                len(key) == 1
                or not partners
                or other.uniform.issuperset(partners)
                or (
                    len(partners) == len(key)
                    and tuple(sorted(partners)) in other.blocks
                )
            ):
                continue
            free = [dim for dim in key if dim not in to or to[dim] in other.uniform]
            labels = self._resolved_to(labels, key, free)
        return labels

    def merged(self, left: Labels, right: Labels) -> Labels:
        """Labels of an array computed element by element from two of one shape."""
        dims = range(left.rank)
        left, right = self.together(left, dims, right, dims)
        added = {
            key: ids
            for key, ids in right.blocks.items()
            if left.uniform.issuperset(key)
        }
        return left.replaced(
            blocks={**left.blocks, **added},
            uniform=left.uniform & right.uniform,
            data=left.data or right.data,
            vanishes=False,
        )

    def materialised(self, labels: Labels) -> Labels:
        """Labels where uniform axes have atoms instead: of what a loop hands on."""
        blocks = {(dim,): self.atoms.fresh(labels.shape[dim]) for dim in labels.uniform}
        return labels.replaced(
            blocks={**labels.blocks, **blocks}, uniform=frozenset(), vanishes=False
        )

    def settle(self) -> None:
        """Let one axis of each block keep the labels where no operation has decided."""
        for ids, where in self.splits:
            roots = self.atoms.roots(ids)
            varying = [
                axis
                for axis in range(roots.ndim)
                if (roots != roots.take([0], axis)).any()
            ]
            if len(varying) > 1:
                rows = np.moveaxis(roots, varying[0], 0).reshape(
                    roots.shape[varying[0]], -1
                )
                why = f"split off a labelled axis, to be removed as a whole ({where})"
                self.atoms.unite(rows[:, :1], rows, why)
