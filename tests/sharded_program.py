"""Compares eight devices with one. Run by test_sharding.py, in a process of its own."""

import math
import re

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import swd_jax

SHAPES = {"rows": (64, 128), "columns": (32, 64), "both": (8, 8, 32), "copies": (9, 7)}
SPECS = {
    "rows": PartitionSpec("x"),
    "columns": PartitionSpec(None, "y"),
    "both": PartitionSpec("x", "y"),
    "copies": PartitionSpec(),
}
MOST_NUMBERS_THAT_CROSS = 8  # a count, or a key, of each device


def weights():
    """The same numbers on one device and on eight, with ties everywhere."""
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("x", "y"))
    rng = np.random.default_rng(0)
    alone = {
        name: rng.normal(size=shape).astype(np.float32).round(1)
        for name, shape in SHAPES.items()
    }
    spread = {
        name: jax.device_put(alone[name], NamedSharding(mesh, spec))
        for name, spec in SPECS.items()
    }
    return alone, spread


def assert_same(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def assert_sharded_alike(first, second):
    for name, leaf in first.items():
        assert leaf.sharding.is_equivalent_to(second[name].sharding, leaf.ndim), name


def main():
    alone, spread = weights()
    normalized = {"criterion": swd_jax.normalized_magnitude}
    for options in ({}, {"scope": "local"}, normalized):
        target = swd_jax.Target(0.7, **options)
        tx = swd_jax.swd(target, weight_decay=0.1, a=1.0)
        update = jax.jit(lambda params, state, tx=tx: tx.update(params, state, params))
        state = tx.init(alone)
        compiled = update.lower(spread, state).compile().as_text()
        crossing = re.findall(r"= \w+\[([\d,]*)\]\S* (?:all-|collective-)", compiled)
        assert crossing
        for shape in crossing:
            numbers = math.prod(int(length) for length in shape.split(",") if length)
            assert numbers <= MOST_NUMBERS_THAT_CROSS, shape
        updates, after = update(spread, state)
        assert_same((updates, after), update(alone, state))
        assert_sharded_alike(updates, spread)
        pruned = swd_jax.prune(spread, target)
        assert_same(pruned, swd_jax.prune(alone, target))
        assert_sharded_alike(pruned, spread)


if __name__ == "__main__":
    main()
