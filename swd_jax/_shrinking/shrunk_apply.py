"""The smaller program: the traced model at the kept sizes, as a function."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from swd_jax._arrays import tree_paths
from swd_jax._coupling import find_channel_groups
from swd_jax._shrinking.sized_evaluator import SizedEvaluator


class SmallerProgram:
    """The traced model at the kept sizes: call it as `program(params, *args)`."""

    def __init__(
        self,
        analysis: find_channel_groups.Analysis,
        evaluator: SizedEvaluator,
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        self._analysis = analysis
        self._evaluator = evaluator
        self._shapes = shapes

    def __call__(self, params: Any, *args: Any) -> Any:
        analysis = self._analysis
        arrays = self._arrays(params)
        inputs = self._input_arrays(args)
        traced_shapes = [leaf.shape for leaf in analysis.inputs.input_arrays]
        shapes = [array.shape for array in inputs]
        try:
            outputs = self._evaluator.run(
                analysis.jaxpr, analysis.frame, [*arrays, *inputs]
            )
        except (TypeError, ValueError) as error:
            if shapes == traced_shapes:
                raise
            raise ValueError(
                f"The smaller model was traced with arguments of the shapes "
                f"{traced_shapes}, and does not take {shapes}. Shrink with "
                "example_args of these shapes; a batch of 1 is traced as a special "
                "case, so give 2 for any."
            ) from error
        results = [
            self._evaluator.broadcast_to_full(value, labels, range(labels.rank))
            for value, labels in zip(outputs, analysis.results, strict=True)
        ]
        return jax.tree.unflatten(analysis.result_tree, results)

    def _input_arrays(self, args: tuple[Any, ...]) -> list[jax.Array]:
        """The arrays among the arguments after the parameters."""
        traced = self._analysis.inputs
        leaves, structure = jax.tree.flatten(args)
        if structure != traced.argument_tree:
            raise ValueError(
                "The smaller model takes arguments of the structure that it was traced "
                f"with, {traced.argument_tree}, and got {structure}."
            )
        arrays: list[jax.Array] = []
        for leaf, example in zip(leaves, traced.arguments, strict=True):
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
        return [arrays[path] for _, path, _ in self._analysis.inputs.entries]
