"""A model traced to a jaxpr whose inputs are the model's arrays."""

import dataclasses
import types
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from swd_jax._arguments.short_text import shown, type_of
from swd_jax._arrays import tree_paths


@dataclasses.dataclass(frozen=True, eq=False)
class ModelInputs:
    """A model and its arguments with `jax.ShapeDtypeStruct` in place of arrays.

    A trace depends on nothing else, as long as the model is a pure function.
    """

    apply: Callable[..., Any]
    params: tree_paths.FlatTree
    arguments: list[Any]
    """The leaves of the other arguments."""
    argument_tree: Any

    @property
    def entries(self) -> Sequence[tuple[int, str, Any]]:
        """Position, path and shape of the arrays among the parameters."""
        return tree_paths.arrays(self.params)

    @property
    def input_arrays(self) -> list[Any]:
        """The arrays among the other arguments."""
        return [leaf for leaf in self.arguments if tree_paths.is_array(leaf)]

    def same_trace(self, inputs: "ModelInputs") -> bool:
        """Whether other inputs give the same jaxpr."""
        return (
            _same_function(self.apply, inputs.apply)
            and _equal(self.params.treedef, inputs.params.treedef)
            and _equal(self.argument_tree, inputs.argument_tree)
            and _same_leaves(self.params.leaves, inputs.params.leaves)
            and _same_leaves(self.arguments, inputs.arguments)
        )

    def with_types(
        self, params: Sequence[Any], arguments: Sequence[Any]
    ) -> "ModelInputs":
        """Return the same model with other shapes and dtypes of its arrays.

        Args:
          params: the type (`jax.typeof`) of each array among the parameters, whose
            dtype counts; their shapes stay.
          arguments: the type of each array among the other arguments.
        """
        leaves = list(self.params.leaves)
        for (position, _, leaf), new in zip(self.entries, params, strict=True):
            leaves[position] = jax.ShapeDtypeStruct(leaf.shape, new.dtype)
        remaining = iter(arguments)
        return dataclasses.replace(
            self,
            params=self.params._replace(leaves=leaves),
            arguments=[
                _abstract(next(remaining)) if tree_paths.is_array(leaf) else leaf
                for leaf in self.arguments
            ],
        )


def model_inputs(
    apply: Callable[..., Any], params: Any, example_args: Sequence[Any]
) -> ModelInputs:
    """Replace the arrays among a model's arguments by their shapes and dtypes.

    Raises:
      ValueError: if the parameters have no arrays, or two with the same path.
    """
    _check_apply(apply)
    flat = tree_paths.flatten(params)
    if not tree_paths.arrays_by_path("params", flat):
        raise ValueError(
            f"params must be a tree of arrays, and has none: got {shown(params)}. The "
            "arguments are (apply, params, *example_args)"
        )
    arguments, argument_tree = jax.tree.flatten(tuple(example_args))
    return ModelInputs(
        apply,
        flat._replace(leaves=[_abstract(leaf) for leaf in flat.leaves]),
        [_abstract(leaf) for leaf in arguments],
        argument_tree,
    )


def _check_apply(apply: Any) -> None:
    """Raise if the model is no function, or a module of linen in place of its `apply`.

    Compared by name: Flax need not be imported.
    """
    if not callable(apply):
        raise ValueError(
            "apply must be the model, a function of (params, *example_args), got "
            f"{shown(apply)}. It comes first, (apply, params, *example_args)"
        )
    module_class: type = type(apply)
    if any(
        base.__name__ == "Module" and base.__module__.startswith("flax.linen")
        for base in module_class.__mro__
    ):
        raise ValueError(
            "apply must be the model, a function of (params, *example_args), got "
            f"{type_of(apply)}, a module of flax.linen. Give its apply, model.apply"
        )


def trace(inputs: ModelInputs) -> tuple[Any, Any]:
    """Trace a model.

    Returns:
      The closed jaxpr, whose inputs are the arrays among the parameters and then those
      among the other arguments, and the tree structure of the model's result.

    Raises:
      ValueError: if the model cannot be traced.
    """
    positions = [position for position, _, _ in inputs.entries]
    result_tree: list[Any] = []

    def program(arrays: Sequence[Any], input_arrays: Sequence[Any]) -> list[Any]:
        remaining = iter(input_arrays)
        leaves = [
            next(remaining) if tree_paths.is_array(leaf) else leaf
            for leaf in inputs.arguments
        ]
        params = inputs.params.rebuild(dict(zip(positions, arrays, strict=True)))
        outputs = inputs.apply(
            params, *jax.tree.unflatten(inputs.argument_tree, leaves)
        )
        results, structure = jax.tree.flatten(outputs)
        result_tree[:] = [structure]
        return results

    jaxpr = _make_jaxpr(
        program, [leaf for *_, leaf in inputs.entries], inputs.input_arrays
    )
    return jaxpr, result_tree[0]


def _make_jaxpr(program: Any, arrays: list[Any], input_arrays: list[Any]) -> Any:
    try:
        return jax.make_jaxpr(program)(arrays, input_arrays)
    except (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerArrayConversionError,
        jax.errors.TracerIntegerConversionError,
    ) as error:
        raise ValueError(
            "apply cannot be traced, because its Python code depends on the values of "
            "arrays (in an `if`, a loop, an index or a shape). Write that with jax.lax "
            "or jnp.where, or give the argument that decides it as a Python number "
            f"rather than an array. From jax: {str(error).splitlines()[0]}"
        ) from error
    except (TypeError, ValueError, AssertionError) as error:
        shapes = ", ".join(str(leaf.shape) for leaf in input_arrays)
        given = f"of the shapes {shapes}" if shapes else "without arrays"
        raise ValueError(
            f"apply(params, *example_args) cannot be traced with example_args {given}. "
            "Give them the shapes that the model takes, with the "
            f"batch. The model's own message: {error}"
        ) from error


def _abstract(leaf: Any) -> Any:
    if not tree_paths.is_array(leaf):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _same_function(left: Callable[..., Any], right: Callable[..., Any]) -> bool:
    # Every access to `model.apply` makes a new bound method.
    if isinstance(left, types.MethodType) and isinstance(right, types.MethodType):
        return left.__func__ is right.__func__ and left.__self__ is right.__self__
    return left is right


def _same_leaves(left: Sequence[Any], right: Sequence[Any]) -> bool:
    return len(left) == len(right) and all(map(_same_leaf, left, right))


def _same_leaf(left: Any, right: Any) -> bool:
    if tree_paths.is_array(left) and tree_paths.is_array(right):
        return left.shape == right.shape and left.dtype == right.dtype
    return left is right or (type(left) is type(right) and _equal(left, right))


def _equal(left: Any, right: Any) -> bool:
    try:
        return bool(np.all(left == right))
    except (TypeError, ValueError):
        # Static attributes of modules may be arrays, whose `==` is no single bool.
        return False
