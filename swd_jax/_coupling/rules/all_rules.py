"""Table of the rules of all primitives that are supported."""

from collections.abc import Mapping

from swd_jax._coupling.rules import (
    broadcast_in_dim,
    concatenate,
    cond,
    convolutions,
    dynamic_slices,
    elementwise,
    function_calls,
    gather_scatter,
    iota,
    matrix_products,
    padding,
    pooling,
    random_bits,
    reductions,
    reshape,
    running_sums,
    scan,
    slicing,
    sorting,
    transpose,
)
from swd_jax._coupling.rules.rule_interface import Rule

RULES: Mapping[str, Rule] = {
    **broadcast_in_dim.RULES,
    **concatenate.RULES,
    **cond.RULES,
    **convolutions.RULES,
    **dynamic_slices.RULES,
    **elementwise.RULES,
    **function_calls.RULES,
    **gather_scatter.RULES,
    **iota.RULES,
    **matrix_products.RULES,
    **padding.RULES,
    **pooling.RULES,
    **random_bits.RULES,
    **reductions.RULES,
    **reshape.RULES,
    **running_sums.RULES,
    **scan.RULES,
    **slicing.RULES,
    **sorting.RULES,
    **transpose.RULES,
}
"""Rules by the name of the primitive."""
