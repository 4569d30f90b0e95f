"""Coupled channels as the structure of a target: what is counted, selected, pruned."""

import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax
from swd_jax._arrays import tree_paths
from tests.helpers.channel_models import CASES

RATIOS = [0.3, 0.5, 0.7, 0.9]
QUICK = ["densenet"]
X = jax.ShapeDtypeStruct((2, 6), jnp.float32)


def norm(h, p, s):
    scale = jax.lax.rsqrt(s["var"] + 1e-5) * p["scale"]
    return (h - s["mean"][None]) * scale[None] + p["bias"][None]


def network(variables, x):
    """A residual network with batch norm: "a" and "c" end in the same channels."""
    p, s = variables["params"], variables["batch_stats"]
    h = jax.nn.relu(norm(x @ p["a"]["kernel"], p["a"], s["a"]))
    y = jax.nn.relu(norm(h @ p["b"]["kernel"], p["b"], s["b"]))
    h = jax.nn.relu(h + norm(y @ p["c"]["kernel"], p["c"], s["c"]))
    return h @ p["head"]["kernel"] + p["head"]["bias"][None]


def variables(seed=0):
    random = np.random.default_rng(seed)

    def drawn(*shape):
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    widths = {"a": (6, 12), "b": (12, 9), "c": (9, 12)}
    params = {
        name: {
            "kernel": drawn(*shape),
            "scale": drawn(shape[1]),
            "bias": drawn(shape[1]),
        }
        for name, shape in widths.items()
    }
    params["head"] = {"kernel": drawn(12, 3), "bias": drawn(3)}
    statistics = {
        name: {"mean": drawn(shape[1]), "var": jnp.abs(drawn(shape[1])) + 0.5}
        for name, shape in widths.items()
    }
    return {"params": params, "batch_stats": statistics}


PARAMS = variables()["params"]
# 12 and 9 channels. Without i of the first and j of the second, the network has
# (12 - i) * (6 + 2 + (9 - j) + (9 - j) + 2 + 3) + (9 - j) * 2 + 3 parameters.
GROUPS = swd_jax.channels.channel_groups(network, variables(), X)


def size(first, second):
    return first * (13 + 2 * second) + 2 * second + 3


def coupled(sparsity=0.5, scope="global", criterion="magnitude", **options):
    structure = swd_jax.CoupledChannels(GROUPS, **options)
    return swd_jax.Target(
        sparsity, structure=structure, scope=scope, criterion=criterion
    )


def weights_of(groups, params, roles):
    """Of every group, channel by channel: all its weights in members of some roles."""
    leaves = {p: leaf for _, p, leaf in tree_paths.arrays(tree_paths.flatten(params))}
    found = []
    for group in groups:
        members = [m for m in group.members if m.role in roles and m.path in leaves]
        columns = [
            np.moveaxis(np.asarray(leaves[m.path], np.float64), m.axis, 0)[m.indices]
            for m in members
        ]
        columns = [c.reshape(group.size, -1) for c in columns]
        found.append(np.concatenate([*columns, np.zeros((group.size, 0))], axis=1))
    return found


def reference(groups, scores, sparsity, count="parameters", least=1):
    """The channels that are kept, counted anew for every channel that goes."""
    number = getattr(groups, count)
    kept = [np.ones(group.size, bool) for group in groups]
    movable = []
    for g, of_group in enumerate(scores):
        order = sorted(range(len(of_group)), key=lambda c: (of_group[c], c))
        movable += [(of_group[c], g, c) for c in order[: len(order) - least]]
    budget = math.floor(Fraction(str(sparsity)) * number())
    for _, g, c in sorted(movable):
        kept[g][c] = False
        if number() - number(kept) > budget:
            kept[g][c] = True
            break
    return kept


def rms(groups, params):
    roles = ("producer", "consumer")
    found = weights_of(groups, params, roles)
    return [np.sqrt(np.square(weights).mean(axis=1)) for weights in found]


