"""Rules for transpose and rev."""

import numpy as np

from swd_jax._coupling import type_aliases
from swd_jax._coupling.axis_labels import Labels
from swd_jax._coupling.coupling_analysis import CouplingAnalysis
from swd_jax._coupling.rules.rule_interface import (
    Rule,
    param,
    result_shape,
    run_as_traced,
)


def _label_transpose(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> Labels:
    del analysis
    new_dims = {old: new for new, old in enumerate(param(equation, "permutation"))}
    return inputs[0].move_axes(new_dims, result_shape(equation))


def _label_rev(
    analysis: CouplingAnalysis, equation: type_aliases.Equation, inputs: list[Labels]
) -> Labels:
    del analysis
    reversed_dims = set(param(equation, "dimensions"))
    blocks = {
        key: np.flip(
            ids, tuple(axis for axis, dim in enumerate(key) if dim in reversed_dims)
        )
        for key, ids in inputs[0].blocks.items()
    }
    return inputs[0].replace(blocks=blocks)


RULES = {
    "transpose": Rule(_label_transpose, run_as_traced),
    "rev": Rule(_label_rev, run_as_traced),
}
