"""Weights spread over eight devices: the same bits, and no weight crosses."""

import os
import subprocess
import sys
import textwrap

PROGRAM = """
    import math, re
    import jax, numpy as np, optax, swd_jax
    from jax.sharding import NamedSharding, PartitionSpec as P

    devices = np.array(jax.devices()).reshape(2, 4)
    mesh = jax.sharding.Mesh(devices, ("x", "y"))
    rng = np.random.default_rng(0)
    shapes = {"rows": (64, 128), "columns": (32, 64), "both": (8, 8, 32), "copies": (9, 7)}
    specs = {"rows": P("x"), "columns": P(None, "y"), "both": P("x", "y"), "copies": P()}
    # Ties everywhere, so that their order counts too.
    alone = {name: rng.normal(size=s).astype("f").round(1) for name, s in shapes.items()}
    spread = {
        name: jax.device_put(alone[name], NamedSharding(mesh, spec))
        for name, spec in specs.items()
    }

    def same(first, second):
        return all(
            np.array_equal(a, b)
            for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
        )

    for scope in ("global", "local"):
        target = swd_jax.Target(0.7, scope=scope)
        tx = swd_jax.swd(target, weight_decay=0.1, a=1.0)
        update = jax.jit(lambda params, state: tx.update(params, state, params))
        state = tx.init(alone)
        text = update.lower(spread, state).compile().as_text()
        for result in re.findall(r"= \\w+\\[([\\d,]*)\\]\\S* (?:all-|collective-)", text):
            assert math.prod(map(int, filter(None, result.split(",")))) <= 8, result
        updates, after = update(spread, state)
        assert same((updates, after), update(alone, state)), scope
        pruned = swd_jax.prune(spread, target)
        assert same(pruned, swd_jax.prune(alone, target)), scope
        for name, leaf in pruned.items():
            assert leaf.sharding.is_equivalent_to(spread[name].sharding, leaf.ndim), name
            wanted = spread[name].sharding
            assert updates[name].sharding.is_equivalent_to(wanted, leaf.ndim), name
    print("eight devices agree with one")
"""


def test_eight_devices_agree_with_one_and_exchange_counts_only():
    flags = os.environ.get("XLA_FLAGS", "")
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=8",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(PROGRAM)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "eight devices agree with one\n", done.stderr