def vectors(kept, groups=GROUPS):
    return [np.asarray(kept[group.name]) for group in groups]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@functools.cache
def of_case(name):
    case = CASES[name]()
    with jax.numpy_rank_promotion("allow"):
        groups = swd_jax.channels.channel_groups(case.apply, case.params, case.inputs)
    return groups, case.params


class TestCount:
    def test_is_that_of_the_formula(self):
        assert GROUPS.parameters() == size(12, 9) == 393
        kept = [np.arange(12) < 5, np.arange(9) < 2]
        assert GROUPS.parameters(kept) == size(5, 2)

    @pytest.mark.parametrize("count", ["parameters", "flops"])
    @pytest.mark.parametrize("sparsity", RATIOS)
    def test_is_met_within_one_channel_and_never_exceeded(self, sparsity, count):
        target = coupled(sparsity, count=count)
        kept = vectors(swd_jax.channels.kept_channels(PARAMS, target))
        assert same(
            kept, reference(GROUPS, rms(GROUPS, PARAMS_OF_MODEL), sparsity, count)
        )
        number = getattr(GROUPS, count)
        gone = number() - number(kept)
        dearest = max(getattr(group, count).max() for group in GROUPS)
        assert sparsity * number() - dearest < gone <= sparsity * number()

    @pytest.mark.parametrize("count", ["parameters", "flops"])
    @pytest.mark.parametrize("sparsity", RATIOS)
    @pytest.mark.parametrize(
        "name",
        [
            name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
            for name in CASES
        ],
    )
    def test_of_a_model_is_met_too(self, name, sparsity, count):
        groups, params = of_case(name)
        structure = swd_jax.CoupledChannels(groups, count=count)
        target = swd_jax.Target(sparsity, structure=structure)
        number = getattr(groups, count)
        least = [np.arange(group.size) < 1 for group in groups]
        if math.floor(sparsity * number()) > number() - number(least):
            with pytest.raises(ValueError, match="smaller by no more than"):
                swd_jax.channels.kept_channels(params, target)
            return
        kept = vectors(swd_jax.channels.kept_channels(params, target), groups)
        assert same(kept, reference(groups, rms(groups, params), sparsity, count))

    def test_goes_past_two_to_the_32(self):
        params = {
            "first": PARAMS["a"]["kernel"],
            "second": PARAMS["b"]["kernel"],
            "third": PARAMS["c"]["kernel"],
        }

        def deep(p, x):
            return jax.nn.relu(x @ p["first"]) @ p["second"] @ p["third"]

        x = jax.ShapeDtypeStruct((1 << 12, 1 << 12, 6), jnp.float32)
        groups = swd_jax.channels.channel_groups(deep, params, x)
        # 288 multiply-adds for each of 2^24 rows.
        assert groups.flops() == 288 << 25 > 1 << 33
        structure = swd_jax.CoupledChannels(groups, count="flops")
        for sparsity in RATIOS:
            target = swd_jax.Target(sparsity, structure=structure)
            kept = vectors(swd_jax.channels.kept_channels(params, target), groups)
            wanted = reference(groups, rms(groups, params), sparsity, "flops")
            assert same(kept, wanted)

    def test_of_a_traced_sparsity_is_the_same(self):
        target = swd_jax.Target(
            lambda step: step / 10, structure=swd_jax.CoupledChannels(GROUPS)
        )
        at = jax.jit(
            lambda step: swd_jax.channels.kept_channels(PARAMS, target, step=step)
        )
        for step in range(10):
            known = swd_jax.channels.kept_channels(PARAMS, coupled(step / 10))
            assert same(vectors(at(step)), vectors(known))


PARAMS_OF_MODEL = {"params": PARAMS}


