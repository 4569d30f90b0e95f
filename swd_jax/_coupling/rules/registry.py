"""One rule for each primitive: its labels, and how it runs at other sizes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from swd_jax._coupling import array_types
from swd_jax._coupling.analysis_record import Frame
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.label_operations import Context


class Run(Protocol):
    """What a rule may ask for when the program runs at the sizes that are left."""

    def kept(self, labels: Labels, dim: int) -> array_types.Bools:
        """Which positions along an axis are kept."""
        ...

    def filled(self, value: Any, labels: Labels, dims: Sequence[int]) -> Any:
        """The array with uniform axes at their full size, where it is stored as 1."""
        ...

    def call(self, jaxpr: Any, frame: Frame, arguments: Sequence[Any]) -> list[Any]:
        """Run a jaxpr that an equation calls."""
        ...

    @property
    def frames(self) -> list[Frame]:
        """Of the jaxprs that the equation at work calls."""
        ...


class Step(NamedTuple):
    """One equation of the program, to run."""

    equation: array_types.Equation
    inputs: list[Labels]
    outputs: list[Labels]


LabelRule: TypeAlias = Callable[
    [Context, array_types.Equation, list[Labels]], list[Labels] | Labels
]
RunRule: TypeAlias = Callable[[Run, Step, list[Any]], list[Any] | Any]


class Rule(NamedTuple):
    """What is known of a primitive."""

    labels: LabelRule
    run: RunRule


RULES: dict[str, Rule] = {}


def register(names: str, labels: LabelRule, run: RunRule) -> None:
    """Add the rule for some primitives, named in one string."""
    for name in names.split():
        RULES[name] = Rule(labels, run)


def opened(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """A jaxpr and the values of its constants.

    From jax 0.12 on, a jaxpr has its constants itself.
    """
    if hasattr(jaxpr, "jaxpr"):
        return jaxpr.jaxpr, jaxpr.consts
    return jaxpr, getattr(jaxpr, "consts", ())


def bind(equation: array_types.Equation, *values: Any, **changes: Any) -> Any:
    """Apply an equation's primitive to other values."""
    primitive = equation.primitive
    parameters = primitive.get_bind_params({**equation.params, **changes})
    return primitive.bind(*values, **parameters)
