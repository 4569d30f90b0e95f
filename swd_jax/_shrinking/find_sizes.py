"""Sizes that modules keep beside their arrays, found by trying."""

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from swd_jax._shrinking.frameworks import layer_sizes, size_fields
from swd_jax._shrinking.frameworks.size_fields import SizeField
from swd_jax._shrinking.possible_sizes import CutLength, possible_sizes

_MAX_TRIALS = 48
_MAX_CHOICES = 3

Key: TypeAlias = tuple[Any, ...]
"""A class or the path of a module, and the keys of a number in it."""
Choice: TypeAlias = dict[Key, int]
"""Which of its possible values each number gets."""


class _Candidate(NamedTuple):
    field: SizeField
    sizes: list[int]
    """The values that it may get."""
    before: Any
    """The attribute's value before the search."""


class SizeSearch:
    """Sets sizes in the modules of a tree so that the smaller model is right.

    A candidate is a whole number in a module that is equal to a length that is cut, or
    a part or a multiple of one. Modules of one class are set alike; only if that fails
    each by itself. The sizes that are set are as few as possible: none of them can be
    left as it was.
    """

    def __init__(
        self,
        tree: Any,
        lengths: Sequence[CutLength],
        is_right: Callable[[], bool],
        *,
        known: Collection[str],
    ) -> None:
        """Find the candidates.

        Args:
          tree: the smaller modules. Their sizes are set in place.
          lengths: what the cut makes smaller.
          is_right: whether the tree as it is computes what it should.
          known: paths of modules and numbers whose sizes are known.
        """
        self._is_right = is_right
        self._all: list[_Candidate] = []
        for field in size_fields.iterate_size_fields(tree):
            if field.prefix in known or field.path in known:
                continue
            sizes = possible_sizes(field.prefix, field.value, lengths)[:_MAX_CHOICES]
            if sizes:
                before = getattr(field.module, field.keys[0])
                self._all.append(_Candidate(field, sizes, before))
        self._candidates: dict[Key, list[_Candidate]] = {}

    @property
    def paths(self) -> list[str]:
        """The paths of the candidates."""
        return [candidate.field.path for candidate in self._all]

    def run(self) -> dict[str, int] | None:
        """Set sizes, and return their values by path; None if none are right."""
        return self._run(lambda field: type(field.module)) or self._run(
            lambda field: field.prefix
        )

    def _run(self, together: Callable[[SizeField], Any]) -> dict[str, int] | None:
        """Set the sizes of several modules together."""
        self._candidates = {}
        for candidate in self._all:
            key = (together(candidate.field), *candidate.field.keys)
            self._candidates.setdefault(key, []).append(candidate)
        choices = itertools.islice(self._choices(), _MAX_TRIALS)
        found = next((choice for choice in choices if self._is_mended_by(choice)), None)
        if found is None:
            self._set({})
            return None
        for key in list(found):
            fewer = {other: number for other, number in found.items() if other != key}
            if fewer and self._is_mended_by(fewer):
                found = fewer
        for key in self._beside(found):
            more = {**found, key: 0}
            if self._is_mended_by(more):
                found = more
        return self._set(found)

    def _beside(self, found: Choice) -> list[Key]:
        """Other sizes of the layers of Flax and Equinox that have new sizes.

        All sizes of such a layer are sizes of its channels, also those that it does not
        read, such as `channels` of a group norm without parameters.
        """
        layers = {key[0] for key in found}
        return [
            key
            for key, candidates in self._candidates.items()
            if key[0] in layers
            and key not in found
            and layer_sizes.has_rule(candidates[0].field.module)
        ]

    def _is_mended_by(self, choice: Choice) -> bool:
        self._set(choice)
        return self._is_right()

    def _choices(self) -> Iterator[Choice]:
        """Choices of values, the most probable first."""
        first: Choice = dict.fromkeys(self._candidates, 0)
        most = {
            key: max(len(candidate.sizes) for candidate in found)
            for key, found in self._candidates.items()
        }
        for key in first:
            yield {key: 0}
        yield first
        for key, count in most.items():
            for number in range(1, count):
                yield {key: number}
                yield {**first, key: number}
        for left, right in itertools.combinations(first, 2):
            for numbers in itertools.product(range(most[left]), range(most[right])):
                yield dict(zip((left, right), numbers, strict=True))

    def _set(self, choice: Choice) -> dict[str, int]:
        """Set the chosen values, and leave the other numbers as they were."""
        chosen: dict[str, int] = {}
        for found in self._candidates.values():
            for field, _, before in found:
                # Equinox modules are frozen dataclasses.
                object.__setattr__(field.module, field.keys[0], before)
        for key, number in choice.items():
            for field, sizes, _ in self._candidates[key]:
                if number < len(sizes):
                    size_fields.set_value(field.module, field.keys, sizes[number])
                    chosen[field.path] = sizes[number]
        return chosen