class TestScores:
    @pytest.mark.parametrize("score", ["rms", "l2", "mean", "l1", "bn_scale"])
    def test_rank_by_the_norm_of_all_members(self, score):
        roles = ("scale",) if score == "bn_scale" else ("producer", "consumer")
        power = 2 if score in ("rms", "l2") else 1
        scores = []
        for weights in weights_of(GROUPS, PARAMS_OF_MODEL, roles):
            powers = np.abs(weights) ** power
            one = powers.sum(1) if score in ("l2", "l1") else powers.mean(1)
            scores.append(one ** (1 / power))
        kept = swd_jax.channels.kept_channels(PARAMS, coupled(norm=score))
        assert same(vectors(kept), reference(GROUPS, scores, 0.5))

    def test_come_from_the_criterion(self):
        # Divided by the norm of the leaf, one leaf is as good as another.
        larger = {**PARAMS, "b": {**PARAMS["b"], "kernel": 100 * PARAMS["b"]["kernel"]}}
        kernels = {
            f"params/{name}/kernel": np.asarray(layer["kernel"], np.float64)
            for name, layer in larger.items()
        }
        scores = []
        for group in GROUPS:
            total, count = np.zeros(group.size), 0
            for m in group.members:
                if m.role in ("producer", "consumer"):
                    kernel = kernels[m.path] / np.linalg.norm(kernels[m.path])
                    columns = np.moveaxis(kernel, m.axis, 0)
                    total += np.square(columns).sum(axis=1)
                    count += columns.shape[1]
            scores.append(np.sqrt(total / count))
        kept = swd_jax.channels.kept_channels(
            larger, coupled(criterion="normalized_magnitude")
        )
        assert same(vectors(kept), reference(GROUPS, scores, 0.5))

    def test_look_at_gradients_and_their_sign(self):
        gradient = jax.tree.map(lambda w: jnp.cos(7 * w), PARAMS)
        target = coupled(
            criterion=lambda weights, gradient: jnp.abs(weights * gradient)
        )
        products = jax.tree.map(jnp.multiply, PARAMS, gradient)
        kept = swd_jax.channels.kept_channels(
            PARAMS, target, extra_args={"gradient": gradient}
        )
        scores = rms(GROUPS, {"params": products})
        assert same(vectors(kept), reference(GROUPS, scores, 0.5))

    def test_that_are_not_finite_never_go(self):
        kernel = PARAMS["a"]["kernel"].at[:, 3].set(0).at[2, 3].set(jnp.nan)
        broken = {**PARAMS, "a": {**PARAMS["a"], "kernel": kernel}}
        kept = swd_jax.channels.kept_channels(broken, coupled(0.9))
        assert bool(kept["params/a"][3])

    def test_in_a_local_scope_are_places_in_the_group(self):
        # The second group's weights are tiny: by themselves they would all go first.
        tiny = jax.tree.map(lambda w: w, PARAMS)
        tiny["b"]["kernel"] = PARAMS["b"]["kernel"] / 1000
        tiny["c"]["kernel"] = PARAMS["c"]["kernel"] / 1000
        target = coupled(0.5, scope="local")
        first, second = vectors(swd_jax.channels.kept_channels(tiny, target))
        # One after the other goes until 8 and 6 are left. That is 215, and without
        # another of the first group, 190, it would be less than half of 393.
        assert (first.sum(), second.sum()) == (8, 6)
        assert size(8, 6) >= 393 / 2 > size(7, 6)


def selected(target, params=PARAMS, groups=GROUPS):
    """Which weights get a penalty: those whose updates are not zero."""
    tx = swd_jax.swd(target, weight_decay=1.0, a=1.0)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, state = tx.update(zeros, tx.init(params), params)
    for update, weight in zip(*map(jax.tree.leaves, (updates, params)), strict=True):
        chosen = np.asarray(update) != 0
        np.testing.assert_array_equal(
            np.asarray(update)[chosen], np.asarray(weight)[chosen]
        )
    return jax.tree.map(lambda update: update != 0, updates), state


