"""Union-find of atoms: positions along axes that are removable only together."""

from collections.abc import Iterable

import numpy as np

from swd_jax._coupling import type_aliases

NOT_REMOVABLE = -1
"""Marks a position without an atom: of a batch, of pixels, of the model's input."""


class Atoms:
    """A partition of atoms into classes, each removable only as a whole.

    - The root of a class is its smallest atom.
    - A frozen class cannot be removed, and carries the first reason given for it.
    """

    def __init__(self) -> None:
        self._parents = np.arange(1024)
        self._count = 0
        self._reasons: dict[int, str] = {}

    def __len__(self) -> int:
        return self._count

    def create(self, number: int) -> type_aliases.AtomIds:
        """Add atoms, each a class of its own."""
        first, self._count = self._count, self._count + number
        if self._count > len(self._parents):
            extension = np.arange(len(self._parents), 2 * self._count)
            self._parents = np.concatenate([self._parents, extension])
        return np.arange(first, self._count)

    def roots(self, ids: type_aliases.AtomIds) -> type_aliases.AtomIds:
        """Return the root of each atom's class; NOT_REMOVABLE stays as it is."""
        roots = np.array(ids)
        has_atom = roots >= 0
        atoms = roots[has_atom]
        ancestors = self._parents[atoms]
        while (ancestors != self._parents[ancestors]).any():
            ancestors = self._parents[ancestors]
        self._parents[atoms] = ancestors  # path compression
        roots[has_atom] = ancestors
        return roots

    def unite(
        self, left: type_aliases.AtomIds, right: type_aliases.AtomIds, reason: str
    ) -> None:
        """Unite two arrays position by position, after broadcasting.

        An atom that meets NOT_REMOVABLE is frozen for `reason`.
        """
        left, right = np.broadcast_arrays(left, right)
        self.freeze(left[(right < 0) & (left >= 0)], reason)
        self.freeze(right[(left < 0) & (right >= 0)], reason)
        both = (left >= 0) & (right >= 0)
        left_roots, right_roots = self.roots(left[both]), self.roots(right[both])
        differ = left_roots != right_roots
        pairs = set(
            zip(left_roots[differ].tolist(), right_roots[differ].tolist(), strict=True)
        )
        for pair in sorted(pairs):
            low, high = sorted(map(self._root, pair))
            if low != high:
                self._parents[high] = low
                if high in self._reasons:
                    reason_of_high = self._reasons.pop(high)
                    self._reasons.setdefault(low, reason_of_high)

    def freeze(self, ids: type_aliases.AtomIds, reason: str) -> None:
        """Freeze the classes of some atoms."""
        for root in np.unique(self.roots(np.asarray(ids, np.int64))).tolist():
            if root >= 0:
                self._reasons.setdefault(root, reason)

    def frozen_reason(self, atom: int) -> str | None:
        """Return why an atom's class is frozen, or None if it is not."""
        return self._reasons.get(self._root(atom))

    def frozen_roots(self) -> Iterable[int]:
        """Return the roots of the frozen classes."""
        return self._reasons.keys()

    def _root(self, atom: int) -> int:
        while self._parents[atom] != atom:
            atom = int(self._parents[atom])
        return atom
