"""Operations that run other programs: calls, loops, branches."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from swd_jax._coupling import array_types
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.label_operations import Context
from swd_jax._coupling.rules.elementwise import called
from swd_jax._coupling.rules.registry import Run, Step, opened, register


def _call(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> list[Labels]:
    return context.call(called(equation), inputs)


def _run_call(run: Run, step: Step, values: list[Any]) -> list[Any]:
    return run.call(called(step.equation), run.frames[0], values)


def _run_checkpoint(run: Run, step: Step, values: list[Any]) -> list[Any]:
    params = step.equation.params
    frame = run.frames[0]
    function = jax.checkpoint(
        lambda *inside: run.call(params["jaxpr"], frame, inside),
        prevent_cse=params["prevent_cse"],
        policy=params["policy"],
    )
    return function(*values)


def _scan(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> list[Labels]:
    params = equation.params
    constants, carried = _scan_parts(equation)
    data = any(labels.data for labels in inputs)
    fixed = inputs[:constants]
    carry = [
        context.materialised(labels).replaced(data=data)
        for labels in inputs[constants : constants + carried]
    ]
    stacked = [
        _one_of_many(context, labels) for labels in inputs[constants + carried :]
    ]
    times = context.times
    context.times *= params["length"]
    outputs = context.call(params["jaxpr"], [*fixed, *carry, *stacked])
    context.times = times
    results: list[Labels] = []
    for before, after in zip(carry, outputs[:carried], strict=True):
        dims = range(before.rank)
        before, _ = context.together(before, dims, after, dims)  # noqa: PLW2901
        results.append(before)
    for labels in outputs[carried:]:
        shape = (params["length"], *labels.shape)
        shifted = labels.moved({dim: dim + 1 for dim in range(labels.rank)}, shape)
        results.append(shifted.replaced(uniform=shifted.uniform - {0}))
    return results


def _scan_parts(equation: array_types.Equation) -> tuple[int, int]:
    """How many of the arguments are constants, and how many are carried."""
    params = equation.params
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    # From jax 0.12 on.
    constants, carried, _ = params["ft_in"].update(equation.invars).unpack()
    return len(list(constants)), len(list(carried))


def _one_of_many(context: Context, labels: Labels) -> Labels:
    """Labels of a slice along the first axis, of which every step takes one."""
    labels = context.frozen(labels, "stacked for a scan", [0])
    rest = range(1, labels.rank)
    return labels.moved({dim: dim - 1 for dim in rest}, labels.shape[1:])


def _run_scan(run: Run, step: Step, values: list[Any]) -> list[Any]:
    params = step.equation.params
    constants, carried = _scan_parts(step.equation)
    frame = run.frames[0]
    fixed = values[:constants]
    # As the results are: with the sizes that are left along every axis.
    carry = [
        _as_result(run, value, labels, result)
        for value, labels, result in zip(
            values[constants : constants + carried],
            step.inputs[constants : constants + carried],
            step.outputs[:carried],
            strict=True,
        )
    ]
    stacked = [
        run.filled(value, labels, [0])
        for value, labels in zip(
            values[constants + carried :],
            step.inputs[constants + carried :],
            strict=True,
        )
    ]

    def body(carry: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
        outputs = run.call(params["jaxpr"], frame, [*fixed, *carry, *slices])
        after = [
            jnp.broadcast_to(new, jnp.shape(old))
            for new, old in zip(outputs[:carried], carry, strict=True)
        ]
        return after, outputs[carried:]

    carry, results = lax.scan(
        body,
        carry,
        stacked,
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*carry, *results]


def _as_result(run: Run, value: Any, labels: Labels, result: Labels) -> Any:
    sizes = list(jnp.shape(value))
    for dim in labels.uniform - result.uniform:
        sizes[dim] = int(run.kept(result, dim).sum())
    return jnp.broadcast_to(value, sizes)


def _cond(
    context: Context, equation: array_types.Equation, inputs: list[Labels]
) -> list[Labels]:
    results: list[Labels] | None = None
    for branch in equation.params["branches"]:
        outputs = context.call(branch, inputs[1:])
        if results is None:
            results = outputs
        else:
            results = [
                context.merged(one, other)
                for one, other in zip(results, outputs, strict=True)
            ]
    return [labels.replaced(data=True, vanishes=False) for labels in results or []]


def _run_cond(run: Run, step: Step, values: list[Any]) -> list[Any]:
    branches = step.equation.params["branches"]
    dtypes = [variable.aval.dtype for variable in step.equation.outvars]

    def branch(number: int) -> Any:
        frame = run.frames[number]

        def function(*inside: Any) -> list[Any]:
            outputs = run.call(branches[number], frame, inside)
            results = opened(branches[number])[0].outvars
            labels = [
                frame.labels.get(variable, result)
                for variable, result in zip(results, step.outputs, strict=True)
            ]
            return [
                _as_result(run, jnp.asarray(value, dtype), own, result)
                for value, dtype, own, result in zip(
                    outputs, dtypes, labels, step.outputs, strict=True
                )
            ]

        return function

    index, *operands = values
    return lax.switch(index, [branch(n) for n in range(len(branches))], *operands)


register(
    "jit pjit closed_call core_call core_closed_call xla_call custom_lin",
    _call,
    _run_call,
)
register("checkpoint remat remat2", _call, _run_checkpoint)
register("scan", _scan, _run_scan)
register("cond", _cond, _run_cond)