def members_of(gone, roles, groups=GROUPS, params=PARAMS, prefix="params/"):
    """Masks of all positions of some channels in members of some roles."""
    flat = tree_paths.flatten(params)
    masks = {
        prefix + path: np.zeros(leaf.shape, bool)
        for _, path, leaf in tree_paths.arrays(flat)
    }
    for group, vector in zip(groups, gone, strict=True):
        for m in group.members:
            if m.role in roles:
                np.moveaxis(masks[m.path], m.axis, 0)[m.indices[vector].ravel()] = True
    return flat.rebuild(
        {i: masks[prefix + path] for i, path, _ in tree_paths.arrays(flat)}
    )


ALL = ("producer", "consumer", "scale", "bias")


class TestSwd:
    @pytest.mark.parametrize(
        ("options", "roles"),
        [
            ({}, ALL),
            ({"norm": "bn_scale"}, ALL),
            ({"norm": "bn_scale", "decays": "scales"}, ("scale", "bias")),
        ],
    )
    def test_decays_all_members_that_it_should(self, options, roles):
        target = coupled(0.7, **options)
        kept = vectors(swd_jax.channels.kept_channels(PARAMS, target))
        masks, state = selected(target)
        wanted = members_of([~vector for vector in kept], roles)
        jax.tree.map(np.testing.assert_array_equal, masks, wanted)
        fraction = 1 - GROUPS.parameters(kept) / GROUPS.parameters()
        assert float(state.selection.selected_fraction) == pytest.approx(
            fraction, rel=1e-6
        )
        assert state.selection.threshold.shape == ()

    @pytest.mark.parametrize("scope", ["global", "local"])
    def test_of_scales_that_are_all_one_selects_nothing(self, scope):
        fresh = {
            name: {**layer, "scale": jnp.ones_like(layer["scale"])}
            if "scale" in layer
            else layer
            for name, layer in PARAMS.items()
        }
        masks, _ = selected(coupled(0.5, norm="bn_scale", scope=scope), fresh)
        assert not any(mask.any() for mask in jax.tree.leaves(masks))
        # Pruning has to choose: the first ones, but of each group one is left.
        kept = swd_jax.channels.kept_channels(fresh, coupled(0.5, norm="bn_scale"))
        assert kept["params/a"].sum() < 12

    def test_rises_with_a_schedule_and_ends_pruned(self):
        rising = swd_jax.cubic_sparsity(0.7, begin=0, end=20)
        target = coupled(rising)
        tx = optax.chain(
            optax.sgd(0.1),
            swd_jax.proximal_swd(
                target, weight_decay=1.0, a=1e9, learning_rate=0.1, update_every=3
            ),
        )

        @jax.jit
        def train(params, state):
            def step(carry, _):
                params, state = carry
                gradients = jax.tree.map(jnp.zeros_like, params)
                updates, state = tx.update(gradients, state, params)
                return (optax.apply_updates(params, updates), state), None

            return jax.lax.scan(step, (params, state), length=24)[0]

        trained, state = train(PARAMS, tx.init(PARAMS))
        assert all(np.ndim(leaf) == 0 for leaf in jax.tree.leaves(state))
        pruned = swd_jax.prune(trained, target)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), trained, pruned
        )
        summary = swd_jax.summarize(pruned, target)
        assert 0.7 - 33 / 393 < summary.obtained_sparsity <= 0.7

    def test_beside_another_target(self):
        targets = [
            coupled(0.3, norm="bn_scale", decays="scales"),
            swd_jax.Target(0.5, prunable="head/kernel"),
        ]
        pruned = swd_jax.prune(PARAMS, targets)
        assert int((pruned["head"]["kernel"] == 0).sum()) == 18
        kept = vectors(swd_jax.channels.kept_channels(PARAMS, targets[0]))
        assert same([pruned["b"]["scale"] != 0], kept[1:])
        tx = swd_jax.swd(targets, weight_decay=1.0, a=1.0)
        state = tx.init(PARAMS)
        _, state = jax.jit(tx.update)(PARAMS, state, PARAMS)
        assert state.selection.threshold.shape == (2,)
        with pytest.raises(ValueError, match="two targets prune 'head/kernel'"):
            swd_jax.prune(PARAMS, [coupled(0.3), targets[1]])

    def test_leaves_out_what_is_masked(self):
        mask = jax.tree.map(lambda w: w.ndim > 1, PARAMS)
        tx = optax.masked(swd_jax.swd(coupled(), weight_decay=1.0, a=1.0), mask)
        zeros = jax.tree.map(jnp.zeros_like, PARAMS)
        updates, _ = tx.update(zeros, tx.init(PARAMS), PARAMS)
        assert (updates["a"]["kernel"] != 0).any()
        assert not (updates["a"]["bias"] != 0).any()

    def test_accepts_a_tree_without_leaves(self):
        tx = swd_jax.swd(coupled(), weight_decay=1.0, a=1.0)
        assert tx.init({}).selection.threshold.shape == ()
        tx.update({}, tx.init({}), {})


