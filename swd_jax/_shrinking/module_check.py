"""Whether a smaller module computes what the program at its sizes does."""

import re
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import Literal, jaxprs_in_params

from swd_jax._arrays import tree_paths
from swd_jax._coupling import find_channel_groups, trace_model
from swd_jax._coupling.coupling_analysis import Frame
from swd_jax._coupling.current_equation import ProgramPosition
from swd_jax._shrinking.example_inputs import example_like
from swd_jax._shrinking.shrink_checks import has_shapes_only, is_close
from swd_jax._shrinking.shrunk_apply import SmallerProgram

_LIBRARIES = re.compile(r"/(jax|flax|equinox|haiku|einops|swd_jax)/")


class Problem(NamedTuple):
    """What is wrong with a smaller module."""

    message: str
    error: Exception | None = None
    """The error of a module that cannot be traced."""


class ModuleCheck:
    """Compares a smaller module with the traced program at its sizes."""

    def __init__(
        self,
        apply: Callable[..., Any],
        analysis: find_channel_groups.Analysis,
        program: SmallerProgram,
        example_args: Sequence[Any],
    ) -> None:
        self._apply = apply
        self._analysis = analysis
        self._program = program
        self._example_args = example_args
        self._expected: list[Any] | None = None

    def problem(self, module: Any) -> Problem | None:
        """What is wrong with a module; None if it is right."""
        try:
            inputs = trace_model.model_inputs(self._apply, module, self._example_args)
            jaxpr, _ = trace_model.trace(inputs)
        # A module with a wrong size may fail in any way.
        except Exception as error:
            place = _place(error)
            at = f" It stops at {place}." if place else ""
            return Problem(f"The smaller module cannot be used.{at} {error}", error)
        whole = self._analysis.jaxpr
        if _shapes(jaxpr) != _shapes(whole):
            return Problem(
                "The smaller module has outputs of the shapes "
                f"{_shapes(jaxpr)}, and the model of {_shapes(whole)}."
            )
        difference = self._first_difference(jaxpr.jaxpr)
        if difference is None or has_shapes_only(tree_paths.flatten(module)):
            return None
        arguments = jax.tree.map(example_like, tuple(self._example_args))
        if self._expected is None:
            self._expected = jax.tree.leaves(self._program(module, *arguments))
        outputs = jax.tree.leaves(self._apply(module, *arguments))
        if all(map(is_close, self._expected, outputs)):
            return None
        at = f" The first difference is in {difference}." if difference else ""
        return Problem(
            f"The smaller module does not compute what the cut model does.{at}"
        )

    def _first_difference(self, jaxpr: Any) -> str | None:
        """The first equation that differs from the whole model's; None without one."""
        analysis = self._analysis
        return self._difference_in(jaxpr, analysis.jaxpr.jaxpr, analysis.frame)

    def _difference_in(self, jaxpr: Any, whole: Any, frame: Frame) -> str | None:
        for number, (own, other) in enumerate(
            zip(jaxpr.eqns, whole.eqns, strict=False)
        ):
            if number in frame.unused:
                continue
            with (position := ProgramPosition()).equation(own):
                place = position.description
            if _head(own) != _head(other) or _out_shapes(own) != self._kept_shapes(
                other, frame
            ):
                return place
            own_bodies, bodies = _bodies(own), _bodies(other)
            frames = frame.called.get(number, ())
            if len(own_bodies) != len(bodies):
                return place
            if len(frames) != len(bodies):
                # Not every rule has labels for what is inside of an equation.
                if [*map(_signature, own_bodies)] != [*map(_signature, bodies)]:
                    return place
                continue
            for triple in zip(own_bodies, bodies, frames, strict=True):
                if (difference := self._difference_in(*triple)) is not None:
                    return difference or place
        return None if len(jaxpr.eqns) == len(whole.eqns) else ""

    def _kept_shapes(self, equation: Any, frame: Frame) -> list[tuple[int, ...]]:
        return [self._program.kept_shape(frame.labels[v]) for v in equation.outvars]


def _shapes(jaxpr: Any) -> list[tuple[int, ...]]:
    return [tuple(aval.shape) for aval in jaxpr.out_avals]


def _out_shapes(equation: Any) -> list[tuple[int, ...]]:
    return [tuple(variable.aval.shape) for variable in equation.outvars]


def _bodies(equation: Any) -> list[Any]:
    """The jaxprs that an equation calls."""
    return [*jaxprs_in_params(equation.params)]


def _head(equation: Any) -> list[Any]:
    """Name of the primitive and values of the literals."""
    literals = [atom.val for atom in equation.invars if isinstance(atom, Literal)]
    values = [np.asarray(value).tolist() for value in literals]
    return [equation.primitive.name, *values]


def _signature(jaxpr: Any) -> list[Any]:
    """Heads of all equations, also of those inside of others."""
    signature: list[Any] = []
    for equation in jaxpr.eqns:
        signature.append(_head(equation))
        signature.extend(map(_signature, _bodies(equation)))
    return signature


def _place(error: BaseException) -> str:
    """File, line and source of the innermost frame in the user's code, or ""."""
    cause: BaseException | None = error
    while cause is not None:
        for frame in reversed(traceback.extract_tb(cause.__traceback__)):
            if not _LIBRARIES.search(frame.filename.replace("\\", "/")):
                return f"{frame.filename}:{frame.lineno} ({frame.line})"
        cause = cause.__cause__
    return ""
