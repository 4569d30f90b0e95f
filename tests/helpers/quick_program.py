"""The experiment runner's program, compiled quickly."""

from experiments.training import Program
from tests.helpers import quickly

DONATED = {
    "_start": (),
    "_batches": (),
    "_step": 0,
    "_epochs": 0,
    "_look": 0,
    "_end": (),
}


class QuickProgram(Program):
    """A `Program` of the same functions, which XLA optimizes less."""

    def __init__(self, task, run):
        super().__init__(task, run)
        for name, donated in DONATED.items():
            function = getattr(self, name).__wrapped__
            setattr(self, name, quickly.jit(function, donate_argnums=donated))
