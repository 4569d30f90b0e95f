"""`cost_report`: counted and measured cost of a model before and after `shrink`."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun

from swd_jax._arguments import text_tables, validation
from swd_jax._arguments.short_text import shown
from swd_jax._arrays import explicit_sharding, tree_paths
from swd_jax._coupling import find_channel_groups
from swd_jax._coupling.channel_groups import ChannelGroups, get_analysis
from swd_jax._shrinking import channels_to_positions, shrink_model
from swd_jax._shrinking.example_inputs import example_like


@dataclasses.dataclass(frozen=True)
class ModelCost:
    """Cost of a model."""

    parameters: int
    """Number of parameters, by `ChannelGroups.parameters`."""
    bytes: int
    """Size of all arrays among the parameters, with running statistics."""
    flops: int
    """Number of operations for the example arguments, by `ChannelGroups.flops`."""
    xla_flops: float | None
    """Number of operations by XLA's cost analysis of the program, which counts
    elementwise operations too; None on backends without that analysis."""
    milliseconds: float
    """Median latency of the compiled program."""


@dataclasses.dataclass(frozen=True)
class CostReport:
    """Cost of a model before and after `shrink`. Print it, or log `as_dict()`."""

    before: ModelCost
    after: ModelCost
    device: str
    """Kind of the device that the latency was measured on."""

    @property
    def speedup(self) -> float:
        """Latency of the whole model over that of the smaller one."""
        return self.before.milliseconds / self.after.milliseconds

    def as_dict(self) -> dict[str, float]:
        """The report with flat names, such as "after/flops", for a logger."""
        numbers: dict[str, float] = {"speedup": self.speedup}
        for prefix, cost in (("before", self.before), ("after", self.after)):
            for name, value in dataclasses.asdict(cost).items():
                if value is not None:
                    numbers[f"{prefix}/{name}"] = float(value)
        return numbers

    def __str__(self) -> str:
        rows = [("", "before", "after", "left", "times less")]
        for title, name, spec in _ROWS:
            before, after = getattr(self.before, name), getattr(self.after, name)
            if before is None or after is None:
                continue
            share = f"{after / before:.1%}" if before else ""
            ratio = f"{before / after:.2f}" if after else ""
            cells = format(before, spec), format(after, spec), share, ratio
            rows.append((title, *cells))
        table = text_tables.format_table(rows, label_columns=1)
        return f"{table}\n\nlatency measured on {self.device}"


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
    """Count and measure the cost of a model before and after `shrink`.

    Both models are compiled for the default device and run in turns, so that other load
    on the machine affects both. The first run of each does not count.

    Args:
      apply: the model, as given to `shrink`.
      params: its parameters, arrays.
      small: the result of `shrink`.
      example_args: the model's other arguments, or their shapes. Floating-point arrays
        are replaced by random numbers, and shapes of other types by zeros.
      runs: number of runs of each model that are measured, at least 1.

    Returns:
      A `CostReport`; its `str` is a table.

    Raises:
      ValueError: if the model cannot be traced, parameters are shapes only or not those
        of the model that was shrunk, or `runs` is no positive number.

    Where it stands: after `shrink`.

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
    validation.as_step_count("runs", runs, minimum=1)
    if not isinstance(small, shrink_model.Shrunk):
        raise ValueError(
            "small must be what shrink(...) returns, got "
            f"{shown(small)}. The arguments are (apply, params, small, *example_args)"
        )
    flat = tree_paths.flatten(params)
    channels_to_positions.check_shapes(small.groups, flat, "params")
    arguments = jax.tree.map(example_like, tuple(example_args))
    groups = find_channel_groups.groups_of_model(small.groups, apply, params, arguments)
    small_groups = find_channel_groups.channel_groups(
        small.apply, small.params, *arguments, tied=groups.tied
    )
    models = [
        _count_and_compile(groups, params, arguments),
        _count_and_compile(small_groups, small.params, arguments),
    ]
    latencies: list[list[float]] = [[], []]
    for _ in range(runs + 1):
        for model, milliseconds in zip(models, latencies, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(model.compiled(*model.inputs))
            milliseconds.append(1e3 * (time.perf_counter() - start))
    before, after = (
        dataclasses.replace(
            model.cost, milliseconds=statistics.median(milliseconds[1:])
        )
        for model, milliseconds in zip(models, latencies, strict=True)
    )
    return CostReport(before, after, jax.devices()[0].device_kind)


@dataclasses.dataclass(frozen=True)
class _CompiledModel:
    cost: ModelCost
    compiled: Any
    inputs: Sequence[Any]


def _count_and_compile(
    groups: ChannelGroups, params: Any, arguments: Sequence[Any]
) -> _CompiledModel:
    """Compile the program that the channel groups were found in, and count its cost."""
    arrays = []
    for _, path, leaf in tree_paths.arrays(tree_paths.flatten(params)):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            raise ValueError(
                f"params must be arrays to measure what they cost, and at {path!r} "
                "there is only a shape"
            )
        arrays.append(leaf)
    leaves = [leaf for leaf in jax.tree.leaves(arguments) if tree_paths.is_array(leaf)]
    inputs = [
        explicit_sharding.replicate(jnp.asarray(leaf)) for leaf in (*arrays, *leaves)
    ]
    analysis: find_channel_groups.Analysis = get_analysis(groups)
    lowered = jax.jit(jaxpr_as_fun(analysis.jaxpr)).lower(*inputs)
    # Analysed before compilation, because XLA's cost analysis of a compiled program
    # does not count convolutions that call a library (cuDNN, oneDNN).
    xla_costs = lowered.cost_analysis() or {}
    return _CompiledModel(
        ModelCost(
            parameters=groups.parameters(),
            bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in arrays),
            flops=groups.flops(),
            xla_flops=xla_costs.get("flops"),
            milliseconds=0.0,
        ),
        lowered.compile(),
        inputs,
    )
