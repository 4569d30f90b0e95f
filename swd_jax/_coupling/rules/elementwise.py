"""Operations element by element: what meets at a position goes together."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from swd_jax._coupling import analysis_record, array_types, axis_labels
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.label_operations import Context
from swd_jax._coupling.rules.registry import Run, Step, bind, register

# 0 becomes 0.
_KEEPS_ZERO = """
    abs asin asinh atan atanh cbrt ceil convert_element_type copy copy_p erf erf_inv
    expm1 floor imag log1p name neg real reduce_precision round sign sin sinh sqrt
    square stop_gradient tan tanh to_edtype from_edtype pcast pvary layout_constraint
"""
_UNARY = """
    acos acosh bessel_i0e bessel_i1e bitcast_convert_type cos cosh clz conj digamma
    erfc exp exp2 is_finite lgamma log log2 logistic not population_count rsqrt
    one_minus_square random_wrap
"""
_MANY = """
    add add_any and atan2 clamp complex div eq eq_to ge gt igamma igammac le le_to lt
    lt_to max min mul ne nextafter or polynomial pow rem select_n shift_left
    shift_right_arithmetic shift_right_logical sub xor regularized_incomplete_beta
"""


def _elementwise(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> Labels:
    shape = equation.outvars[0].aval.shape
    if any(labels.rank not in (0, len(shape)) for labels in inputs):
        raise NotImplementedError
    name = equation.primitive.name
    operands = [
        context.stretched(labels, shape)
        for labels in inputs
        if labels.rank == len(shape)
    ]
    _note_roles(context, name, inputs)
    merged = axis_labels.constant(shape)
    for labels in operands:
        merged = context.merged(merged, labels)
    return merged.replaced(
        data=any(labels.data for labels in inputs),
        vanishes=_vanishes(equation, inputs, merged),
    )


def _note_roles(context: Context, name: str, inputs: list[Labels]) -> None:
    if len(inputs) > 1:
        role = {
            "mul": analysis_record.SCALE,
            "div": analysis_record.SCALE,
            "add": analysis_record.BIAS,
            "sub": analysis_record.BIAS,
        }.get(name, analysis_record.OTHER)
        for labels in inputs:
            context.use(labels, labels.labelled, role)


def _vanishes(
    equation: array_types.Equation, inputs: list[Labels], merged: Labels
) -> bool:
    """Whether the result is 0 wherever the parameters of a channel are."""
    name = equation.primitive.name
    complete = [
        labels.vanishes and labels.labelled >= merged.labelled for labels in inputs
    ]
    if name == "mul":
        return any(complete)
    if name in ("div", "rem"):
        return complete[0]
    if name == "select_n":
        return all(complete[1:])
    if name == "integer_pow":
        return complete[0] and equation.params["y"] > 0
    if name in ("max", "min"):
        harmless = np.less_equal if name == "max" else np.greater_equal
        return any(complete) and all(
            done or (isinstance(atom, Literal) and bool(harmless(atom.val, 0)))
            for done, atom in zip(complete, equation.invars, strict=True)
        )
    if name in ("add", "add_any", "sub") or name in _KEEPS_ZERO.split():
        return all(complete)
    return False


def _run_elementwise(run: Run, step: Step, values: list[Any]) -> Any:
    del run
    return bind(step.equation, *aligned(values))


def aligned(values: list[Any]) -> list[Any]:
    """Arrays brought to one shape; scalars stay what they are."""
    shapes = [jnp.shape(value) for value in values if jnp.ndim(value)]
    if len(set(shapes)) <= 1:
        return values
    shape = np.broadcast_shapes(*shapes)
    return [
        jnp.broadcast_to(value, shape) if jnp.ndim(value) else value for value in values
    ]


def _same(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> list[Labels]:
    del context, equation
    return [labels.replaced() for labels in inputs]


def _run_same(run: Run, step: Step, values: list[Any]) -> list[Any]:
    del run, step
    return values


def _custom_derivative(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> list[Labels]:
    return context.call(called(equation), inputs)


def _run_custom_derivative(run: Run, step: Step, values: list[Any]) -> list[Any]:
    equation = step.equation
    shapes = [variable.aval.shape for variable in equation.invars]
    if [jnp.shape(value) for value in values] == shapes:
        return bind(equation, *values)
    if _is_relu(called(equation)):
        return [jax.nn.relu(values[0])]  # whose derivative at 0 is 0
    return run.call(called(equation), run.frames[0], values)


def _is_relu(jaxpr: Any) -> bool:
    """Whether all that a program computes is max(x, 0)."""
    inside = getattr(jaxpr, "jaxpr", jaxpr)
    if len(inside.eqns) != 1:
        return False
    [equation] = inside.eqns
    if equation.primitive.name in ("jit", "pjit"):
        return _is_relu(called(equation))
    return equation.primitive.name == "max" and any(
        isinstance(atom, Literal) and np.ndim(atom.val) == 0 and atom.val == 0
        for atom in equation.invars
    )


def called(equation: array_types.Equation) -> Any:
    """The jaxpr that an equation calls."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if name in equation.params:
            return equation.params[name]
    raise NotImplementedError


register(_KEEPS_ZERO + _UNARY + _MANY + "integer_pow", _elementwise, _run_elementwise)
# They may have several operands, or a sharding for the full size.
register("optimization_barrier sharding_constraint device_put", _same, _run_same)
register(
    "custom_jvp_call custom_vjp_call custom_vjp_call_jaxpr",
    _custom_derivative,
    _run_custom_derivative,
)
