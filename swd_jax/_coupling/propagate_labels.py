"""A whole program, equation by equation: the labels of everything in it."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from swd_jax._coupling import array_types, axis_labels
from swd_jax._coupling.analysis_record import Frame
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.label_operations import Context
from swd_jax._coupling.rules import (
    concatenate,
    contractions,
    control_flow,
    elementwise,
    fallback,
    gather_scatter,
    reductions,
    registry,
    reshape,
    slicing,
)

RULES: Mapping[str, registry.Rule] = registry.RULES
"""Of all primitives that are understood."""

# Each of these modules adds its rules.
FAMILIES = (
    control_flow,
    elementwise,
    gather_scatter,
    concatenate,
    reshape,
    fallback,
    contractions,
    slicing,
    reductions,
)

_MOST_KNOWN = 4096


def follow(
    context: Context, jaxpr: ClosedJaxpr | Jaxpr, arguments: Sequence[Labels]
) -> tuple[list[Labels], Frame]:
    """Labels of what a jaxpr computes, and of everything on the way.

    Args:
      context: united and frozen as far as the program goes.
      jaxpr: the program.
      arguments: one for each of its arguments.

    Returns:
      One for each result, and all of them by variable.
    """
    inside, values = registry.opened(jaxpr)
    frame = Frame({}, {})
    labels = frame.labels
    for variable, value in zip(inside.constvars, values, strict=True):
        labels[variable] = captured(context, value)
    labels.update(zip(inside.invars, arguments, strict=True))
    for number, equation in enumerate(inside.eqns):
        context.at(equation)
        context.begin()
        inputs = [read(labels, atom) for atom in equation.invars]
        rule = RULES.get(equation.primitive.name)
        try:
            if rule is None:
                raise NotImplementedError
            outputs = rule.labels(context, equation, inputs)
        except (NotImplementedError, KeyError, AttributeError):
            # A form, or a parameter in another version of jax, that is not known.
            outputs = fallback.unknown(context, equation, inputs)
            frame.opaque.add(number)
        outputs = [outputs] if isinstance(outputs, Labels) else outputs
        known = _known(equation, inputs)
        if known is not None:
            outputs = [labels.replaced(known=known) for labels in outputs]
        frame.inner[number] = context.end()
        labels.update(zip(equation.outvars, outputs, strict=True))
    return [read(labels, atom) for atom in inside.outvars], frame


def _known(equation: array_types.Equation, inputs: list[Labels]) -> np.ndarray | None:
    """The value of a small integer result that depends on nothing but constants."""
    if len(equation.outvars) != 1 or equation.primitive.name not in _FOLDED:
        return None
    aval = equation.outvars[0].aval
    plain = isinstance(getattr(aval, "dtype", None), np.dtype)
    if not plain or aval.size > _MOST_KNOWN or aval.dtype.kind not in "iub":
        return None
    values = [labels.known for labels in inputs]
    if any(value is None for value in values):
        return None
    with jax.ensure_compile_time_eval():
        return np.asarray(registry.bind(equation, *values))


_FOLDED = frozenset(
    """
    add sub mul neg lt le gt ge eq ne and or not max min clamp select_n rem sign
    convert_element_type broadcast_in_dim reshape squeeze concatenate
    """.split()
)


def read(labels: Mapping[Any, Labels], atom: Any) -> Labels:
    """The labels of a variable or a literal."""
    if isinstance(atom, Literal):
        if np.shape(atom.val):
            return axis_labels.fixed(np.shape(atom.val), data=False)
        known = np.asarray(atom.val)
        return Labels((), known=known if known.dtype.kind in "iub" else None)
    return labels[atom]


def captured(context: Context, value: Any) -> Labels:
    """Labels of a constant array: it is cut to go with what it is used for."""
    shape = np.shape(value)
    blocks = {
        (dim,): context.atoms.fresh(size) for dim, size in enumerate(shape) if size > 1
    }
    labels = Labels(tuple(shape), blocks)
    dtype = getattr(value, "dtype", None)
    plain = isinstance(dtype, np.dtype) and dtype.kind in "iub"  # not a random key
    if plain and np.size(value) <= _MOST_KNOWN:
        return labels.replaced(known=np.asarray(value))
    return labels
