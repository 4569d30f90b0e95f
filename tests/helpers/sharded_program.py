"""Compares eight devices with one. Run by test_sharding.py, in a process of its own.

python tests/sharded_program.py WAY
"""

import dataclasses
import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import swd_jax
from swd_jax._arrays import row_chunks, uint64
from swd_jax._selection import count_below

sys.path.append(str(Path(__file__).parents[2]))
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import collectives

from tests.helpers import every_target as targets

SHAPES = {"rows": (64, 128), "columns": (32, 64), "both": (8, 8, 32), "copies": (9, 7)}
SHAPES["scale"] = (64,)  # which is not prunable
SPECS = {
    "rows": PartitionSpec("x"),
    "columns": PartitionSpec(None, "y"),
    "both": PartitionSpec("x", "y"),
    "copies": PartitionSpec(),
    "scale": PartitionSpec("x"),
}
TARGETS = [
    swd_jax.Target(0.7),
    swd_jax.Target(0.7, scope="local"),
    swd_jax.Target(0.7, criterion="normalized_magnitude"),
]
# Groups within a part and across parts, with edges, scopes, floors and statistics.
STRUCTURED = [
    swd_jax.Target(0.5, structure=swd_jax.NM(1, 2, axis=-2), scope="local"),
    swd_jax.Target(
        0.7, structure=swd_jax.Block((2, 4)), criterion="normalized_magnitude"
    ),
    swd_jax.Target(0.7, structure=swd_jax.Channel(-1), scope="local"),
    swd_jax.Target(0.7, structure=swd_jax.Block((None, 4), norm="l1"), min_kept=0.2),
    swd_jax.Target(0.7, structure=swd_jax.Channel(-2), scope={"o": 0.5}),
    swd_jax.Target(0.7, structure=swd_jax.Channel(-2), scope="erk"),
    swd_jax.Target(0.7, criterion="lamp"),
    swd_jax.Target(0.7, criterion=swd_jax.criteria.random_scores(3), min_kept=5),
]


def make_mesh(kind: AxisType) -> jax.sharding.Mesh:
    return jax.make_mesh((2, 4), ("x", "y"), axis_types=(kind, kind))


def random_weights(shapes: dict[str, tuple[int, ...]] = SHAPES) -> dict[str, Any]:
    """Rounded, so that there are ties everywhere."""
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(size=shape).astype(np.float32).round(1)
        for name, shape in shapes.items()
    }


def spread_out(
    weights: dict[str, Any],
    mesh: jax.sharding.Mesh,
    specs: dict[str, PartitionSpec] = SPECS,
) -> dict[str, Any]:
    return {
        name: jax.device_put(leaf, NamedSharding(mesh, specs[name.split("_")[0]]))
        for name, leaf in weights.items()
    }


def bytes_exchanged(function: Callable[..., Any], *arguments: Any) -> int:
    """What a compiled function all-reduces; it must exchange nothing in other ways."""
    exchanged = all_bytes_exchanged(function, *arguments)
    assert exchanged.keys() <= {"all-reduce"}, exchanged
    return sum(exchanged.values())


def all_bytes_exchanged(function: Callable[..., Any], *arguments: Any) -> dict:
    """What a compiled function exchanges, by the kind of collective."""
    return collectives.bytes_exchanged(function.lower(*arguments).compile().as_text())


def assert_same(first: Any, second: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, first, second)


def assert_sharded_alike(first: dict[str, Any], second: dict[str, Any]) -> None:
    for name, leaf in first.items():
        assert leaf.sharding.is_equivalent_to(second[name].sharding, leaf.ndim), name


