"""The target: one frozen value, checked when it is made."""

import dataclasses
import inspect
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax

PARAMS = {"kernel": jnp.array([[1.0, -2.0], [3.0, 4.0]])}


def test_the_defaults_are_those_of_the_paper():
    target = swd_jax.Target(0.9)
    assert target.sparsity == 0.9
    assert target.prunable is swd_jax.is_weight
    assert target.structure == swd_jax.Unstructured()
    assert target.scope == "global"
    assert target.criterion is swd_jax.criteria.magnitude


def test_a_target_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        swd_jax.Target(0.9).sparsity = 0.5


def test_equal_targets_are_equal_and_can_be_keys():
    settings = {"prunable": "kernel", "scope": "local", "criterion": "magnitude"}
    first, second = swd_jax.Target(0.9, **settings), swd_jax.Target(0.9, **settings)
    assert first == second
    assert hash(first) == hash(second)
    assert first != swd_jax.Target(0.8, **settings)


SCHEDULES = [
    swd_jax.cubic_sparsity(0.5, begin=0, end=10),
    swd_jax.schedules.staircase_sparsity(0.5, [1, 2]),
    swd_jax.exponential_growth(a_min=0.1, a_max=10, total_steps=5),
    swd_jax.schedules.rewind(swd_jax.cubic_sparsity(0.5, 0, 10), [3], to=0),
    swd_jax.bound_multiplier(1.0, learning_rate=0.1, weight_decay=0.1),
]
TARGETS = [
    swd_jax.Target(SCHEDULES[0], prunable="kernel", min_kept=0.01),
    swd_jax.Target(jnp.float32(0.5), prunable={"kernel": True}, scope="erk"),
    swd_jax.Target(0.5, scope={"a": SCHEDULES[1]}, structure=swd_jax.NM(2, 4)),
    swd_jax.Target(0.5, structure=swd_jax.Block((2, 2)), criterion="lamp"),
    swd_jax.Target(0.5, structure=swd_jax.Channel(), criterion="movement"),
    swd_jax.Target(0.5, criterion=swd_jax.criteria.mean_saliency(0.9)),
    swd_jax.Target(0.5, criterion=swd_jax.criteria.random_scores(3)),
]


@pytest.mark.parametrize("value", [*SCHEDULES, *TARGETS])
def test_schedules_and_targets_can_be_pickled(value):
    copy = pickle.loads(pickle.dumps(value))
    assert copy == value
    assert hash(copy) == hash(value)


@pytest.mark.parametrize(
    "tx",
    [
        swd_jax.swd(TARGETS[4], weight_decay=0.1, a=1.0, tolerance=0.1),
        swd_jax.proximal_swd(0.5, weight_decay=0.1, a=1.0, learning_rate=0.1),
        swd_jax.sparsify(0.5, 10, optimizer=optax.adam(0.1)),
        swd_jax.methods.rigl(optax.sgd(0.1), 0.5, until=101),
    ],
)
def test_states_can_be_pickled(tx):
    state = tx.init(PARAMS)
    copy = pickle.loads(pickle.dumps(state))
    assert jax.tree.structure(copy) == jax.tree.structure(state)
    for new, old in zip(jax.tree.leaves(copy), jax.tree.leaves(state), strict=True):
        assert new.dtype == old.dtype
        np.testing.assert_array_equal(new, old)


def test_only_the_sparsity_can_be_given_by_position():
    kinds = {
        p.name: p.kind for p in inspect.signature(swd_jax.Target).parameters.values()
    }
    assert kinds.pop("sparsity") is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert set(kinds) == {
        *("prunable", "structure", "scope", "criterion", "min_kept"),
    }
    assert set(kinds.values()) == {inspect.Parameter.KEYWORD_ONLY}


def test_replacing_a_field_checks_it_again():
    target = swd_jax.Target(0.9, scope="local")
    assert dataclasses.replace(target, sparsity=0.5).scope == "local"
    with pytest.raises(ValueError, match="sparsity"):
        dataclasses.replace(target, sparsity=1.0)


