"""A model as a program whose inputs are its arrays."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

from swd_jax._arrays import tree_paths


@dataclasses.dataclass
class Program:
    """A model as it was traced."""

    jaxpr_with_constants: Any
    params: tree_paths.Flat
    entries: list[tuple[int, str, Any]]
    """Position, path and leaf of the arrays among the parameters."""
    arguments: list[Any]
    """The leaves of the other arguments."""
    inputs: list[Any]
    """The arrays among them."""
    argument_tree: Any
    result_tree: Any

    @property
    def jaxpr(self) -> Any:
        """The program."""
        return self.jaxpr_with_constants.jaxpr


def trace(
    apply: Callable[..., Any], params: Any, example_args: Sequence[Any]
) -> Program:
    """Trace a model: its arrays are the inputs of the program, in order."""
    flat = tree_paths.flatten(params)
    entries = tree_paths.arrays(flat)
    if not entries:
        raise ValueError("params has no arrays, so there are no channels to find.")
    arguments, argument_tree = jax.tree.flatten(tuple(example_args))
    traced = [leaf for leaf in arguments if tree_paths.is_array(leaf)]
    result_tree: list[Any] = []
    positions = [position for position, _, _ in entries]

    def program(arrays: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
        given = iter(inputs)
        leaves = [next(given) if tree_paths.is_array(a) else a for a in arguments]
        tree = flat.rebuilt(dict(zip(positions, arrays, strict=True)))
        outputs = apply(tree, *jax.tree.unflatten(argument_tree, leaves))
        results, structure = jax.tree.flatten(outputs)
        result_tree[:] = [structure]
        return results

    jaxpr = _traced(
        program,
        [_abstract(leaf) for *_, leaf in entries],
        [_abstract(a) for a in traced],
    )
    return Program(
        jaxpr, flat, entries, arguments, traced, argument_tree, result_tree[0]
    )


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _traced(program: Any, arrays: list[Any], inputs: list[Any]) -> Any:
    try:
        return jax.make_jaxpr(program)(arrays, inputs)
    except (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerArrayConversionError,
        jax.errors.TracerIntegerConversionError,
    ) as error:
        raise ValueError(
            "apply cannot be traced, because its Python code depends on the values of "
            "arrays (in an `if`, a loop, an index or a shape). Write that with jax.lax "
            "or jnp.where, or give the argument that decides it as a Python number "
            f"rather than an array. From jax: {error}"
        ) from error
    except (TypeError, ValueError, AssertionError) as error:
        shapes = ", ".join(str(leaf.shape) for leaf in inputs) or "none"
        raise ValueError(
            f"apply(params, *example_args) cannot be traced with example_args of the "
            f"shapes {shapes}. Give them the shapes that the model takes, with the "
            f"batch. The model's own message: {error}"
        ) from error
