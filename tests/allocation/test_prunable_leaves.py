"""Prunable leaves: by pattern, by predicate, by tree of bools."""

import re

import equinox as eqx
import jax
import numpy as np
import optax
import pytest
from flax import nnx

import swd_jax
from swd_jax._allocation import prunable_leaves
from swd_jax._arrays import tree_paths


def prunable_paths(params, prunable=swd_jax.is_weight) -> list[str]:
    leaves = prunable_leaves.find_prunable(prunable, tree_paths.flatten(params), params)
    return [leaf.path for leaf in leaves]


KEY = jax.random.key(0)


def zeros(**shapes):
    return {name.replace("__", "/"): np.zeros(s) for name, s in shapes.items()}


PARAMS = zeros(
    encoder__kernel=(2, 2), encoder__bias=(2,), head__kernel=(2, 3), head__bias=(3,)
)


NESTED = {
    "encoder": {"kernel": np.zeros((2, 2)), "bias": np.zeros(2)},
    "head": {"kernel": np.zeros((2, 3)), "bias": np.zeros(3)},
}


class TestRegularExpression:
    @pytest.mark.parametrize(
        ("pattern", "paths"),
        [
            ("kernel", "encoder/kernel head/kernel"),
            ("^head", "head/bias head/kernel"),
            ("bias$", "encoder/bias head/bias"),
            ("^encoder/kernel$", "encoder/kernel"),
            ("der/k", "encoder/kernel"),  # searched for, not matched in full
            ("", "encoder/bias encoder/kernel head/bias head/kernel"),
            ("^(?!head).*kernel", "encoder/kernel"),
        ],
    )
    def test_is_searched_for_in_the_path(self, pattern, paths):
        assert prunable_paths(NESTED, pattern) == paths.split()
        assert prunable_paths(NESTED, re.compile(pattern)) == paths.split()

    def test_may_be_compiled_with_flags(self):
        assert prunable_paths(NESTED, re.compile("HEAD/K", re.I)) == ["head/kernel"]

    def test_finds_a_bare_array_under_the_empty_path(self):
        assert prunable_paths(np.zeros(3), "^$") == [""]

    @pytest.mark.parametrize("pattern", ["Kernel", re.compile("^kernel"), "/kernel/"])
    def test_that_matches_nothing_is_an_error_that_lists_the_paths(self, pattern):
        listed = "matches none.*\n  encoder/bias\n  encoder/kernel\n  head/bias\n"
        with pytest.raises(ValueError, match=listed) as error:
            prunable_paths(NESTED, pattern)
        assert repr(pattern) in str(error.value)

    @pytest.mark.parametrize("pattern", ["(kernel", "*", "[a-"])
    def test_that_is_none_is_an_error_at_construction(self, pattern):
        with pytest.raises(ValueError, match="not a regular expression") as error:
            swd_jax.Target(0.5, prunable=pattern)
        assert f"prunable={pattern!r}" in str(error.value)


class TestPredicate:
    def test_is_called_with_path_and_leaf(self):
        calls = {}

        def wide(path, leaf):
            calls[path] = leaf
            return leaf.shape[-1] == 3

        assert prunable_paths(NESTED, wide) == ["head/bias", "head/kernel"]
        assert calls["encoder/kernel"] is NESTED["encoder"]["kernel"]
        assert len(calls) == 4

    def test_is_not_called_with_leaves_that_are_no_arrays(self):
        params = {"act": jax.nn.relu, "w": np.zeros(2)}
        assert prunable_paths(params, lambda path, leaf: leaf.ndim == 1) == ["w"]

    def test_may_answer_with_a_bool_of_numpy(self):
        answer = lambda path, leaf: np.prod(leaf.shape) > 4
        assert isinstance(answer("", np.zeros(3)), np.bool_)
        assert prunable_paths(NESTED, answer) == ["head/kernel"]

    def test_may_build_on_the_default(self):
        no_head = lambda path, leaf: (
            swd_jax.is_weight(path, leaf) and "head" not in path
        )
        assert prunable_paths(NESTED, no_head) == ["encoder/kernel"]

    @pytest.mark.parametrize("answer", [None, 1, "yes", np.zeros(2, bool)])
    def test_that_answers_otherwise_is_an_error_that_names_the_path(self, answer):
        with pytest.raises(ValueError, match=r"answered .* for 'encoder/bias'"):
            prunable_paths(NESTED, lambda path, leaf: answer)

    def test_that_matches_nothing_is_an_error_that_lists_the_paths(self):
        with pytest.raises(ValueError, match="matches none.*\n  encoder/bias\n"):
            prunable_paths(NESTED, lambda path, leaf: False)


