"""Propagation of labels through a traced program, equation by equation."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from swd_jax._coupling import axis_labels, type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CouplingAnalysis, Frame
from swd_jax._coupling.rules import all_rules, fallback, rule_interface

_MAX_CONST_SIZE = 4096

_FOLDED_PRIMITIVES = frozenset(
    """
    add sub mul neg lt le gt ge eq ne and or not max min clamp select_n rem sign
    convert_element_type broadcast_in_dim reshape squeeze concatenate
    """.split()
)


def propagate(
    analysis: CouplingAnalysis, jaxpr: ClosedJaxpr | Jaxpr, arguments: Sequence[Labels]
) -> tuple[list[Labels], Frame]:
    """Propagate labels from a jaxpr's arguments to its results.

    An equation without a rule, or whose rule raises `UnsupportedPrimitive`, freezes the
    axes of its operands. Any other exception is a bug in a rule and is not caught.

    Args:
      analysis: its atoms are united and frozen by the program.
      jaxpr: the program.
      arguments: the labels of each argument.

    Returns:
      The labels of each result, and the frame with the labels of every variable.
    """
    program, constants = rule_interface.unwrap_closed_jaxpr(jaxpr)
    frame = Frame({}, {}, unused=_unused_equations(program))
    labels = frame.labels
    for variable, value in zip(program.constvars, constants, strict=True):
        labels[variable] = label_constant(analysis, value)
    labels.update(zip(program.invars, arguments, strict=True))
    for number, equation in enumerate(program.eqns):
        if number in frame.unused:
            continue
        inputs = [read(labels, atom) for atom in equation.invars]
        with analysis.position.equation(equation):
            outputs = _apply_rule(analysis, frame, number, equation, inputs)
        const_value = _fold_constants(equation, inputs)
        if const_value is not None:
            outputs = [output.replace(const_value=const_value) for output in outputs]
        labels.update(zip(equation.outvars, outputs, strict=True))
    return [read(labels, atom) for atom in program.outvars], frame


def _unused_equations(program: Jaxpr) -> set[int]:
    """Return the numbers of the equations whose results nothing depends on.

    Flax's `sow` computes what `apply` then does not return; it must freeze nothing.
    """
    needed = {id(atom) for atom in program.outvars}
    unused: set[int] = set()
    for number, equation in reversed(list(enumerate(program.eqns))):
        is_needed = any(id(variable) in needed for variable in equation.outvars)
        if is_needed or equation.effects:
            needed.update(map(id, equation.invars))
        else:
            unused.add(number)
    return unused


def _apply_rule(
    analysis: CouplingAnalysis,
    frame: Frame,
    number: int,
    equation: type_aliases.Equation,
    inputs: list[Labels],
) -> list[Labels]:
    """Return the labels of an equation's results, and note its calls in the frame."""
    name = equation.primitive.name
    try:
        if name not in all_rules.RULES:
            raise rule_interface.UnsupportedPrimitive(f"{name} has no rule")
        with analysis.rule() as called:
            outputs = all_rules.RULES[name].label(analysis, equation, inputs)
    except rule_interface.UnsupportedPrimitive:
        frame.unsupported.add(number)
        return fallback.label_unsupported(analysis, equation, inputs)
    frame.called[number] = called
    return [outputs] if isinstance(outputs, Labels) else outputs


def _fold_constants(
    equation: type_aliases.Equation, inputs: list[Labels]
) -> np.ndarray | None:
    """Return the value of a small integer or bool result of literals, else None."""
    if len(equation.outvars) != 1 or equation.primitive.name not in _FOLDED_PRIMITIVES:
        return None
    aval = equation.outvars[0].aval
    # A random key has a dtype of jax's own, and no kind.
    is_numpy = isinstance(getattr(aval, "dtype", None), np.dtype)
    if not is_numpy or aval.dtype.kind not in "iub":
        return None
    if not isinstance(aval.size, int) or aval.size > _MAX_CONST_SIZE:
        return None
    values = [labels.const_value for labels in inputs]
    if any(value is None for value in values):
        return None
    with jax.ensure_compile_time_eval():
        return np.asarray(rule_interface.bind(equation, *values))


def read(labels: Mapping[Any, Labels], atom: Any) -> Labels:
    """Return the labels of a variable or a literal."""
    if isinstance(atom, Literal):
        if np.shape(atom.val):
            return axis_labels.fixed_size_labels(
                np.shape(atom.val), depends_on_input=False
            )
        value = np.asarray(atom.val)
        return Labels(
            (),
            uniform_value=_single_number(value),
            const_value=value if value.dtype.kind in "iub" else None,
        )
    return labels[atom]


def label_constant(analysis: CouplingAnalysis, value: Any) -> Labels:
    """Create atoms for an array that the program closes over.

    The smaller program slices the array to the positions that remain of the axes with
    which these atoms have been united.
    """
    shape = np.shape(value)
    blocks = {
        (dim,): analysis.atoms.create(size)
        for dim, size in enumerate(shape)
        if size > 1
    }
    labels = Labels(tuple(shape), blocks)
    dtype = getattr(value, "dtype", None)
    if not isinstance(dtype, np.dtype) or not 0 < np.size(value) <= _MAX_CONST_SIZE:
        return labels
    array = np.asarray(value)
    uniform_value = _single_number(array)
    if uniform_value is not None:
        labels = labels.replace(
            uniform_value=uniform_value,
            removed_values=dict.fromkeys(labels.labelled_axes, uniform_value),
        )
    return labels.replace(const_value=array if dtype.kind in "iub" else None)


def _single_number(array: np.ndarray) -> float | None:
    """Return the real number that all elements of an array are, if they are one."""
    first = array.flat[0]
    if np.iscomplexobj(array) or not (array == first).all():
        return None
    return float(first)