class TestPruning:
    @pytest.mark.parametrize(
        "options",
        [{}, {"norm": "bn_scale", "decays": "scales"}],
        ids=["all", "scales"],
    )
    def test_and_shrinking_give_the_same_outputs(self, options):
        target = coupled(0.7, **options)
        whole = variables()
        pruned = {**whole, "params": swd_jax.prune(whole["params"], target)}
        kept = swd_jax.channels.kept_channels(pruned["params"], target)
        assert same(
            vectors(kept), vectors(swd_jax.channels.kept_channels(PARAMS, target))
        )
        x = jnp.asarray(np.random.default_rng(1).normal(size=(5, 6)), jnp.float32)
        wanted = network(pruned, x)
        mask = swd_jax.prune_mask(whole["params"], target)
        # By vectors, by the pruned parameters, by a mask.
        for given in (kept, pruned["params"], mask):
            small = swd_jax.channels.shrink(network, pruned, GROUPS, given, X)
            assert same(small.kept, vectors(kept))
            np.testing.assert_allclose(small.apply(small.params, x), wanted, atol=1e-5)
        sizes = [leaf.size for leaf in jax.tree.leaves(small.params["params"])]
        assert sum(sizes) == GROUPS.parameters(kept)
        assert 0.7 - 33 / 393 < 1 - sum(sizes) / 393 <= 0.7

    def test_is_kept_in_fine_tuning(self):
        target = coupled(0.5)
        pruned = swd_jax.prune(PARAMS, target)
        mask = swd_jax.prune_mask(pruned, target)
        tx = optax.chain(optax.sgd(0.1), swd_jax.keep_pruned(mask))
        updates, _ = tx.update(PARAMS, tx.init(pruned), pruned)
        tuned = optax.apply_updates(pruned, updates)
        summary = swd_jax.summarize(tuned, target)
        assert summary.obtained_sparsity > 0.5 - 33 / 393

    def test_leaves_min_channels(self):
        for least, wanted in ((4, [4, 4]), (0.5, [6, 5]), (20, [12, 9])):
            structure = swd_jax.CoupledChannels(GROUPS, min_channels=least)
            with pytest.raises(ValueError, match="no more than") as raised:
                swd_jax.channels.kept_channels(
                    PARAMS, swd_jax.Target(0.99, structure=structure)
                )
            most = float(str(raised.value).split("no more than ")[1].split(". ")[0])
            assert most == math.floor(1e4 * (1 - size(*wanted) / 393)) / 1e4
            target = swd_jax.Target(most, structure=structure)
            kept = vectors(swd_jax.channels.kept_channels(PARAMS, target))
            assert [v.sum() for v in kept] >= wanted

    def test_empties_a_layer_only_when_asked(self):
        structure = swd_jax.CoupledChannels(GROUPS, min_channels=0)
        target = swd_jax.Target(0.99, structure=structure)
        kept = swd_jax.channels.kept_channels(PARAMS, target)
        assert not kept["params/b"].any()
        with pytest.raises(ValueError, match="leaves nothing of"):
            swd_jax.channels.shrink(network, variables(), GROUPS, kept, X)

    def test_leaves_out_groups_that_are_not_prunable(self):
        structure = swd_jax.CoupledChannels(GROUPS)
        target = swd_jax.Target(0.3, structure=structure, prunable="^b/")
        kept = vectors(swd_jax.channels.kept_channels(PARAMS, target))
        assert kept[0].all()
        assert not kept[1].all()
        # The first group has two producers.
        with pytest.raises(ValueError, match="none of the channel groups"):
            bad = swd_jax.Target(0.3, structure=structure, prunable="^a/")
            swd_jax.prune(PARAMS, bad)

    def test_by_scales_needs_a_norm_everywhere(self):
        def bare(variables, x):
            """A shortcut without batch norm ends in the channels of "a"."""
            p = variables["params"]
            return network(variables, x) + (
                jax.nn.relu(x @ p["a"]["kernel"]) @ p["head"]["kernel"]
            )

        whole = variables()
        groups = swd_jax.channels.channel_groups(bare, whole, X)
        structure = swd_jax.CoupledChannels(groups, norm="bn_scale", decays="scales")
        target = swd_jax.Target(0.5, structure=structure)
        pruned = swd_jax.prune(whole["params"], target)
        with pytest.raises(ValueError, match="these channels are not zero"):
            swd_jax.channels.shrink(bare, whole, groups, pruned, X)

    def test_in_straight_through_training_has_the_same_zeros(self):
        pruned = swd_jax.prune(PARAMS, coupled())
        hard = swd_jax.methods.straight_through(PARAMS, coupled(), soft=False)
        jax.tree.map(np.testing.assert_array_equal, hard, pruned)
        soft = swd_jax.methods.straight_through(PARAMS, coupled())
        are_zero = lambda tree: jax.tree.map(lambda leaf: leaf == 0, tree)
        jax.tree.map(np.testing.assert_array_equal, are_zero(soft), are_zero(pruned))

    def test_stays_where_the_parameters_are_divided(self):
        # Groups may lie anywhere; under shard_map there is no whole channel to see.
        with pytest.raises(ValueError, match="axis_name is 'x'"):
            swd_jax.prune(PARAMS, coupled(), axis_name="x")


