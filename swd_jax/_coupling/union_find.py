"""Which positions live and die together: atoms, in a union-find."""

from collections.abc import Iterable

import numpy as np

from swd_jax._coupling import array_types

FIXED = -1
"""A position that is always there: of a batch, of pixels, of the model's input."""


class Atoms:
    """Positions along axes, united where they can only be removed together.

    A class of united atoms that cannot be removed is frozen, and keeps the first
    reason why.
    """

    def __init__(self) -> None:
        self._parents = np.arange(1024)
        self._count = 0
        self._reasons: dict[int, str] = {}

    def __len__(self) -> int:
        return self._count

    def fresh(self, number: int) -> array_types.Ids:
        """New atoms, each a class of its own."""
        first, self._count = self._count, self._count + number
        if self._count > len(self._parents):
            more = np.arange(len(self._parents), 2 * self._count)
            self._parents = np.concatenate([self._parents, more])
        return np.arange(first, self._count)

    def roots(self, ids: array_types.Ids) -> array_types.Ids:
        """The representative of each atom's class; FIXED stays FIXED."""
        found = np.array(ids)
        movable = found >= 0
        below = found[movable]
        above = self._parents[below]
        while (above != self._parents[above]).any():
            above = self._parents[above]
        self._parents[below] = above  # so that the next search is short
        found[movable] = above
        return found

    def unite(self, left: array_types.Ids, right: array_types.Ids, reason: str) -> None:
        """Unite position by position. What meets a FIXED position is frozen."""
        left, right = np.broadcast_arrays(left, right)
        self.freeze(left[(right < 0) & (left >= 0)], reason)
        self.freeze(right[(left < 0) & (right >= 0)], reason)
        both = (left >= 0) & (right >= 0)
        first, second = self.roots(left[both]), self.roots(right[both])
        differ = first != second
        pairs = set(zip(first[differ].tolist(), second[differ].tolist(), strict=True))
        for pair in sorted(pairs):
            low, high = sorted(map(self._root, pair))
            if low != high:
                self._parents[high] = low
                if high in self._reasons:
                    reason_of_high = self._reasons.pop(high)
                    self._reasons.setdefault(low, reason_of_high)

    def freeze(self, ids: array_types.Ids, reason: str) -> None:
        """Make atoms unremovable, and all that are united with them."""
        for root in np.unique(self.roots(np.asarray(ids, np.int64))).tolist():
            if root >= 0:
                self._reasons.setdefault(root, reason)

    def reason(self, atom: int) -> str | None:
        """Why an atom is frozen, or None where it is not."""
        return self._reasons.get(self._root(atom))

    def frozen_roots(self) -> Iterable[int]:
        """The representatives of the classes that are frozen."""
        return self._reasons.keys()

    def _root(self, atom: int) -> int:
        while self._parents[atom] != atom:
            atom = int(self._parents[atom])
        return atom
