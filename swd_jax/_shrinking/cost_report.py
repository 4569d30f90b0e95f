"""What a model costs before and after it was shrunk: counted, and measured."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun

from swd_jax._arguments import text_tables, validation
from swd_jax._coupling import find_groups, trace_model
from swd_jax._shrinking import shrink_checks, shrink_model


@dataclasses.dataclass(frozen=True)
class ModelCost:
    """What a model costs."""

    parameters: int
    """As `ChannelGroups.parameters` counts them."""
    bytes: int
    """Of all arrays among the parameters, running statistics too."""
    flops: int
    """As `ChannelGroups.flops` counts them, for the example arguments."""
    xla_flops: float | None
    """What XLA's cost analysis of the program says, where it says something. It counts
    element by element operations as well."""
    milliseconds: float
    """Median latency of the compiled program."""


@dataclasses.dataclass(frozen=True)
class CostReport:
    """What a model costs before and after. Print it, or log `as_dict()`."""

    before: ModelCost
    after: ModelCost
    device: str
    """On which the latency was measured."""

    @property
    def speedup(self) -> float:
        """How many times faster the smaller model is."""
        return self.before.milliseconds / self.after.milliseconds

    def as_dict(self) -> dict[str, float]:
        """The report as flat names and floats, for a logger."""
        found: dict[str, float] = {"speedup": self.speedup}
        for name, cost in (("before", self.before), ("after", self.after)):
            for what, value in dataclasses.asdict(cost).items():
                if value is not None:
                    found[f"{name}/{what}"] = float(value)
        return found

    def __str__(self) -> str:
        rows = [("", "before", "after", "left", "times less")]
        for what, name, form in _ROWS:
            before, after = getattr(self.before, name), getattr(self.after, name)
            if before is None or after is None:
                continue
            share = f"{after / before:.1%}" if before else ""
            times = f"{before / after:.2f}" if after else ""
            rows.append((what, format(before, form), format(after, form), share, times))
        return (
            f"{text_tables.table(rows, names=1)}\n\nlatency measured on {self.device}"
        )


_ROWS = (
    ("parameters", "parameters", ","),
    ("bytes", "bytes", ","),
    ("FLOPs", "flops", ","),
    ("FLOPs by XLA", "xla_flops", ",.0f"),
    ("latency in ms", "milliseconds", ".3f"),
)


def cost_report(
    apply: Callable[..., Any],
    params: Any,
    small: shrink_model.Shrunk,
    *example_args: Any,
    runs: int = 20,
) -> CostReport:
    """Count and measure what a model costs before and after `shrink`.

    Both are compiled for the default device and run in turn, so that what else a
    machine does meets both alike. One run of each is not counted.

    Args:
      apply: the model, as given to `shrink`.
      params: its parameters, arrays.
      small: what `shrink` gave.
      example_args: the model's other arguments, or their shapes: of these random
        numbers are made, which are zeros where they are whole.
      runs: how often each is measured.

    Returns:
      A `CostReport`; its `str` is a table.

    Raises:
      ValueError: if the model cannot be traced, parameters are shapes only, or `runs`
        is no positive number.

    Examples:
      >>> import jax, jax.numpy as jnp, swd_jax
      >>> def model(params, x):
      ...     return jax.nn.relu(x @ params["first"]) @ params["second"]
      >>> params = {"first": jnp.ones((4, 16)), "second": jnp.ones((16, 3))}
      >>> x = jnp.ones((2, 4))
      >>> groups = swd_jax.channels.channel_groups(model, params, x)
      >>> small = swd_jax.channels.shrink(
      ...     model, params, groups, [[True] * 4 + [False] * 12], x
      ... )
      >>> report = swd_jax.channels.cost_report(model, params, small, x)
      >>> report.before.parameters, report.after.parameters
      (112, 28)
      >>> report.before.flops, report.after.flops
      (448, 112)
    """
    validation.check_step_count("runs", runs, least=1)
    arguments = jax.tree.map(shrink_checks.made_up, tuple(example_args))
    models = [(apply, params), (small.apply, small.params)]
    counted = [_counted(*model, arguments) for model in models]
    times: list[list[float]] = [[], []]
    for _ in range(runs + 1):
        for model, taken in zip(counted, times, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(model.compiled(*model.inputs))
            taken.append(1e3 * (time.perf_counter() - start))
    before, after = (
        dataclasses.replace(model.cost, milliseconds=statistics.median(taken[1:]))
        for model, taken in zip(counted, times, strict=True)
    )
    return CostReport(before, after, jax.devices()[0].device_kind)


@dataclasses.dataclass(frozen=True)
class _Counted:
    cost: ModelCost
    compiled: Any
    inputs: Sequence[Any]


def _counted(
    apply: Callable[..., Any], params: Any, arguments: Sequence[Any]
) -> _Counted:
    groups = find_groups.channel_groups(apply, params, *arguments)
    program = trace_model.trace(apply, params, arguments)
    arrays = [leaf for *_, leaf in program.entries]
    for _, path, leaf in program.entries:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            raise ValueError(
                f"params must be arrays to measure what they cost, and at {path!r} "
                "there is only a shape"
            )
    inputs = [*map(jnp.asarray, arrays), *map(jnp.asarray, program.inputs)]
    lowered = jax.jit(jaxpr_as_fun(program.jaxpr_with_constants)).lower(*inputs)
    # Of the program before it is compiled: libraries that compute a convolution do not
    # tell what it costs.
    analysis = lowered.cost_analysis() or {}
    return _Counted(
        ModelCost(
            parameters=groups.parameters(),
            bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in arrays),
            flops=groups.flops(),
            xla_flops=analysis.get("flops"),
            milliseconds=0.0,
        ),
        lowered.compile(),
        inputs,
    )