class TestSummary:
    def test_tells_what_disappears(self):
        target = coupled(0.5)
        before = swd_jax.summarize(PARAMS, target)
        assert before.obtained_sparsity == 0
        [channels] = before.channels
        kept = swd_jax.channels.kept_channels(PARAMS, target)
        assert channels.parameters_pruned == GROUPS.parameters(kept)
        assert channels.flops_pruned == GROUPS.flops(kept)
        after = swd_jax.summarize(swd_jax.prune(PARAMS, target), target)
        assert after.obtained_sparsity == 1 - GROUPS.parameters(kept) / 393
        # The leftover would do for a cheaper channel: but pruned stays pruned.
        assert after.residual == 0
        [channels] = after.channels
        assert [g.zeros for g in channels.groups] == [
            int((~v).sum()) for v in vectors(kept)
        ]
        gone = f"{GROUPS.parameters(kept):,} of 393 parameters are left without them"
        assert gone in str(after)
        assert after.as_dict()["flops"] == GROUPS.flops()


def in_multiples(scores, multiple, sparsity, least=1, local=False):
    """The channels that are kept, counted anew for all that go at once."""
    kept = [np.ones(len(of_group), bool) for of_group in scores]
    moves = []
    for g, of_group in enumerate(scores):
        order = sorted(range(len(of_group)), key=lambda c: (of_group[c], c))
        end = 0
        while end < len(order):
            begin = end
            end += (len(order) - begin) % multiple or multiple
            if len(order) - end < least or of_group[order[end - 1]] == np.inf:
                break
            last = (end - 1) / len(order) if local else of_group[order[end - 1]]
            moves.append((last, g, order[begin:end]))
    budget = math.floor(Fraction(str(sparsity)) * GROUPS.parameters())
    for _, g, channels in sorted(moves):
        kept[g][channels] = False
        if GROUPS.parameters() - GROUPS.parameters(kept) > budget:
            kept[g][channels] = True
            break
    return kept


