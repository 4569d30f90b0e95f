"""Operations into which no rule looks: random numbers, and what is not understood."""

from typing import Any

from swd_jax._coupling import array_types, axis_labels
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.label_operations import Context
from swd_jax._coupling.rules.registry import Run, Step, bind, register
from swd_jax._coupling.rules.slicing import selected


def _random_bits(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> Labels:
    del inputs
    # Random numbers go with what they are used for: they are made for the full size,
    # and cut.
    shape = equation.outvars[0].aval.shape
    blocks = {
        (dim,): context.atoms.fresh(size) for dim, size in enumerate(shape) if size > 1
    }
    return Labels(shape, blocks)


def _run_random_bits(run: Run, step: Step, values: list[Any]) -> Any:
    [result] = step.outputs
    bits = bind(step.equation, *values)
    for dim in range(result.rank):
        kept = run.kept(result, dim)
        if not kept.all():
            bits = selected(bits, kept, dim)
    return bits


def unknown(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> list[Labels]:
    """Freeze everything that an operation without a rule takes."""
    why = "goes into an operation that is not understood"
    for labels in inputs:
        context.freeze(labels, why)
    data = any(labels.data for labels in inputs)
    return [
        axis_labels.fixed(getattr(variable.aval, "shape", ()), data=data)
        for variable in equation.outvars
    ]


def run_unknown(run: Run, step: Step, values: list[Any]) -> Any:
    """Run it as it was: nothing that it takes has changed its size."""
    filled = [
        run.filled(value, labels, range(labels.rank))
        for value, labels in zip(values, step.inputs, strict=True)
    ]
    return bind(step.equation, *filled)


register("random_bits", _random_bits, _run_random_bits)
