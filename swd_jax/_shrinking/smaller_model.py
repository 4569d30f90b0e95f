"""A traced program at other sizes, as a function of smaller parameters."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from swd_jax._arrays import tree_paths
from swd_jax._coupling import find_groups
from swd_jax._shrinking.run_at_size import Evaluation


class SmallerModel:
    """The traced program at the sizes that are left."""

    def __init__(
        self,
        analysis: find_groups.Analysis,
        evaluation: Evaluation,
        widths: Mapping[str, tuple[int, ...]],
    ) -> None:
        self._analysis = analysis
        self._evaluation = evaluation
        self._widths = widths

    def __call__(self, params: Any, *args: Any) -> Any:
        analysis = self._analysis
        arrays = self._checked(params)
        leaves, structure = jax.tree.flatten(args)
        if structure != analysis.argument_tree:
            raise ValueError(
                "The smaller model takes arguments of the structure that it was traced "
                f"with, {analysis.argument_tree}, and got {structure}."
            )
        inputs: list[Any] = []
        for given, example in zip(leaves, analysis.arguments, strict=True):
            if tree_paths.is_array(example):
                inputs.append(jnp.asarray(given))
            elif given is not example and given != example:
                raise ValueError(
                    f"The smaller model was traced with {example!r} as an argument "
                    f"that is no array, and cannot take {given!r} for it. Shrink again "
                    "with this value among the example_args."
                )
        examples = [a for a in analysis.arguments if tree_paths.is_array(a)]
        traced = [tuple(example.shape) for example in examples]
        given = [array.shape for array in inputs]
        try:
            outputs = self._evaluation.call(
                analysis.jaxpr, analysis.frame, [*arrays, *inputs]
            )
        except (TypeError, ValueError) as error:
            if given == traced:
                raise
            raise ValueError(
                f"The smaller model was traced with arguments of the shapes {traced}, "
                f"and does not take {given}. Shrink with example_args of these shapes; "
                "a batch of 1 is traced as a special case, so give 2 for any."
            ) from error
        filled = [
            self._evaluation.filled(value, labels, range(labels.rank))
            for value, labels in zip(outputs, analysis.results, strict=True)
        ]
        return jax.tree.unflatten(analysis.result_tree, filled)

    def _checked(self, params: Any) -> list[Any]:
        found = tree_paths.arrays(tree_paths.flatten(params))
        shapes = {path: tuple(leaf.shape) for _, path, leaf in found}
        if shapes != dict(self._widths):
            path = next(
                p
                for p in (*self._widths, *shapes)
                if shapes.get(p) != self._widths.get(p)
            )
            raise ValueError(
                f"params must be those of the smaller model: at {path!r} it has "
                f"{self._widths.get(path, 'nothing')}, and these have "
                f"{shapes.get(path, 'nothing')}."
            )
        by_path = {path: leaf for _, path, leaf in found}
        return [
            by_path[path] for _, path, _ in tree_paths.arrays(self._analysis.params)
        ]