def under_jit(kind: AxisType, targets: list[swd_jax.Target]) -> None:
    """Every function, on weights that the compiler knows to be divided."""
    alone = random_weights()
    spread = spread_out(alone, make_mesh(kind))
    for target in targets:
        tx = swd_jax.swd(target, weight_decay=0.1, a=1.0)

        @jax.jit
        def everything(params: Any, state: Any, tx: Any = tx, of: Any = target) -> Any:
            updates, state = tx.update(params, state, params)
            mask = swd_jax.prune_mask(params, of)
            return updates, state, swd_jax.prune(params, of), mask

        state = tx.init(alone)
        assert 0 < bytes_exchanged(everything, spread, state) < 65_536
        # One after the other, as in training below.
        found = jax.block_until_ready(everything(spread, state))
        expected = everything(alone, state)
        assert_same(found, expected)
        updates, state, pruned, mask = found
        for tree in (updates, pruned):
            assert_sharded_alike(tree, spread)
        assert all(
            scalar.sharding.is_fully_replicated for scalar in jax.tree.leaves(state)
        )

    # And outside of jit, where arrays say themselves how they are divided. What is
    # pruned, and what crosses, does not depend on the compiler's optimizations.
    jax.config.update("jax_disable_most_optimizations", True)
    for found, expected in [
        (swd_jax.prune(spread, target), pruned),
        (swd_jax.prune_mask(spread, target), mask),
    ]:
        assert_same(found, expected)
        assert_sharded_alike(found, spread)
    assert swd_jax.summarize(spread, target) == swd_jax.summarize(alone, target)
    tx = swd_jax.keep_pruned(mask)
    state = tx.init(pruned)
    assert_sharded_alike(state.mask, spread)
    hold = jax.jit(tx.update)
    assert bytes_exchanged(hold, spread, state, spread) == 0
    updates, _ = hold(pruned, state, pruned)
    assert_same(updates, pruned)
    assert_sharded_alike(updates, spread)
    rigl = swd_jax.methods.rigl(optax.identity(), 0.5, until=101)
    active = rigl.init(spread).active
    assert_same(active, rigl.init(alone).active)
    masks = {name: m for name, m in active.items() if isinstance(m, jax.Array)}
    assert masks
    assert_sharded_alike(masks, spread)


def by_hand() -> None:
    """Inside `shard_map`, with the axes named."""
    mesh = make_mesh(AxisType.Auto)
    alone = random_weights()
    axes = ("x", "y")

    def mapped(function: Callable[..., Any], *specs: Any, out: Any) -> Any:
        return jax.jit(
            jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out)
        )

    exchanged = set()
    for target in TARGETS:
        # Ties go by part first: nothing to compare where columns are divided.
        ties_alike = target.scope == "global"
        whole = swd_jax.swd(target, weight_decay=0.1, a=1.0)
        tx = swd_jax.swd(target, weight_decay=0.1, a=1.0, axis_name=axes)
        state = tx.init(alone)
        update = mapped(
            lambda params, state, tx=tx: tx.update(params, state, params),
            SPECS,
            PartitionSpec(),
            out=(SPECS, PartitionSpec()),
        )
        assert_same(update(alone, state), jax.jit(whole.update)(alone, state, alone))
        if target == TARGETS[0]:
            exchanged.add(bytes_exchanged(update, alone, state))

        prune = mapped(
            lambda params, target=target: swd_jax.prune(params, target, axis_name=axes),
            SPECS,
            out=SPECS,
        )
        expected = swd_jax.prune(alone, target)
        found = prune(alone)
        for name, leaf in expected.items():
            assert np.sum(found[name] == 0) == np.sum(leaf == 0), name
        if ties_alike:
            assert_same(found, expected)
        assert bytes_exchanged(prune, alone) < 65_536

    # However many weights and leaves there are, the same few numbers cross. How many
    # these are does not depend on the compiler's optimizations.
    jax.config.update("jax_disable_most_optimizations", True)
    larger = {name: (2 * shape[0], *shape[1:]) for name, shape in SHAPES.items()}
    more = {f"{name}_{i}": SHAPES[name] for name in SHAPES for i in range(10)}
    tx = swd_jax.swd(0.7, weight_decay=0.1, a=1.0, axis_name=axes)
    for shapes in (larger, more):
        specs = {name: SPECS[name.split("_")[0]] for name in shapes}
        weights = random_weights(shapes)
        update = mapped(
            lambda params, state: tx.update(params, state, params),
            specs,
            PartitionSpec(),
            out=(specs, PartitionSpec()),
        )
        exchanged.add(bytes_exchanged(update, weights, tx.init(weights)))
    [few] = exchanged
    assert 0 < few < 1024