def test_a_criterions_name_stands_for_the_criterion():
    by_name = swd_jax.Target(0.9, criterion="normalized_magnitude")
    assert by_name.criterion is swd_jax.criteria.normalized_magnitude
    assert by_name == swd_jax.Target(
        0.9, criterion=swd_jax.criteria.normalized_magnitude
    )


@pytest.mark.parametrize("scope", ["globall", "", "Global", None, 1, ["global"], {}])
def test_an_unknown_scope_is_an_error_that_names_the_others(scope):
    with pytest.raises(ValueError, match="scope must be 'global', 'local', 'erk' or"):
        swd_jax.Target(0.9, scope=scope)


@pytest.mark.parametrize("structure", [None, "unstructured", swd_jax.Unstructured])
def test_an_unknown_structure_is_an_error_that_shows_a_known_one(structure):
    with pytest.raises(ValueError, match=r"structure must be Unstructured\(\)"):
        swd_jax.Target(0.9, structure=structure)


def test_a_target_for_another_targets_sparsity_is_an_error():
    with pytest.raises(ValueError, match="sparsity must be a number"):
        swd_jax.Target(swd_jax.Target(0.9))


@pytest.mark.parametrize("target", [0.5, np.float32(0.5), lambda step: 0.5])
class TestAPlainSparsityIsATarget:
    """`swd(0.5, ...)` is `swd(Target(0.5), ...)`, and so everywhere."""

    def test_for_swd(self, target):
        def decayed(target):
            tx = swd_jax.swd(target, weight_decay=0.1, a=2.0)
            updates = jax.tree.map(jnp.zeros_like, PARAMS)
            return tx.update(updates, tx.init(PARAMS), PARAMS)[0]["kernel"]

        # The two smaller of four get 0.1 * 2 of themselves.
        expected = np.array([[0.2, -0.4], [0, 0]], np.float32)
        np.testing.assert_allclose(decayed(target), expected, rtol=1e-6)
        np.testing.assert_array_equal(decayed(target), decayed(swd_jax.Target(target)))

    def test_for_prune_and_its_mask(self, target):
        for given in (target, swd_jax.Target(target)):
            pruned = swd_jax.prune(PARAMS, given)["kernel"]
            np.testing.assert_array_equal(pruned, [[0, 0], [3, 4]])
            mask = swd_jax.prune_mask(PARAMS, given)["kernel"]
            np.testing.assert_array_equal(mask, [[False, False], [True, True]])

    def test_for_summarize(self, target):
        report = swd_jax.summarize(PARAMS, target)
        assert report == swd_jax.summarize(PARAMS, swd_jax.Target(target))
        assert report.target_sparsity == 0.5


def test_one_target_drives_training_pruning_and_reporting_alike():
    # Local, by a pattern: of each matching leaf the lower half, of others nothing.
    params = {
        "in": {"w": jnp.array([1.0, 2.0, 3.0, 4.0])},
        "out": {"w": jnp.array([[40.0, 30.0], [20.0, 10.0]])},
        "rest": jnp.array([[0.1, 0.2]]),
    }
    target = swd_jax.Target(0.5, prunable="/w$", scope="local")
    lost = {
        "in": {"w": [True, True, False, False]},
        "out": {"w": [[False, False], [True, True]]},
        "rest": [[False, False]],
    }
    tx = optax.chain(swd_jax.swd(target, weight_decay=1.0, a=1.0))
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    mask, pruned = swd_jax.prune_mask(params, target), swd_jax.prune(params, target)
    for decayed, kept, after, expected in zip(
        jax.tree.leaves(updates),
        jax.tree.leaves(mask),
        jax.tree.leaves(pruned),
        jax.tree.leaves(lost, is_leaf=lambda node: isinstance(node, list)),
        strict=True,
    ):
        np.testing.assert_array_equal(decayed != 0, expected)
        np.testing.assert_array_equal(~kept, expected)
        np.testing.assert_array_equal(after == 0, expected)
    report = swd_jax.summarize(params, target)
    assert {leaf.path: leaf.pruned for leaf in report.leaves} == {"in/w": 2, "out/w": 2}


