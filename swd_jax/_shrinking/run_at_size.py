"""The program at the sizes that are left."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from swd_jax._coupling import array_types, propagate_labels
from swd_jax._coupling.analysis_record import Frame
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.rules import fallback, registry
from swd_jax._coupling.rules.registry import Step


class Evaluation:
    """Runs jaxprs whose labels are known, with a part of the channels."""

    def __init__(self, alive: array_types.Bools) -> None:
        self._alive = alive
        self._frames: list[Frame] = []

    @property
    def frames(self) -> list[Frame]:
        """Of the jaxprs that the equation at work calls."""
        return self._frames

    def kept(self, labels: Labels, dim: int) -> array_types.Bools:
        """Which positions along an axis are kept."""
        key = labels.block_of(dim)
        if key is None:
            return np.ones(labels.shape[dim], np.bool_)
        ids = labels.blocks[key]
        alive = (ids < 0) | self._alive[ids]
        axis = key.index(dim)
        rows = np.moveaxis(alive, axis, 0).reshape(ids.shape[axis], -1)
        return np.asarray(rows.any(axis=1))

    def filled(self, value: Any, labels: Labels, dims: Sequence[int]) -> Any:
        """The array with uniform axes at their full size, where it is stored as 1."""
        sizes = list(jnp.shape(value))
        for dim in labels.uniform.intersection(dims):
            sizes[dim] = labels.shape[dim]
        return jnp.broadcast_to(value, sizes)

    def cut(self, value: Any, labels: Labels) -> Any:
        """The positions of an array that are kept."""
        for dim in range(labels.rank):
            kept = self.kept(labels, dim)
            if not kept.all():
                value = jnp.take(value, np.flatnonzero(kept), axis=dim)
        return value

    def call(self, jaxpr: Any, frame: Frame, arguments: Sequence[Any]) -> list[Any]:
        """Run a jaxpr."""
        inside, constants = registry.opened(jaxpr)
        values: dict[Any, Any] = {}
        for variable, value in zip(inside.constvars, constants, strict=True):
            values[variable] = self.cut(value, frame.labels[variable])
        values.update(zip(inside.invars, arguments, strict=True))
        for number, equation in enumerate(inside.eqns):
            step = Step(
                equation,
                [propagate_labels.read(frame.labels, atom) for atom in equation.invars],
                [frame.labels[variable] for variable in equation.outvars],
            )
            outer, self._frames = self._frames, frame.inner[number]
            rule = propagate_labels.RULES.get(equation.primitive.name)
            run = fallback.run_unknown
            if rule is not None and number not in frame.opaque:
                run = rule.run
            results = run(self, step, [_value(values, a) for a in equation.invars])
            if not isinstance(results, list | tuple):
                results = [results]
            self._frames = outer
            values.update(zip(equation.outvars, results, strict=True))
        return [_value(values, atom) for atom in inside.outvars]


def _value(values: Mapping[Any, Any], atom: Any) -> Any:
    return atom.val if isinstance(atom, Literal) else values[atom]
