"""Multiply-adds of one example: of a dense model, and what pruning leaves of them.

Counted are the products of weights with activations in convolutions and matrix
products, whatever the model is written in. Products with the zeros around a padded
image count, as is usual; biases, batch norm, pooling and products of two activations
do not.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal

# Operations that pass on the elements of their argument, perhaps in another order.
SAME_ELEMENTS = (
    "broadcast_in_dim convert_element_type copy copy_p expand_dims reshape rev squeeze "
    "transpose"
).split()
# Operations that run a function of the same arguments and results.
CALLS = (
    "checkpoint closed_call core_call custom_jvp_call custom_vjp_call "
    "custom_vjp_call_jaxpr jit pjit remat remat2"
).split()
# Operations that run a function on parts of their arguments, or not just once.
UNSUPPORTED = "cond scan shard_map while".split()


def uses(apply: Callable[..., Any], params: Any, *args: Any) -> dict[str, int]:
    """Count the multiply-adds in which each weight takes part, for every leaf.

    Args:
        apply: The model: `apply(params, *args)`. It is traced, not run.
        params: Its parameters, or their shapes (`jax.eval_shape`).
        *args: Its other arguments, or their shapes, for one example: a batch of one.

    Returns:
        Number of uses by path, such as "conv1/kernel". 0 for leaves that are in
        no convolution and no matrix product, or that are changed before it (multiplied
        by a mask, say). A product of two leaves counts for the right one only.

    Raises:
        ValueError: A leaf goes into a loop or a branch, which are not followed.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    jaxpr = jax.make_jaxpr(apply)(params, *args).jaxpr
    counts = [0] * len(leaves)
    others = [None] * (len(jaxpr.invars) - len(leaves))
    _follow(jaxpr, [*range(len(leaves)), *others], counts)
    names = [leaf_name(path) for path, _ in leaves]
    return dict(zip(names, counts, strict=True))


def leaf_name(path: Any) -> str:
    """A JAX key path as `swd_jax.summarize` prints it, such as conv1/kernel."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return name.removesuffix("/value")  # which NNX puts below every parameter


def multiply_adds(uses: Mapping[str, int | np.ndarray], params: Any) -> int:
    """Multiply-adds with the weights that are not zero.

    Args:
        uses: Of each leaf: a number, or an array that broadcasts to the leaf's shape.
        params: As given to `uses`. Leaves that are only shapes count as without zeros.
    """
    total = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        per_weight = uses[leaf_name(path)]
        if isinstance(leaf, jax.ShapeDtypeStruct):
            nonzero = np.broadcast_to(np.True_, leaf.shape)  # takes no memory
        else:
            nonzero = np.asarray(leaf) != 0
        if isinstance(per_weight, int):
            total += per_weight * int(np.count_nonzero(nonzero))
        else:
            total += int(np.where(nonzero, per_weight, 0).sum(dtype=np.int64))
    return total


def _follow(
    jaxpr: Jaxpr, arguments: list[int | None], counts: list[int]
) -> list[int | None]:
    """Adds to the counts; takes and returns which leaf each value is, if any."""
    leaf_of = dict(zip(jaxpr.invars, arguments, strict=True))

    def leaf(value: Any) -> int | None:
        return None if isinstance(value, Literal) else leaf_of.get(value)

    for equation in jaxpr.eqns:
        inputs = [leaf(value) for value in equation.invars]
        if any(index is not None for index in inputs):
            outputs = _follow_equation(equation, inputs, counts)
            leaf_of.update(zip(equation.outvars, outputs, strict=True))
    return [leaf(value) for value in jaxpr.outvars]


def _follow_equation(
    equation: JaxprEqn, inputs: list[int | None], counts: list[int]
) -> list[int | None]:
    operation = equation.primitive.name
    sizes = [math.prod(value.aval.shape) for value in equation.invars]
    output_sizes = [math.prod(value.aval.shape) for value in equation.outvars]
    if operation in CALLS:
        names = [
            n for n in ("jaxpr", "call_jaxpr", "fun_jaxpr") if n in equation.params
        ]
        inner = equation.params[names[0]]
        return _follow(getattr(inner, "jaxpr", inner), inputs, counts)
    if operation in UNSUPPORTED:
        raise ValueError(f"Cannot count the uses of a parameter inside `{operation}`.")
    if operation in SAME_ELEMENTS and output_sizes[0] == sizes[0]:
        return [inputs[0]]
    if operation in ("conv_general_dilated", "dot_general"):
        left, right = inputs
        products = output_sizes[0] * _products_in_a_sum(equation)
        if right is not None:
            counts[right] += products // sizes[1]
        elif operation == "dot_general":
            counts[left] += products // sizes[0]
    return [None] * len(output_sizes)


def _products_in_a_sum(equation: JaxprEqn) -> int:
    """Count the products that one element of the result sums."""
    left, right = (value.aval.shape for value in equation.invars)
    dimensions = equation.params["dimension_numbers"]
    if equation.primitive.name == "dot_general":
        (summed, _), _ = dimensions
        return math.prod(left[axis] for axis in summed)
    output_maps = right[dimensions.rhs_spec[0]]
    return math.prod(right) // output_maps
