"""Trains a small model on all devices of one process or several, and can be resumed.

Run by test_distributed.py and test_resume.py, in processes of its own. Every gradient
is that of one weight alone, so that no sum of floats depends on how many devices there
are.
"""

import argparse
import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec

import swd_jax

STEPS = 40


def make_step(tx: optax.GradientTransformation) -> Any:
    wanted = jax.random.normal(jax.random.key(1), (32, 64))

    @jax.jit
    def step(params: Any, state: Any) -> tuple[Any, Any]:
        def loss(params: Any) -> jax.Array:
            far = jnp.sum((params["kernel"] - wanted) ** 2)
            return far + jnp.sum(jnp.cos(params["scale"]))

        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    return step


def digest(tree: Any) -> str:
    """A fingerprint of all bits, also of those that other processes have."""
    whole = jax.jit(lambda tree: tree, out_shardings=_replicated(tree))(tree)
    leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(whole)]
    return hashlib.sha256(b"".join(leaves)).hexdigest()


def _replicated(tree: Any) -> Any:
    [mesh] = {leaf.sharding.mesh for leaf in jax.tree.leaves(tree)}
    return jax.tree.map(lambda leaf: NamedSharding(mesh, PartitionSpec()), tree)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mesh", type=int, nargs=2, default=(2, 4))
    parser.add_argument("--process", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--port", type=int)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--sparsify", action="store_true")
    given = parser.parse_args()
    if given.processes > 1:
        jax.distributed.initialize(
            f"127.0.0.1:{given.port}", given.processes, given.process
        )
    target = swd_jax.Target(
        swd_jax.cubic_sparsity(0.8, begin=0, end=30), criterion="normalized_magnitude"
    )
    mesh = jax.make_mesh(
        tuple(given.mesh), ("x", "y"), axis_types=(jax.sharding.AxisType.Auto,) * 2
    )
    decay = swd_jax.swd(
        target, weight_decay=5e-4, a=swd_jax.exponential_growth(10.0, 1e6, STEPS)
    )
    tx = optax.chain(decay, optax.adam(1e-2))
    if given.sparsify:
        tx = optax.chain(optax.adam(1e-2), swd_jax.sparsify(target, STEPS))
    columns = NamedSharding(mesh, PartitionSpec(None, ("x", "y")))
    everywhere = NamedSharding(mesh, PartitionSpec())

    def start() -> Any:
        params = {
            "kernel": jax.random.normal(jax.random.key(0), (32, 64)),
            "scale": jnp.ones(64),
        }
        return params, tx.init(params)

    shapes = jax.eval_shape(start)
    shardings = jax.tree.map(
        lambda leaf: columns if leaf.ndim == 2 else everywhere, shapes
    )
    first = 0
    manager = None
    if given.folder is not None:
        manager = ocp.CheckpointManager(given.folder.resolve())
        first = manager.latest_step() or 0
    if manager is not None and first:
        wanted = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=sharding
            ),
            shapes,
            shardings,
        )
        restored = manager.restore(first, args=ocp.args.StandardRestore(wanted))
    else:
        restored = jax.jit(start, out_shardings=shardings)()
    params, state = restored
    step = make_step(tx)
    for i in range(first, given.steps):
        # Simulated devices share a few threads: with two steps under way at once, each
        # may wait for threads that the other holds, for ever.
        params, state = jax.block_until_ready(step(params, state))
        if manager is not None:
            manager.save(i + 1, args=ocp.args.StandardSave((params, state)))
        print(f"step {i + 1}", flush=True)
    if manager is not None:
        manager.wait_until_finished()
        manager.close()
    assert params["kernel"].sharding.is_equivalent_to(columns, 2)
    mask = swd_jax.prune_mask(params, target)
    pruned = swd_jax.prune(params, target)
    by_hand = jax.jit(
        jax.shard_map(
            lambda part: swd_jax.prune(part, target, axis_name=("x", "y")),
            mesh=mesh,
            in_specs=({"kernel": columns.spec, "scale": everywhere.spec},),
            out_specs={"kernel": columns.spec, "scale": everywhere.spec},
        )
    )(params)
    assert digest(by_hand) == digest(pruned)
    # The mask is sharded over all processes: a step that closed over it would be
    # refused by jax.
    tuning = optax.chain(optax.sgd(0.1, momentum=0.9), swd_jax.keep_pruned(mask))
    fine_tuned, tuning_state = pruned, tuning.init(pruned)
    tuning_step = make_step(tuning)
    for _ in range(3):
        fine_tuned, tuning_state = jax.block_until_ready(
            tuning_step(fine_tuned, tuning_state)
        )
    held = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf != 0, tree))(fine_tuned)
    assert digest(held["kernel"]) == digest(mask["kernel"])
    assert digest(fine_tuned["kernel"]) != digest(pruned["kernel"])
    print("result", digest((params, state)), digest((mask, pruned)), flush=True)


if __name__ == "__main__":
    main()