class TestMultiples:
    @pytest.mark.parametrize("scope", ["global", "local"])
    @pytest.mark.parametrize("multiple", [2, 3, 4])
    def test_against_counting_anew(self, multiple, scope):
        for seed, sparsity in ((0, 0.3), (1, 0.5), (2, 0.7)):
            params = variables(seed)["params"]
            target = coupled(sparsity, scope, multiple_of=multiple)
            kept = vectors(swd_jax.channels.kept_channels(params, target))
            scores = rms(GROUPS, {"params": params})
            wanted = in_multiples(scores, multiple, sparsity, local=scope == "local")
            assert same(kept, wanted)
            for vector in kept:
                assert vector.all() or vector.sum() % multiple == 0

    def test_of_ties_the_first_go(self):
        params = jax.tree.map(jnp.ones_like, PARAMS)
        kept = swd_jax.channels.kept_channels(
            params, coupled(0.5, multiple_of=4, norm="l1")
        )
        scores = [np.full(12, 27), np.full(9, 24)]
        assert same(vectors(kept), in_multiples(scores, 4, 0.5))

    def test_what_is_not_finite_stays_with_those_that_would_go_with_it(self):
        kernel = PARAMS["b"]["kernel"].at[0, 3].set(jnp.nan)
        params = {**PARAMS, "b": {**PARAMS["b"], "kernel": kernel}}
        scores = [
            np.where(np.isnan(s), np.inf, s) for s in rms(GROUPS, {"params": params})
        ]
        assert [np.isinf(s).sum() for s in scores] == [1, 1]
        target = coupled(0.5, multiple_of=2)
        kept = vectors(swd_jax.channels.kept_channels(params, target))
        assert same(kept, in_multiples(scores, 2, 0.5))

    def test_what_is_pruned_stays_as_it_is(self):
        target = coupled(0.6, multiple_of=4)
        kept = vectors(swd_jax.channels.kept_channels(PARAMS, target))
        pruned = swd_jax.prune(PARAMS, target)
        assert same(vectors(swd_jax.channels.kept_channels(pruned, target)), kept)
        small = swd_jax.channels.shrink(
            network, {**variables(), "params": pruned}, GROUPS, kept, X
        )
        assert small.params["params"]["a"]["kernel"].shape[1] % 4 == 0
        assert small.params["params"]["b"]["kernel"].shape[1] % 4 == 0

    def test_all_that_go_together_are_decayed(self):
        target = coupled(0.6, multiple_of=4)
        tx = swd_jax.swd(target, weight_decay=1.0, a=1.0)
        zeros = jax.tree.map(jnp.zeros_like, PARAMS)
        decay, _ = tx.update(zeros, tx.init(PARAMS), PARAMS)
        # What ties at the threshold stays in training; here nothing ties but with
        # channels that go along, so that all that would be pruned is decayed.
        mask = swd_jax.prune_mask(PARAMS, target)
        assert same(
            jax.tree.leaves(jax.tree.map(lambda d: d == 0, decay)),
            jax.tree.leaves(mask),
        )

    def test_at_least_so_many_are_a_multiple_too(self):
        structure = swd_jax.CoupledChannels(GROUPS, min_channels=5, multiple_of=4)
        assert [structure.min_channels_of(group) for group in GROUPS] == [8, 8]
        with pytest.raises(ValueError, match="multiple_of"):
            swd_jax.channels.kept_channels(
                PARAMS, swd_jax.Target(0.9, structure=structure)
            )

    def test_channels_with_several_positions(self):
        def member(positions):
            indices = np.arange(12 * positions).reshape(12, positions)
            return swd_jax.channels.ChannelMember("w", 0, indices, "producer")

        none = np.zeros(12, int)
        for positions, multiple, wanted in (((1,), 8, 8), ((6,), 8, 4), ((1, 6), 4, 4)):
            members = tuple(map(member, positions))
            group = swd_jax.channels.ChannelGroup("w", 12, members, none, none)
            assert group.bundle_size(multiple) == wanted