class TestTreeOfBools:
    @pytest.mark.parametrize(
        ("bools", "paths"),
        [
            (
                {
                    "encoder": {"kernel": True, "bias": False},
                    "head": {"kernel": False, "bias": np.True_},
                },
                "encoder/kernel head/bias",
            ),
            ({"encoder": True, "head": False}, "encoder/bias encoder/kernel"),
            (
                {"encoder": np.False_, "head": {"kernel": True, "bias": False}},
                "head/kernel",
            ),
            (True, "encoder/bias encoder/kernel head/bias head/kernel"),
        ],
        ids=["leaf by leaf", "by upper levels", "mixed", "one for all"],
    )
    def test_says_which(self, bools, paths):
        assert prunable_paths(NESTED, bools) == paths.split()

    def test_may_come_in_another_container(self):
        assert prunable_paths((np.zeros(2), np.zeros(3)), [False, True]) == ["1"]

    def test_may_be_a_module(self):
        model = eqx.nn.Linear(2, 3, key=KEY)
        bools = jax.tree.map(lambda leaf: leaf.ndim == 1, model)
        # A module is callable, but this one is a tree of bools.
        assert callable(bools)
        assert prunable_paths(model, bools) == ["bias"]

    def test_may_be_a_state_of_nnx(self):
        state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Param)
        bools = jax.tree.map(lambda leaf: leaf.ndim == 1, state)
        assert prunable_paths(state, bools) == ["bias"]

    def test_may_say_more_than_the_unmasked_parameters_need(self):
        # `optax.masked` replaces the nodes that it leaves out by empty ones.
        params = {"encoder": optax.MaskedNode(), "head": np.zeros((2, 3))}
        assert prunable_paths(params, {"encoder": {"w": True}, "head": True}) == [
            "head"
        ]

    def test_tells_leaves_apart_whose_paths_are_spelled_alike(self):
        params = {"a": {"b": np.zeros((2, 2))}, "a/b": np.zeros((3, 3))}
        leaves = prunable_leaves.find_prunable(
            {"a": {"b": True}, "a/b": False}, tree_paths.flatten(params), params
        )
        assert [leaf.weights.shape for leaf in leaves] == [(2, 2)]

    @pytest.mark.parametrize(
        ("bools", "words"),
        [
            ({"encoder": True}, "no bool for the parameter 'head/bias'"),
            (
                {"encoder": {"kernel": True}, "head": True},
                "no bool for the parameter 'encoder/bias'",
            ),
            (
                {"encoder": True, "head": True, "tail": False},
                "a bool at 'tail', where the parameters have nothing.*\n  encoder/bias",
            ),
            (
                {"encoder": True, "head": {"kernel": {"w": True}, "bias": True}},
                "a bool at 'head/kernel/w', where",
            ),
            ([True, False], "a bool at '0', where"),
        ],
    )
    def test_of_another_structure_is_an_error_that_names_the_path(self, bools, words):
        with pytest.raises(ValueError, match=rf"^prunable has {words}"):
            prunable_paths(NESTED, bools)

    def test_without_a_true_is_an_error_that_lists_the_paths(self):
        with pytest.raises(ValueError, match="matches none.*\n  encoder/bias\n"):
            prunable_paths(NESTED, {"encoder": False, "head": False})


@pytest.mark.parametrize(
    "prunable", [None, 1, 0.5, {}, [], {"a": None}, {"a": 1}, [True, 0], b"kernel"]
)
def test_anything_else_is_an_error_at_construction(prunable):
    words = "prunable must be a regular expression .* a predicate .* or a tree of bools"
    with pytest.raises(ValueError, match=words):
        swd_jax.Target(0.5, prunable=prunable)


TABLE_AND_WEIGHTS = [swd_jax.is_weight, "^table|^w", {"table": True, "w": True}]


@pytest.mark.parametrize("dtype", [np.int32, np.int8, np.uint8, np.bool_])
@pytest.mark.parametrize("prunable", [*TABLE_AND_WEIGHTS, lambda path, leaf: True])
def test_integers_and_bools_that_match_with_weights_are_left_alone(dtype, prunable):
    params = {"table": np.zeros((2, 2), dtype), "w": np.zeros((2, 2))}
    assert prunable_paths(params, prunable) == ["w"]


def test_keys_of_random_numbers_are_left_alone():
    params = {"kernels": jax.random.split(KEY, (2, 2)), "w": np.zeros((2, 2))}
    for prunable in (swd_jax.is_weight, "", lambda path, leaf: leaf.ndim == 2):
        assert prunable_paths(params, prunable) == ["w"]


@pytest.mark.parametrize("dtype", [np.int32, np.bool_])
@pytest.mark.parametrize("prunable", ["^table", {"table": True, "w": False}])
def test_a_choice_of_nothing_but_integers_is_an_error(dtype, prunable):
    params = {"table": np.zeros((2, 2), dtype), "w": np.zeros((2, 2))}
    words = f"prunable matches 'table', which holds {np.dtype(dtype)} numbers, and no"
    with pytest.raises(ValueError, match=words):
        prunable_paths(params, prunable)