def structures_by_hand() -> None:
    """Groups that lie within the parts of leaves; others are refused by name."""
    # Which weights are pruned does not depend on it.
    jax.config.update("jax_disable_most_optimizations", True)
    mesh, alone = make_mesh(AxisType.Auto), random_weights()
    weights = {name: alone[name] for name in ("rows", "columns")}
    specs = {name: SPECS[name] for name in weights}

    def mapped(target: swd_jax.Target) -> Callable[..., Any]:
        def prune(params: Any) -> Any:
            return swd_jax.prune(params, target, axis_name=("x", "y"))

        return jax.jit(
            jax.shard_map(prune, mesh=mesh, in_specs=(specs,), out_specs=specs)
        )

    for structure in (
        swd_jax.NM(2, 4, axis=-2),
        swd_jax.NM(1, 8, axis=-1),
        swd_jax.Block((4, 16)),
    ):
        # Unrounded, so that no blocks tie, which would go by part first.
        rng = np.random.default_rng(1)
        exact = {name: rng.normal(size=leaf.shape) for name, leaf in weights.items()}
        exact = {name: leaf.astype(np.float32) for name, leaf in exact.items()}
        target = swd_jax.Target(0.5, structure=structure)
        assert_same(mapped(target)(exact), swd_jax.prune(exact, target))
    for structure in (
        swd_jax.Channel(-1),
        swd_jax.Block((None, 2)),
        swd_jax.Block((3, 2)),
        swd_jax.NM(2, 5, axis=-2),
    ):
        message = rf"{re.escape(repr(structure))} has units that may extend.*'columns'"
        with pytest.raises(ValueError, match=message):
            mapped(swd_jax.Target(0.5, structure=structure))(weights)
    with pytest.raises(ValueError, match="scope 'erk' needs the shapes of whole"):
        mapped(swd_jax.Target(0.5, scope="erk"))(weights)


def structures(kind: AxisType, targets: list[swd_jax.Target]) -> None:
    """Groups that may lie on several devices, on weights known to be divided."""
    # What crosses, and which weights are selected, does not depend on it.
    jax.config.update("jax_disable_most_optimizations", True)
    alone = random_weights()
    spread = spread_out(alone, make_mesh(kind))
    for target in targets:
        tx = swd_jax.swd(target, weight_decay=0.1, a=1.0)
        update = jax.jit(lambda params, state, tx=tx: tx.update(params, state, params))
        state = tx.init(alone)
        exchanged = all_bytes_exchanged(update, spread, state)
        assert 0 < exchanged.pop("all-reduce") < 65_536
        # Scores of groups may be moved, a few percent of the weights; and LAMP sorts.
        if target.criterion != swd_jax.criteria.lamp:
            assert sum(exchanged.values()) <= 2048
        found = jax.block_until_ready(update(spread, state))
        assert_same(found, update(alone, state))
        pruned = jax.block_until_ready(swd_jax.prune(spread, target))
        assert_same(pruned, swd_jax.prune(alone, target))
        assert_sharded_alike(pruned, spread)


def for_tpus(targets: list[swd_jax.Target]) -> list[swd_jax.Target]:
    """The same in the forms that structures have there, a few rows at a time."""
    row_chunks._CHUNK_SIZE = 256
    return [
        dataclasses.replace(target, structure=target.structure.for_tpu())
        for target in targets
    ]


def explicit_structures() -> None:
    """Where the compiler is told how weights are divided."""
    structures(AxisType.Explicit, STRUCTURED[1:2])
    spread = spread_out(random_weights(), make_mesh(AxisType.Explicit))
    for structure in (swd_jax.NM(2, 4, axis=-2), swd_jax.Block((4, 4))):
        target = swd_jax.Target(0.5, structure=structure)
        message = r"(NM|Block).*would extend over.*'both' of shape \(8, 8, 32\)"
        with pytest.raises(ValueError, match=message):
            swd_jax.prune(spread, target)