class TestTargetIsAHashableValue:
    """Frozen through and through: equal arguments make one static argument of jit."""

    MAKERS = {
        "mapping": lambda: swd_jax.Target(0.5, scope={"kernel": 0.5}),
        "array": lambda: swd_jax.Target(jnp.float32(0.5)),
        "tree of bools": lambda: swd_jax.Target(0.5, prunable={"kernel": True}),
        "schedule": lambda: swd_jax.Target(swd_jax.cubic_sparsity(0.5, 0, 10)),
        "structure": lambda: swd_jax.Target(0.5, structure=swd_jax.Block((1, 2))),
        "own structure": lambda: swd_jax.Target(0.5, structure=Rows()),
        "criterion from a factory": lambda: swd_jax.Target(
            0.5, criterion=swd_jax.criteria.random_scores(1)
        ),
    }

    @pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
    def test_an_equal_target_is_not_traced_again(self, make):
        traces = []

        def prune(params, target):
            traces.append(target)
            return swd_jax.prune(params, target)

        jitted = jax.jit(prune, static_argnames="target")
        first = jitted(PARAMS, target=make())["kernel"]
        second = jitted(PARAMS, target=make())["kernel"]
        np.testing.assert_array_equal(first, second)
        assert (first == 0).sum() == 2
        assert len(traces) == 1

    def test_a_mapping_changed_later_does_not_change_it(self):
        scope = {"kernel": 0.5}
        target = swd_jax.Target(0.5, scope=scope)
        scope["kernel"] = 7.0
        scope["more"] = -1.0
        assert dict(target.scope) == {"kernel": 0.5}
        assert (swd_jax.prune(PARAMS, target)["kernel"] == 0).sum() == 2
        with pytest.raises(TypeError):
            target.scope["kernel"] = 0.9

    def test_a_traced_sparsity_still_prunes(self):
        prune = jax.jit(lambda s: swd_jax.prune(PARAMS, swd_jax.Target(s)))
        for sparsity, zeros in [(0.25, 1), (0.5, 2), (0.75, 3)]:
            assert (prune(sparsity)["kernel"] == 0).sum() == zeros


@dataclasses.dataclass(frozen=True)
class Rows:
    """A user's structure: the rows of a matrix."""

    def scores(self, scores):
        return scores.max(axis=1)

    def sizes(self, shape):
        return shape[1]

    def expand(self, units, shape):
        return jnp.broadcast_to(units[:, None], shape)


class TestAUsersStructure:
    def test_says_which_shards_it_supports(self):
        """Two rows on two devices of an axis that `vmap` names."""

        @dataclasses.dataclass(frozen=True)
        class ShardedRows(Rows):
            def fits_shard(self, shape):
                return len(shape) == 2

        def prune(structure):
            target = swd_jax.Target(0.5, structure=structure)
            shards = {"kernel": PARAMS["kernel"].reshape(2, 1, 2)}
            return jax.vmap(
                lambda shard: swd_jax.prune(shard, target, axis_name="x"), axis_name="x"
            )(shards)["kernel"].reshape(2, 2)

        np.testing.assert_array_equal(prune(ShardedRows()), [[0, 0], [3, 4]])
        with pytest.raises(ValueError, match=r"Rows\(\) has units that may extend"):
            prune(Rows())


def test_a_target_prints_what_differs_from_the_default():
    assert repr(swd_jax.Target(0.9)) == "Target(0.9)"
    rising = swd_jax.cubic_sparsity(0.9, 0, 10)
    target = swd_jax.Target(rising, prunable=lambda path, leaf: True, min_kept=3)
    assert repr(target) == (
        "Target(cubic_sparsity(final=0.9, begin=0, end=10), prunable=<lambda>, "
        "min_kept=3)"
    )
