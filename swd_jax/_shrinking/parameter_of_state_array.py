"""Which parameter an array of an optimizer's state belongs to, by their paths."""

import functools
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

from swd_jax._arrays import tree_paths

Keys: TypeAlias = tuple[str, ...]

# Optimizers that keep several arrays of a parameter put at most two keys after its
# path, such as "statistics/0".
_MAX_KEYS_AFTER = 2


def split(path: str) -> Keys:
    """The keys of a path; none for that of a tree that is a single array."""
    return tuple(path.split("/")) if path else ()


class Candidate(NamedTuple):
    """A parameter that an array of the state may belong to."""

    path: str
    """The parameter's path in the whole model."""
    field: Keys
    """The keys before the parameter's path in the state, such as ("0", "mu")."""
    after: Keys
    """The keys after it, such as ("1",) for the vector of the second axis in SM3."""
    share: float
    """The share of the parameters beside it that the field has arrays of as well."""
    is_whole: bool
    """Whether the field has the parameter's whole path and no keys after it, or all
    parameters beside it. Otherwise the keys may be equal by chance, as numbers in lists
    are."""


class ParameterFinder:
    """Finds the parameters that an array of the state may belong to.

    The keys of such an array are those of a field, then those of the parameter in the
    tree that the optimizer has, then perhaps the number of an axis. The optimizer's
    tree may be a part of the model's, such as the collection "params".
    """

    def __init__(
        self, parameters: Mapping[str, Keys], state: tree_paths.FlatTree
    ) -> None:
        """Index the parameters by the endings of their keys.

        Args:
          parameters: the keys of every parameter below the prefix, by path.
          state: the state.
        """
        self._parameters = parameters
        self._by_ending: dict[Keys, list[str]] = {}
        for path, keys in parameters.items():
            for start in range(len(keys)):
                self._by_ending.setdefault(keys[start:], []).append(path)
        self._nodes = {
            keys[:length]
            for keys in map(split, state.paths)
            for length in range(len(keys) + 1)
        }
        self._masked = set(map(split, state.masked_paths))
        self._share_of = functools.cache(self._share)

    def candidates(self, path: str) -> list[Candidate]:
        """The parameters with the longest run of the array's keys."""
        keys = split(path)
        if () in self._parameters.values():  # the parameters are a single array
            [single] = self._parameters
            whole = Candidate(single, keys, (), 1.0, is_whole=True)
            if not keys or not keys[-1].isdecimal():
                return [whole]
            return [whole, whole._replace(field=keys[:-1], after=keys[-1:])]
        runs = list(self._runs(keys))
        longest = max((length for length, _ in runs), default=0)
        return [
            candidate
            for length, end in runs
            if length == longest
            for candidate in self._ending_at(keys, end, length)
        ]

    def _runs(self, keys: Keys) -> Iterator[tuple[int, int]]:
        """The longest runs that end a parameter's keys: length and end of each."""
        for end in range(len(keys), max(len(keys) - 1 - _MAX_KEYS_AFTER, 0), -1):
            for start in range(end):
                if keys[start:end] in self._by_ending:
                    yield end - start, end
                    break

    def _ending_at(self, keys: Keys, end: int, length: int) -> Iterator[Candidate]:
        field, after = keys[: end - length], keys[end:]
        # A parameter with any axes has the first one.
        beside = tuple("0" if key.isdecimal() else key for key in after)
        for path in self._by_ending[keys[end - length : end]]:
            own = self._parameters[path]
            share = self._share_of(field, own[: len(own) - length], beside)
            is_whole = share == 1 or (length == len(own) and not after)
            yield Candidate(path, field, after, share, is_whole)

    def _share(self, field: Keys, node: Keys, after: Keys) -> float:
        """The share of the parameters inside a node of the model that a field has."""
        inside = [
            field + keys[len(node) :]
            for keys in self._parameters.values()
            if keys[: len(node)] == node
        ]
        there = [keys in self._masked or keys + after in self._nodes for keys in inside]
        return sum(there) / len(there)