def channels() -> None:
    """Coupled channels, through leaves that are divided in different ways."""
    jax.config.update("jax_disable_most_optimizations", True)  # as in structures

    def model(params: Any, x: jax.Array) -> jax.Array:
        hidden = jax.nn.relu(x @ params["rows"])
        return jax.nn.relu(hidden @ params["inner"]) @ params["columns"]

    shapes = {"rows": (64, 128), "inner": (128, 32), "columns": (32, 64)}
    specs = {**SPECS, "inner": PartitionSpec("y", "x")}
    alone = random_weights(shapes)
    groups = swd_jax.channels.channel_groups(model, alone, jnp.ones((2, 64)))
    assert [group.size for group in groups] == [128, 32]
    for kind, scope, multiple_of in (
        (AxisType.Auto, "global", 1),
        (AxisType.Explicit, "local", 8),
    ):
        spread = spread_out(alone, make_mesh(kind), specs)
        structure = swd_jax.CoupledChannels(groups, multiple_of=multiple_of)
        target = swd_jax.Target(0.6, structure=structure, scope=scope)
        tx = swd_jax.swd(target, weight_decay=0.1, a=1.0)
        update = jax.jit(lambda params, state, tx=tx: tx.update(params, state, params))
        state = tx.init(alone)
        # What crosses are the norms of rows and columns.
        assert sum(all_bytes_exchanged(update, spread, state).values()) < 65_536
        found = jax.block_until_ready(update(spread, state))
        assert_same(found, update(alone, state))
        assert_sharded_alike(found[0], spread)
        pruned = jax.block_until_ready(swd_jax.prune(spread, target))
        expected = swd_jax.prune(alone, target)
        assert any(
            (np.asarray(leaf) == 0).all(axis=0).any() for leaf in expected.values()
        )
        assert_same(pruned, expected)
        kept = jax.block_until_ready(swd_jax.channels.kept_channels(spread, target))
        assert_same(kept, swd_jax.channels.kept_channels(alone, target))
        check_cut(model, groups, alone, spread)


def check_cut(
    model: Callable[..., Any], groups: Any, alone: Any, spread: dict[str, jax.Array]
) -> None:
    """Cut channels out of sharded leaves, and out of an optimizer's state.

    The mesh has 2 x 4 devices. 56 of 128 channels are divided over 4 devices and over
    2; 7 of 32 over neither, so along them arrays are replicated.
    """
    x = jnp.ones((2, 64))
    kept = [np.arange(128) < 56, np.arange(32) % 4 == 0]
    kept[1][0] = False
    small = swd_jax.channels.shrink(model, spread, groups, kept, x)
    expected = {
        "rows": (alone["rows"][:, kept[0]], PartitionSpec("x", None)),
        "inner": (alone["inner"][kept[0]][:, kept[1]], PartitionSpec("y", None)),
        "columns": (alone["columns"][kept[1]], PartitionSpec(None, "y")),
    }
    state = swd_jax.channels.shrink_state(
        optax.sgd(0.1, 0.9).init(spread), groups, kept
    )
    for name, (array, spec) in expected.items():
        cut = small.params[name]
        np.testing.assert_array_equal(cut, array)
        for leaf in (cut, state[0].trace[name]):
            wanted = NamedSharding(spread[name].sharding.mesh, spec)
            assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim)
    outputs = small.apply(small.params, x)
    wanted = model({name: array for name, (array, _) in expected.items()}, x)
    np.testing.assert_allclose(outputs, wanted, rtol=1e-4, atol=1e-4)
    report = swd_jax.channels.cost_report(model, spread, small, x, runs=1)
    assert report.after.parameters == 64 * 56 + 56 * 7 + 7 * 64


def every_target(structure: str) -> None:
    """A structure with all criteria and scopes on eight devices."""
    # Which weights are pruned does not depend on it.
    jax.config.update("jax_disable_most_optimizations", True)
    mesh = make_mesh(AxisType.Auto)
    specs = {
        "conv": PartitionSpec(None, "x", None, "y"),
        "in": PartitionSpec("y", "x"),
        "out": PartitionSpec(("x", "y")),
    }
    for names in targets.EVERY:
        if names[0] == structure:
            for seed, dtype in ((1, np.float32), (2, ml_dtypes.bfloat16)):
                one_target(names, seed, dtype, mesh, specs)


def one_target(
    names: tuple[str, str, str], seed: int, dtype: Any, mesh: Any, specs: Any
) -> None:
    """What a target prunes of sharded leaves, next to brute force."""
    target = targets.target_of(*names)
    params, extra_args = targets.random_case(seed, dtype)
    extra_args = targets.needed(target, extra_args)
    spread = {
        name: {
            leaf: jax.device_put(array, NamedSharding(mesh, specs[leaf]))
            for leaf, array in tree.items()
        }
        for name, tree in {"params": params, **extra_args}.items()
    }
    found = swd_jax.prune_mask(
        spread["params"], target, extra_args={name: spread[name] for name in extra_args}
    )
    jax.block_until_ready(found)
    assert_same(found, targets.expected_masks(*names, params, extra_args))


