"""Compile functions and time them in turns: A B C A B C ...

So what else the machine does slows all of them alike. Nothing is asserted.
"""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import rich.console
from environment import available_bytes
from weights import Size

DTYPES = {"f32": jnp.float32, "bf16": jnp.bfloat16}
RESULTS = Path(__file__).parent / "results"
# A normal random number takes this much memory in the making.
BYTES_TO_MAKE_ONE = 20


@dataclasses.dataclass(frozen=True)
class Config:
    """Entries to time, and number of repeats."""

    size: Size = "4.3M"
    """4.3M: ResNet-20 with 64 maps. 4.1M: 1,000 leaves of 64 x 64. 25.6M: ResNet-50.
    1G: a transformer. What does not fit in memory is left out."""
    dtype: Literal["f32", "bf16"] = "f32"
    """Type of the weights, the gradients and the optimizer's moments."""
    sparsity: float = 0.9
    """Fraction of the weights that is selected."""
    repeats: int = 21
    """Number of times that each entry is timed."""
    seconds_per_entry: float = 30.0
    """An entry that has taken so long is not timed again."""
    only: tuple[str, ...] = ()
    """Only the entries of these names, and those they are compared with."""
    out: Path = RESULTS
    """Folder for the JSON file."""


@dataclasses.dataclass
class Entry:
    """Something to time: `function(*carried, *given)`."""

    name: str
    function: Callable[..., Any]
    given: tuple[Any, ...] = ()
    carried: Callable[[], tuple[Any, ...]] = tuple
    """Makes the first arguments. They are donated, and each call's results take their
    place: an optimizer's step, followed by the next one."""
    compared_with: tuple[str, ...] = ()
    """Names of entries: the fastest of them is what this one is measured by."""
    steps: int = 1
    """Timed together, and reported each."""
    on_host: bool = False
    """NumPy: nothing to compile."""
    hidden_bytes: int = 0
    """Temporary memory that the compiler's own analysis does not count."""

    call: Callable[..., Any] | None = None
    state: tuple[Any, ...] = ()
    result: Any = None
    compile_seconds: float = 0.0
    temp_bytes: int = 0
    needed_bytes: int = 0
    first_seconds: float = math.nan
    samples: list[float] = dataclasses.field(default_factory=list)
    failure: str | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Further fields of the report."""

    def compile(self) -> None:
        """Trace, lower and compile, before there is any memory taken."""
        if self.on_host:
            self.call, self.needed_bytes = self.function, self.temp_bytes
            return
        carried = jax.eval_shape(self.carried)
        start = time.perf_counter()
        jitted = jax.jit(self.function, donate_argnums=range(len(carried)))
        self.call = jitted.lower(*carried, *self.given).compile()
        self.compile_seconds = time.perf_counter() - start
        analysis = self.call.memory_analysis()
        if analysis is not None:
            self.temp_bytes = analysis.temp_size_in_bytes
            self.needed_bytes = analysis.temp_size_in_bytes
            self.needed_bytes += max(
                analysis.output_size_in_bytes - analysis.alias_size_in_bytes, 0
            )

    def carried_bytes(self) -> int:
        """Return the memory of the first arguments, and that to make the largest."""
        shapes = jax.tree.leaves(jax.eval_shape(self.carried))
        largest = max((math.prod(leaf.shape) for leaf in shapes), default=0)
        held = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in shapes)
        return held + BYTES_TO_MAKE_ONE * largest

    def time(self) -> float:
        """Seconds for one step, of as many as are timed together."""
        assert self.call is not None
        jax.block_until_ready((self.state, self.given))
        start = time.perf_counter()
        for _ in range(self.steps):
            self.result = self.call(*self.state, *self.given)
            if self.state:
                self.state = self.result
        jax.block_until_ready(self.result)
        return (time.perf_counter() - start) / self.steps

    def times(self) -> list[float]:
        """Return the samples, or the first time if it took too long to repeat."""
        return self.samples or [self.first_seconds]

    def median(self) -> float:
        return statistics.median(self.times())

    def may_repeat(self, config: Config) -> bool:
        spent = self.steps * (self.first_seconds + sum(self.samples))
        return not self.failure and spent < config.seconds_per_entry


def chosen(entries: Sequence[Entry], config: Config) -> list[Entry]:
    """Return the entries that are to be timed, with those they are compared with.

    Raises:
      ValueError: if there is none of a name.
    """
    known = [entry.name for entry in entries]
    if unknown := set(config.only) - set(known):
        raise ValueError(f"only must be among {known}; got {sorted(unknown)}")
    if not config.only:
        return list(entries)
    bases = {
        base
        for each in entries
        if each.name in config.only
        for base in each.compared_with
    }
    return [each for each in entries if each.name in bases | set(config.only)]


def measure(
    entries: Sequence[Entry], config: Config, console: rich.console.Console
) -> None:
    """Compile every entry, run it once, then time all of them in turns."""
    # A program found in a cache has not been compiled; the first one has more to do.
    jax.config.update("jax_enable_compilation_cache", False)
    jax.jit(lambda x: x + 1).lower(jnp.zeros(())).compile()
    reserve = 0  # what the entries so far need in passing, one at a time
    with console.status("") as status:
        for entry in entries:
            status.update(f"Compiling: {entry.name}")
            try:
                entry.compile()
                reserve = max(reserve, _reserved(entry, reserve))
                entry.state = entry.carried()
                entry.first_seconds = entry.time()
            except (jax.errors.JaxRuntimeError, MemoryError) as error:
                entry.failure = str(error).splitlines()[0]
                entry.state = ()
        for repeat in range(config.repeats):
            for entry in entries:
                if entry.may_repeat(config):
                    name = f"{repeat + 1} of {config.repeats}, {entry.name}"
                    status.update(f"Timing: {name}")
                    entry.samples.append(entry.time())


def _reserved(entry: Entry, reserve: int) -> int:
    """Return the temporary memory of the entry; MemoryError if it does not fit."""
    room = available_bytes()
    needed = entry.needed_bytes + entry.hidden_bytes
    wanted = entry.carried_bytes() + max(reserve, needed)
    if room is not None and wanted > room:
        raise MemoryError(
            f"needs {wanted / 1e9:.2f} GB where {room / 1e9:.2f} are free"
        )
    return needed