def other(params, x):
    return jax.nn.relu(x @ params["first"]) @ params["second"]


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"norm": "bn"}, "norm of CoupledChannels must be .* or"),
            ({"count": "macs"}, "count of CoupledChannels must be .* or"),
            ({"decays": "bn"}, "decays of CoupledChannels must be .* or"),
            ({"decays": "scales"}, "decays='scales' needs norm='bn_scale'"),
            ({"min_channels": -1}, "min_channels must be a number of channels"),
            ({"min_channels": 1.5}, "min_channels must be a number of channels"),
            ({"multiple_of": 0}, "multiple_of must be a whole number of at least 1"),
            ({"multiple_of": 2.5}, "multiple_of must be a whole number of at least 1"),
        ],
    )
    def test_of_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            swd_jax.CoupledChannels(GROUPS, **options)

    def test_of_groups(self):
        with pytest.raises(ValueError, match="channel_groups"):
            swd_jax.CoupledChannels([np.ones(3)])
        params = {"first": jnp.ones((6, 5)), "second": jnp.ones((5, 2))}
        groups = swd_jax.channels.channel_groups(other, params, X)
        with pytest.raises(ValueError, match="none of the groups has a batch norm"):
            swd_jax.CoupledChannels(groups, norm="bn_scale")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"scope": "erk"}, "scope must be 'global' or 'local'"),
            ({"scope": {"a": 0.5}}, "scope must be 'global' or 'local'"),
            ({"min_kept": 3}, "min_channels"),
        ],
    )
    def test_of_the_target(self, options, message):
        structure = swd_jax.CoupledChannels(GROUPS)
        with pytest.raises(ValueError, match=message):
            swd_jax.Target(0.5, structure=structure, **options)

    def test_of_parameters_that_are_others(self):
        with pytest.raises(ValueError, match=r"'kernel' there is \(2, 2\)"):
            swd_jax.prune({"kernel": jnp.ones((2, 2))}, coupled())
        shrunk = {**PARAMS, "head": {**PARAMS["head"], "kernel": jnp.ones((5, 3))}}
        with pytest.raises(ValueError, match=r"found where there was \(12, 3\)"):
            swd_jax.prune(shrunk, coupled())
        missing = {name: PARAMS[name] for name in ("a", "b", "head")}
        with pytest.raises(ValueError, match="have no 'params/c/"):
            swd_jax.prune(missing, coupled())

    def test_of_more_than_there_is(self):
        tx = swd_jax.swd(coupled(0.99), weight_decay=1.0, a=1.0)
        with pytest.raises(ValueError, match="smaller by no more than 0.94"):
            tx.init(PARAMS)

    def test_of_methods_for_single_weights(self):
        with pytest.raises(ValueError, match="structure must be Unstructured"):
            swd_jax.methods.rigl(optax.sgd(0.1), coupled(), update_every=10, until=100)

    def test_of_a_model_without_channels_says_what_froze_them(self):
        groups = swd_jax.channels.channel_groups(
            lambda p, x: (
                (x @ (p["a"] / jnp.abs(p["a"]).max(0, keepdims=True))) @ p["b"]
            ),
            {"a": jnp.ones((4, 3)), "b": jnp.ones((3, 2))},
            jnp.ones((1, 4)),
        )
        with pytest.raises(ValueError, match=r"NaN or infinite .*\n +a axis 1\n"):
            swd_jax.CoupledChannels(groups)

    def test_of_kept_channels_without_coupled_channels(self):
        with pytest.raises(ValueError, match="structure=CoupledChannels"):
            swd_jax.channels.kept_channels(PARAMS, swd_jax.Target(0.5))