def each_for_itself() -> None:
    """Inside `shard_map` without a name for the axes: each shard is pruned alone."""
    mesh = make_mesh(AxisType.Auto)
    rows = random_weights()["rows"]
    spec = PartitionSpec("x")
    prune = jax.shard_map(
        lambda part: swd_jax.prune(part, swd_jax.Target(0.7, prunable=".*")),
        mesh=mesh,
        in_specs=spec,
        out_specs=spec,
    )
    found = jax.jit(prune)(rows)
    expected = [swd_jax.prune(part, 0.7) for part in np.split(rows, 2)]
    assert_same(found, np.concatenate(expected))


def latents() -> None:
    """`sparsify`: its memory lies as the weights do, and no weight crosses.

    Its norms are sums of floats, which are rounded in another order.
    """
    # What crosses does not depend on it.
    jax.config.update("jax_disable_most_optimizations", True)
    alone = random_weights()
    rng = np.random.default_rng(2)
    updates = {
        name: 0.1 * rng.normal(size=leaf.shape).astype(np.float32)
        for name, leaf in alone.items()
    }
    axes, none = ("x", "y"), PartitionSpec()

    def step(tx: Any, params: Any, state: Any, updates: Any) -> Any:
        updates, state = tx.update(updates, state, params)
        return optax.apply_updates(params, updates), state

    local = swd_jax.Target(0.7, scope="local", min_kept=9)
    for target, kind in (
        (swd_jax.Target(0.7), AxisType.Auto),
        (local, AxisType.Explicit),
        (swd_jax.Target(0.7), "by hand"),
        (local, "by hand"),
    ):
        tx = swd_jax.sparsify(target, 2)
        mesh = make_mesh(AxisType.Auto if kind == "by hand" else kind)
        spread, moves = (spread_out(tree, mesh) for tree in (alone, updates))
        state = tx.init(spread)
        prunable = {
            name: leaf
            for name, leaf in state.memory.items()
            if not isinstance(leaf, optax.MaskedNode)
        }
        assert_sharded_alike(prunable, spread)
        function = jax.jit(functools.partial(step, tx))
        expected = function(alone, tx.init(alone), updates)
        if kind == "by hand":
            specs = jax.tree.map(lambda _: none, state)
            specs = specs._replace(
                memory=state.memory | {name: SPECS[name] for name in prunable}
            )
            named = swd_jax.sparsify(target, 2, axis_name=axes)
            mapped = jax.shard_map(
                functools.partial(step, named),
                mesh=mesh,
                in_specs=(SPECS, specs, SPECS),
                out_specs=(SPECS, specs),
            )
            function = jax.jit(mapped)
        assert 0 < bytes_exchanged(function, spread, state, moves) < 65_536
        spread, state = jax.block_until_ready(function(spread, state, moves))
        assert_sharded_alike(spread, moves)
        assert_sharded_alike({name: state.memory[name] for name in prunable}, moves)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-5),
            (spread, state),
            expected,
        )
        for name in prunable:
            assert_same(np.asarray(spread[name]) == 0, expected[0][name] == 0)
            assert np.any(spread[name] == 0)


def training() -> None:
    """A hundred steps on each of the layouts: the same bits at every one."""
    alone = random_weights()
    a = swd_jax.exponential_growth(0.1, 1e3, 100)
    # Powers of two and no sums over weights: whatever is fused, no bit can differ.
    tx = optax.chain(swd_jax.swd(0.7, weight_decay=2.0**-10, a=a), optax.sgd(2.0**-5))

    @jax.jit
    def step(params: Any, state: Any) -> tuple[Any, Any]:
        gradients = jax.tree.map(lambda w: 0.25 * (jnp.abs(w) - w), params)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    layouts = [alone]
    mesh = make_mesh(AxisType.Auto)
    for spec in (*SPECS.values(), None):
        specs = SPECS if spec is None else dict.fromkeys(SPECS, spec)
        fits = {
            name: spec if _divides(mesh, spec, SHAPES[name]) else PartitionSpec()
            for name, spec in specs.items()
        }
        layouts.append(
            {
                n: jax.device_put(w, NamedSharding(mesh, fits[n]))
                for n, w in alone.items()
            }
        )
    states = [tx.init(layout) for layout in layouts]
    for _ in range(100):
        pairs = zip(layouts, states, strict=True)
        # One after the other: simulated devices share a few threads, for which several
        # steps at once may wait for ever.
        stepped = [jax.block_until_ready(step(*pair)) for pair in pairs]
        layouts, states = map(list, zip(*stepped, strict=True))
        for layout, state in zip(layouts[1:], states[1:], strict=True):
            assert_same((layout, state), (layouts[0], states[0]))
    # And the weights did move, so there was something to agree on.
    assert np.abs(layouts[0]["rows"] - alone["rows"]).mean() > 0.1