@pytest.mark.parametrize("prunable", TABLE_AND_WEIGHTS)
def test_complex_weights_must_be_left_out(prunable):
    params = {"table": np.zeros((2, 2), np.complex64), "w": np.zeros((2, 2))}
    with pytest.raises(ValueError, match="'table', which holds complex64 numbers"):
        prunable_paths(params, prunable)
    assert prunable_paths(params, "^w") == ["w"]


class TestLeftByName:
    """The leaves that stay dense because the default goes by their names."""

    PARAMS = {
        "norms": {"scale": np.zeros((2, 3)), "vector": np.zeros(3)},
        "query": {"bias": np.zeros((2, 3)), "kernel": np.zeros((3, 2, 3))},
        "table": {"scale": np.zeros((2, 3), int)},
    }

    def test_are_floating_point_and_have_two_dimensions(self):
        flat = tree_paths.flatten(self.PARAMS)
        chosen = prunable_leaves.choose(swd_jax.is_weight, flat, self.PARAMS)
        assert [leaf.path for leaf in chosen.leaves] == ["query/kernel"]
        assert chosen.left_by_name == ("norms/scale", "query/bias")

    def test_are_none_where_the_user_has_chosen(self):
        flat = tree_paths.flatten(self.PARAMS)
        for prunable in ("kernel", lambda path, leaf: "kernel" in path):
            chosen = prunable_leaves.choose(prunable, flat, self.PARAMS)
            assert chosen.left_by_name == ()

    def test_are_listed_where_nothing_else_is_left(self):
        with pytest.raises(ValueError, match="Left dense by name:\n  gamma_map\n"):
            prunable_paths({"gamma_map": np.zeros((2, 2)), "x": np.zeros(2)})


@pytest.mark.parametrize("empty", [{}, (), None, {"a": {}}, {"a": jax.nn.relu}])
@pytest.mark.parametrize(
    "prunable", [swd_jax.is_weight, "kernel", lambda path, w: True]
)
def test_a_tree_without_arrays_has_nothing_to_prune_and_is_no_error(empty, prunable):
    assert prunable_paths(empty, prunable) == []


@pytest.mark.parametrize(
    "meet",
    [
        lambda target: swd_jax.swd(target, weight_decay=0.1, a=1.0).init(PARAMS),
        lambda target: swd_jax.prune(PARAMS, target),
        lambda target: swd_jax.prune_mask(PARAMS, target),
        lambda target: swd_jax.summarize(PARAMS, target),
    ],
    ids="init prune prune_mask summarize".split(),
)
def test_a_target_that_does_not_fit_is_an_error_wherever_it_meets_parameters(meet):
    with pytest.raises(ValueError, match="'kernels' matches none.*\n  encoder/bias\n"):
        meet(swd_jax.Target(0.5, prunable="kernels"))


class TestBoolTree:
    TREE = {"encoder": False, "head": {"kernel": np.True_, "bias": False}}

    def test_holds_the_path_and_value_of_every_bool(self):
        assert prunable_leaves.BoolTree.from_tree(self.TREE).entries == (
            ("encoder", False),
            ("head/bias", False),
            ("head/kernel", True),
        )

    def test_of_equal_trees_is_equal_and_hash_equal(self):
        first = prunable_leaves.as_prunable(self.TREE)
        second = prunable_leaves.as_prunable({**self.TREE})
        assert first == second
        assert hash(first) == hash(second)
        assert first != prunable_leaves.as_prunable({**self.TREE, "encoder": True})

    def test_is_a_copy(self):
        tree = {"encoder": True, "head": False}
        bools = prunable_leaves.as_prunable(tree)
        tree["encoder"], tree["head"] = False, True
        assert prunable_paths(NESTED, bools) == ["encoder/bias", "encoder/kernel"]

    @pytest.mark.parametrize(
        "tree",
        [
            TREE,
            True,
            [True, np.False_],
            jax.tree.map(lambda leaf: leaf.ndim == 1, eqx.nn.Linear(2, 3, key=KEY)),
        ],
        ids=["dict", "bool", "list", "module"],
    )
    def test_is_what_every_tree_of_bools_becomes(self, tree):
        bools = prunable_leaves.as_prunable(tree)
        assert bools == prunable_leaves.BoolTree.from_tree(tree)
        assert prunable_leaves.as_prunable(bools) is bools

    def test_prints_as_paths_and_values(self):
        bools = prunable_leaves.BoolTree.from_tree({"head": {"kernel": False}})
        assert repr(bools) == "{'head/kernel': False}"


@pytest.mark.parametrize(
    "prunable",
    ["kernel", re.compile("kernel"), swd_jax.is_weight, lambda path, w: True],
)
def test_patterns_and_predicates_stay_as_they_are(prunable):
    assert prunable_leaves.as_prunable(prunable) is prunable
