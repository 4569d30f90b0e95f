"""Compares random layouts on eight devices with one device, in a process of its own.

python tests/fuzz/sharded_program.py START COUNT
"""

import logging
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, PartitionSpec

sys.path.append(str(Path(__file__).parents[2]))

import swd_jax
from tests.fuzz import many_cases
from tests.fuzz.random_layouts import MESH, RandomSharding, spread_out

TREES = 5


def results(leaves: Any, target: swd_jax.Target, axis_name: Any = None) -> Any:
    tx = swd_jax.swd(target, weight_decay=1.0, a=1.0, axis_name=axis_name)
    zeros = jax.tree.map(lambda leaf: 0 * leaf, leaves)
    updates, state = tx.update(zeros, tx.init(leaves), leaves)
    thresholds = swd_jax.thresholds(leaves, target, axis_name=axis_name)
    mask = swd_jax.prune_mask(leaves, target, axis_name=axis_name)
    return (mask, updates), (thresholds, state.selection)


def check(case: RandomSharding) -> None:
    sizes, names = tuple(MESH.values()), tuple(MESH)
    mesh = jax.make_mesh(sizes, names, axis_types=(AxisType.Auto,) * len(names))
    target = case.target
    specs = case.specs
    alone = jax.jit(lambda leaves: results(leaves, target))
    spread = alone
    if case.by_hand:
        specs = case.first_axis_specs
        none = PartitionSpec()
        spread = jax.jit(
            jax.shard_map(
                lambda leaves: results(leaves, target, names),
                mesh=mesh,
                in_specs=(specs,),
                out_specs=((specs, specs), none),
            )
        )
    for number in range(TREES):
        leaves = case.leaves()
        expected = alone(leaves)
        # One after the other: simulated devices share a few threads.
        found = jax.block_until_ready(spread(spread_out(leaves, specs, mesh)))
        try:
            jax.tree.map(np.testing.assert_array_equal, found, expected)
        except AssertionError as error:
            error.add_note(f"tree {number}: {leaves}")
            raise


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    jax.config.update("jax_disable_most_optimizations", True)
    start, count = map(int, sys.argv[1:])
    many_cases.check_all(RandomSharding, check, range(start, start + count))