def _divides(mesh: Any, spec: PartitionSpec, shape: tuple[int, ...]) -> bool:
    return len(spec) <= len(shape) and all(
        name is None or length % mesh.shape[name] == 0
        for name, length in zip(spec, shape, strict=False)
    )


def many_leaves() -> None:
    """Small leaves are not moved to be counted together."""
    jax.config.update("jax_disable_most_optimizations", True)  # as in structures
    # The library returns 64 counts at a time.
    numbers = {"rows": 65, "both": 65}
    shapes = {
        f"{name}_{i}": shape
        for name, shape in SHAPES.items()
        for i in range(numbers.get(name, 2))
    }
    keys = {
        name: (10 * np.abs(leaf)).astype(np.int32)
        for name, leaf in random_weights(shapes).items()
    }
    spread = [*spread_out(keys, make_mesh(AxisType.Auto)).values()]
    limits = jnp.arange(0, 20, 5)
    groups = (tuple(range(len(spread))),)
    count = jax.jit(lambda keys: count_below.tally(keys, groups, [limits]))
    assert 0 < bytes_exchanged(count, spread) < 65_536
    everything = np.concatenate([leaf.ravel() for leaf in keys.values()])
    below = count(spread).below[:, 0]
    expected = [(everything < limit).sum() for limit in (0, 5, 10, 15)]
    assert [uint64.to_int(each) for each in below] == expected


def exported() -> None:
    """The sharded update can be lowered here for machines that are elsewhere."""
    mesh = make_mesh(AxisType.Auto)
    tx = swd_jax.swd(TARGETS[-1], weight_decay=0.1, a=1.0)
    by_hand = swd_jax.swd(TARGETS[-1], weight_decay=0.1, a=1.0, axis_name=("x", "y"))
    params = {
        name: jax.ShapeDtypeStruct(
            shape, jnp.float32, sharding=NamedSharding(mesh, SPECS[name])
        )
        for name, shape in SHAPES.items()
    }
    state = jax.eval_shape(tx.init, params)
    none = PartitionSpec()
    mapped = jax.shard_map(
        lambda params, state: by_hand.update(params, state, params),
        mesh=mesh,
        in_specs=(SPECS, none),
        out_specs=(SPECS, none),
    )
    for update in (lambda params, state: tx.update(params, state, params), mapped):
        for platform in ("tpu", "cuda"):
            export = jax.export.export(jax.jit(update), platforms=[platform])
            found = export(params, state)
            assert found.nr_devices == 8
            assert found.platforms == (platform,)


WAYS = {
    "automatic": lambda: under_jit(AxisType.Auto, TARGETS),
    "explicit": lambda: under_jit(AxisType.Explicit, TARGETS[-1:]),
    "by_hand": by_hand,
    "each_for_itself": each_for_itself,
    "latents": latents,
    "training": training,
    "structures": lambda: structures(AxisType.Auto, STRUCTURED[2:3]),
    "structures_for_tpus": lambda: structures(AxisType.Auto, for_tpus(STRUCTURED[:1])),
    "more_structures": lambda: structures(
        AxisType.Auto, STRUCTURED + for_tpus(STRUCTURED)
    ),
    "more_explicit_structures": lambda: structures(AxisType.Explicit, STRUCTURED),
    "explicit_structures": explicit_structures,
    "structures_by_hand": structures_by_hand,
    "channels": channels,
    **{name: functools.partial(every_target, name) for name in targets.STRUCTURES},
    "many_leaves": many_leaves,
    "exported": exported,
}

if __name__ == "__main__":
    for way in sys.argv[1:]:
        print(way, flush=True)
        WAYS[way]()
