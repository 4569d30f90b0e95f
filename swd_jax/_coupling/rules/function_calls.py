"""Rules for calls: jit, checkpoint (remat), functions with custom derivatives."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from swd_jax._coupling import type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CouplingAnalysis
from swd_jax._coupling.rules.rule_interface import (
    Evaluator,
    Rule,
    Step,
    UnsupportedPrimitive,
    bind,
    param,
    unwrap_closed_jaxpr,
)


def called_jaxpr(equation: type_aliases.Equation) -> Any:
    """Return the jaxpr that an equation calls."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if name in equation.params:
            return equation.params[name]
    raise UnsupportedPrimitive(f"{equation.primitive.name} calls no jaxpr")


def _label_call(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> list[Labels]:
    return analysis.call(called_jaxpr(equation), inputs)


def _run_call(evaluator: Evaluator, step: Step, values: list[Any]) -> list[Any]:
    return evaluator.run(called_jaxpr(step.equation), step.frames[0], values)


def _run_checkpoint(evaluator: Evaluator, step: Step, values: list[Any]) -> list[Any]:
    function = jax.checkpoint(
        lambda *arguments: _run_call(evaluator, step, list(arguments)),
        prevent_cse=param(step.equation, "prevent_cse"),
        policy=param(step.equation, "policy"),
    )
    return function(*values)


def _run_custom_derivative(
    evaluator: Evaluator, step: Step, values: list[Any]
) -> list[Any]:
    """Run a function with a custom derivative.

    The custom derivative was traced for the full shapes, so it is used only for values
    of these shapes. In other shapes JAX differentiates the function itself.
    """
    equation = step.equation
    shapes = [variable.aval.shape for variable in equation.invars]
    if [jnp.shape(value) for value in values] == shapes:
        return bind(equation, *values)
    if _is_relu(called_jaxpr(equation)):
        # JAX's derivative of max(x, 0) at 0 is 1/2; that of jax.nn.relu is 0.
        return [jax.nn.relu(values[0])]
    return _run_call(evaluator, step, values)


def _is_relu(jaxpr: Any) -> bool:
    """Return whether a jaxpr computes max(x, 0) and nothing else."""
    program, _ = unwrap_closed_jaxpr(jaxpr)
    if len(program.eqns) != 1:
        return False
    [equation] = program.eqns
    if equation.primitive.name in ("jit", "pjit"):
        return _is_relu(called_jaxpr(equation))
    return equation.primitive.name == "max" and any(
        isinstance(atom, Literal) and np.ndim(atom.val) == 0 and atom.val == 0
        for atom in equation.invars
    )


RULES = {
    **dict.fromkeys(
        "jit pjit closed_call core_call core_closed_call xla_call custom_lin".split(),
        Rule(_label_call, _run_call),
    ),
    **dict.fromkeys(
        "checkpoint remat remat2".split(), Rule(_label_call, _run_checkpoint)
    ),
    **dict.fromkeys(
        "custom_jvp_call custom_vjp_call custom_vjp_call_jaxpr".split(),
        Rule(_label_call, _run_custom_derivative),
    ),
}
