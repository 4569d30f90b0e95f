"""Evaluation of a traced program with some of the channels."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from swd_jax._coupling import propagate_labels, type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import Frame
from swd_jax._coupling.rules import all_rules, fallback, rule_interface


class SizedEvaluator(rule_interface.Evaluator):
    """Runs jaxprs whose labels are known on arrays that have the kept positions only.

    An evaluator has no mutable state, so several threads can share one.
    """

    def __init__(self, kept_atoms: type_aliases.Bools) -> None:
        """Store which atoms are kept, shape (atoms,)."""
        self._kept_atoms = kept_atoms

    def kept_positions(self, labels: Labels, dim: int) -> type_aliases.Bools:
        """Return which positions along an axis are kept.

        A position of a block with several axes is kept if any of its atoms is, because
        a cut along another axis removes only some of them.
        """
        key = labels.block_key(dim)
        if key is None:
            size = labels.shape[dim]
            # All of an unknown number of positions are kept.
            return np.ones(1 if jax.export.is_symbolic_dim(size) else size, np.bool_)
        ids = labels.blocks[key]
        kept_mask = (ids < 0) | self._kept_atoms[ids]
        axis = key.index(dim)
        rows = np.moveaxis(kept_mask, axis, 0).reshape(ids.shape[axis], -1)
        return np.asarray(rows.any(axis=1))

    def kept_size(self, labels: Labels, dim: int) -> Any:
        """Return the number of kept positions; the size, if the axis has no atoms."""
        if labels.block_key(dim) is None:
            return labels.shape[dim]
        return int(self.kept_positions(labels, dim).sum())

    def broadcast_to_full(self, value: Any, labels: Labels, dims: Sequence[int]) -> Any:
        """Broadcast the broadcast axes among `dims` from size 1 to their full size."""
        sizes = list(jnp.shape(value))
        for dim in labels.broadcast_axes.intersection(dims):
            sizes[dim] = labels.shape[dim]
        return jnp.broadcast_to(value, sizes)

    def run(self, jaxpr: Any, frame: Frame, arguments: Sequence[Any]) -> list[Any]:
        """Run a jaxpr.

        Args:
          jaxpr: the program.
          frame: the labels of everything in it.
          arguments: one array for each of its arguments, with the kept positions.
        """
        program, constants = rule_interface.unwrap_closed_jaxpr(jaxpr)
        values: dict[Any, Any] = {}
        for variable, value in zip(program.constvars, constants, strict=True):
            values[variable] = self._take_kept(value, frame.labels[variable])
        values.update(zip(program.invars, arguments, strict=True))
        for number, equation in enumerate(program.eqns):
            if number in frame.unused:
                continue
            step = rule_interface.Step(
                equation,
                [propagate_labels.read(frame.labels, atom) for atom in equation.invars],
                [frame.labels[variable] for variable in equation.outvars],
                frame.called.get(number, ()),
            )
            if number in frame.unsupported:
                run = fallback.run_unsupported
            else:
                run = all_rules.RULES[equation.primitive.name].run
            results = run(self, step, [_read(values, atom) for atom in equation.invars])
            if not isinstance(results, list | tuple):
                results = [results]
            values.update(zip(equation.outvars, results, strict=True))
        return [_read(values, atom) for atom in program.outvars]

    def _take_kept(self, value: Any, labels: Labels) -> Any:
        for dim in range(labels.rank):
            kept_mask = self.kept_positions(labels, dim)
            if not kept_mask.all():
                value = jnp.take(value, np.flatnonzero(kept_mask), axis=dim)
        return value


def _read(values: Mapping[Any, Any], atom: Any) -> Any:
    return atom.val if isinstance(atom, Literal) else values[atom]
