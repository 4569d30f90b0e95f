"""Position of an analysis in the traced program, for reasons and costs."""

import contextlib
import os
import re
from collections.abc import Generator

from swd_jax._coupling import type_aliases

_LIBRARIES = re.compile(r"/(jax|flax|equinox|haiku|swd_jax)/")


class ProgramPosition:
    """Current equation, its source line, and how often the program runs it.

    All methods are context managers and restore the position when they exit, also after
    an exception.
    """

    def __init__(self) -> None:
        self.description = ""
        """Primitive and source line of the current equation, for reasons."""
        self.num_runs = 1
        """The number of times that the equation runs, by the lengths of the scans."""
        self._line = self._line_of_call = ""

    @contextlib.contextmanager
    def equation(self, equation: type_aliases.Equation) -> Generator[None, None, None]:
        """Enter an equation.

        An equation inside one of jax's own jitted functions has no line of the user's
        code in its traceback, so it takes the line of the call.
        """
        outer = self.description, self._line
        self._line = _source_line(equation) or self._line_of_call
        name = equation.primitive.name
        self.description = f"{name}, {self._line}" if self._line else name
        try:
            yield
        finally:
            self.description, self._line = outer

    @contextlib.contextmanager
    def called_jaxpr(self) -> Generator[None, None, None]:
        """Enter a jaxpr that the current equation calls."""
        outer, self._line_of_call = self._line_of_call, self._line
        try:
            yield
        finally:
            self._line_of_call = outer

    @contextlib.contextmanager
    def repeated(self, length: int) -> Generator[None, None, None]:
        """Enter the body of a loop that runs `length` times."""
        outer, self.num_runs = self.num_runs, self.num_runs * length
        try:
            yield
        finally:
            self.num_runs = outer


def _source_line(equation: type_aliases.Equation) -> str:
    """Return "file:line" of the innermost frame in the user's code, or ""."""
    traceback = getattr(equation.source_info, "traceback", None)
    for frame in getattr(traceback, "frames", ()):
        if not _LIBRARIES.search(frame.file_name.replace("\\", "/")):
            return f"{os.path.basename(frame.file_name)}:{frame.line_num}"
    return ""
