"""The smaller program: the traced model at the kept sizes, as a function."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from swd_jax._arrays import explicit_sharding, tree_paths
from swd_jax._coupling import find_channel_groups, type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.tied_leaves import Pairs
from swd_jax._shrinking.channels_to_positions import KeptPositions
from swd_jax._shrinking.sized_evaluator import SizedEvaluator

_MAX_TRACES = 16
"""Number of traces that are kept for arguments of other shapes than the example's."""


class ArrayType(NamedTuple):
    """The part of an array's type that a trace depends on."""

    shape: tuple[Any, ...]
    dtype: Any


class _Trace(NamedTuple):
    """A traced model, and an evaluator that knows which of its atoms are kept."""

    analysis: find_channel_groups.Analysis
    evaluator: SizedEvaluator


class SmallerProgram:
    """The traced model at the kept sizes: call it as `program(params, *args)`.

    A traced program has the sizes of its example arguments in it. So the model is
    traced anew for arguments of other shapes or dtypes, and the channels are cut out of
    the new trace.
    """

    def __init__(
        self,
        analysis: find_channel_groups.Analysis,
        tied: Pairs,
        positions: Mapping[str, KeptPositions],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        """Store what is kept.

        Args:
          analysis: the analysis of the whole model.
          tied: pairs of paths of tied leaves.
          positions: the kept positions of the arrays that are cut, by path.
          shapes: the new shape of each array, by path.

        Raises:
          ValueError: if the analysis couples other positions.
        """
        self._inputs = analysis.inputs
        self._tied = tied
        self._positions = positions
        self._shapes = shapes
        self._first = _Trace(analysis, SizedEvaluator(_kept_atoms(analysis, positions)))
        self._first_types = (
            _types_of([leaf for *_, leaf in analysis.inputs.entries]),
            _types_of(analysis.inputs.input_arrays),
        )
        self._cached_trace = functools.lru_cache(_MAX_TRACES)(self._trace)

    def __call__(self, params: Any, *args: Any) -> Any:
        # Arrays sharded in Explicit mode would need a sharding for each intermediate
        # result, and the devices may not divide its smaller axes.
        arrays = list(map(explicit_sharding.replicate, self._arrays(params)))
        inputs = list(map(explicit_sharding.replicate, self._input_arrays(args)))
        analysis, evaluator = self._trace_for(_types_of(arrays), _types_of(inputs))
        outputs = evaluator.run(analysis.jaxpr, analysis.frame, [*arrays, *inputs])
        results = [
            evaluator.broadcast_to_full(value, labels, range(labels.rank))
            for value, labels in zip(outputs, analysis.results, strict=True)
        ]
        return jax.tree.unflatten(analysis.result_tree, results)

    def kept_shape(self, labels: Labels) -> tuple[int, ...]:
        """The smaller shape of an array of the traced program."""
        evaluator = self._first.evaluator
        return tuple(
            int(evaluator.kept_positions(labels, dim).sum())
            for dim in range(labels.rank)
        )

    def _trace_for(
        self, params: tuple[ArrayType, ...], inputs: tuple[ArrayType, ...]
    ) -> _Trace:
        first_params, first_inputs = self._first_types
        if inputs == first_inputs and [t.dtype for t in params] == [
            t.dtype for t in first_params
        ]:
            return self._first
        sizes = [size for array in inputs for size in array.shape]
        is_symbolic = any(map(jax.export.is_symbolic_dim, sizes))
        # Symbolic dimensions of different scopes cannot be compared.
        trace = self._trace if is_symbolic else self._cached_trace
        try:
            return trace(params, inputs)
        except ValueError as error:
            raise ValueError(
                f"The smaller model was traced with arguments of the shapes and dtypes "
                f"{_describe(first_inputs)}, and does not take {_describe(inputs)}: "
                f"{error}"
            ) from error

    def _trace(
        self, params: tuple[ArrayType, ...], inputs: tuple[ArrayType, ...]
    ) -> _Trace:
        analysis = find_channel_groups.analyse(
            self._inputs.with_types(params, inputs), self._tied, counts_products=False
        )
        kept_atoms = _kept_atoms(analysis, self._positions)
        return _Trace(analysis, SizedEvaluator(kept_atoms))

    def _input_arrays(self, args: tuple[Any, ...]) -> list[jax.Array]:
        """The arrays among the arguments after the parameters."""
        leaves, structure = jax.tree.flatten(args)
        if structure != self._inputs.argument_tree:
            raise ValueError(
                "The smaller model takes, after its params, the "
                f"{len(self._inputs.arguments)} arguments that it was traced with, in "
                f"the same containers, and got {len(leaves)}."
            )
        arrays: list[jax.Array] = []
        for leaf, example in zip(leaves, self._inputs.arguments, strict=True):
            if tree_paths.is_array(example):
                arrays.append(jnp.asarray(leaf))
            elif leaf is not example and leaf != example:
                raise ValueError(
                    f"The smaller model was traced with {example!r} as an argument "
                    f"that is no array, and cannot take {leaf!r} for it. Shrink again "
                    "with this value among the example_args."
                )
        return arrays

    def _arrays(self, params: Any) -> list[Any]:
        """The arrays of the parameters in the order of the traced program."""
        arrays = tree_paths.arrays_by_path("params", tree_paths.flatten(params))
        shapes = {path: tuple(leaf.shape) for path, leaf in arrays.items()}
        for path in (*self._shapes, *shapes):
            if shapes.get(path) != self._shapes.get(path):
                raise ValueError(
                    f"params must be those of the smaller model: at {path!r} it has "
                    f"{self._shapes.get(path, 'nothing')}, and these have "
                    f"{shapes.get(path, 'nothing')}."
                )
        return [arrays[path] for _, path, _ in self._inputs.entries]


def _types_of(arrays: Sequence[Any]) -> tuple[ArrayType, ...]:
    return tuple(
        ArrayType(tuple(array_type.shape), array_type.dtype)
        for array_type in map(jax.typeof, arrays)
    )


def _describe(types: Sequence[ArrayType]) -> str:
    return ", ".join(f"{array.dtype}{list(array.shape)}" for array in types) or "none"


def _kept_atoms(
    analysis: find_channel_groups.Analysis, positions: Mapping[str, KeptPositions]
) -> type_aliases.Bools:
    """Whether each atom is kept, from the kept positions of the parameters.

    Raises:
      ValueError: if the analysis freezes positions that are not kept, or couples them
        with others that are.
    """
    coupling = analysis.coupling
    paths = [path for _, path, _ in analysis.inputs.entries]
    roots = coupling.atoms.roots(np.arange(len(coupling.atoms)))
    kept = np.ones(max(len(roots), 1), np.bool_)
    of_leaves = [
        (paths[leaf], axis, ids, positions.get(paths[leaf], {}).get(axis))
        for leaf, axis, ids in coupling.leaf_axis_atoms()
    ]
    for _, _, ids, along in of_leaves:
        if along is not None:
            kept[roots[ids[~along]]] = False
    for path, axis, ids, along in of_leaves:
        expected = np.ones(len(ids), np.bool_) if along is None else along
        differs = kept[roots[ids]] != expected
        if differs.any():
            raise ValueError(
                f"with them it couples other channels: it cannot keep positions "
                f"{np.flatnonzero(differs).tolist()} of {path!r} along axis {axis} "
                "without those that are removed."
            )
        for index in np.flatnonzero(~expected).tolist():
            reason = coupling.atoms.frozen_reason(int(ids[index]))
            if reason is not None:
                raise ValueError(
                    f"with them the channels of {path!r} along axis {axis} cannot be "
                    f"removed: {reason}."
                )
    return kept[roots] if len(roots) else kept
