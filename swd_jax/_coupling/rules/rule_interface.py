"""`Rule` of a primitive: how it propagates labels, how it runs at other sizes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from swd_jax._coupling import type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CouplingAnalysis, Frame


class UnsupportedPrimitive(Exception):
    """Raised by a rule for a form of its primitive that it does not support."""


class Evaluator(Protocol):
    """Services for the rules while the program runs with some of the channels."""

    def kept_positions(self, labels: Labels, dim: int) -> type_aliases.Bools:
        """Return which positions along an axis are kept."""
        ...

    def kept_size(self, labels: Labels, dim: int) -> Any:
        """Return the number of kept positions; the size, if the axis has no atoms."""
        ...

    def broadcast_to_full(self, value: Any, labels: Labels, dims: Sequence[int]) -> Any:
        """Broadcast the broadcast axes among `dims` from size 1 to their full size."""
        ...

    def run(self, jaxpr: Any, frame: Frame, arguments: Sequence[Any]) -> list[Any]:
        """Run a jaxpr that the equation calls."""
        ...


class Step(NamedTuple):
    """One equation to run."""

    equation: type_aliases.Equation
    inputs: list[Labels]
    outputs: list[Labels]
    frames: Sequence[Frame] = ()
    """Frames of the jaxprs that the equation calls."""


LabelRule: TypeAlias = Callable[
    [CouplingAnalysis, type_aliases.Equation, list[Labels]], list[Labels] | Labels
]
"""Returns the labels of an equation's results."""

RunRule: TypeAlias = Callable[[Evaluator, Step, list[Any]], list[Any] | Any]
"""Returns the values of an equation's results."""


class Rule(NamedTuple):
    """Both halves of a primitive's rule."""

    label: LabelRule
    run: RunRule


def param(equation: type_aliases.Equation, name: str) -> Any:
    """Return a parameter of an equation.

    Raises:
      UnsupportedPrimitive: if the primitive does not have the parameter in this release
        of jax. Parameters of primitives are not covered by jax's deprecation policy.
    """
    if name not in equation.params:
        raise UnsupportedPrimitive(
            f"{equation.primitive.name} has no parameter {name!r} in this release of "
            f"jax; it has {sorted(equation.params)}"
        )
    return equation.params[name]


def result_shape(equation: type_aliases.Equation) -> type_aliases.Dims:
    """Return the shape of an equation's first result."""
    return tuple(equation.outvars[0].aval.shape)


def unwrap_closed_jaxpr(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """Return a jaxpr and the values of its constants.

    jax 0.12 merged `ClosedJaxpr` into `Jaxpr`, which has `consts` itself.
    """
    if hasattr(jaxpr, "jaxpr"):
        return jaxpr.jaxpr, jaxpr.consts
    return jaxpr, getattr(jaxpr, "consts", ())


def run_as_traced(evaluator: Evaluator, step: Step, values: list[Any]) -> Any:
    """Run an equation whose parameters do not depend on the sizes of its operands."""
    del evaluator
    return bind(step.equation, *values)


def bind(equation: type_aliases.Equation, *values: Any, **changes: Any) -> Any:
    """Apply an equation's primitive to other values, with some parameters changed.

    The values are not sharded in Explicit mode, and a smaller result may have a length
    that the devices do not divide, so a sharding of the result is left out.
    """
    primitive = equation.primitive
    unsharded = {
        name: None for name in ("out_sharding", "sharding") if name in equation.params
    }
    params = primitive.get_bind_params({**equation.params, **unsharded, **changes})
    return primitive.bind(*values, **params)
