"""Every leaf has a path, in any container, and other trees are matched by it."""

import collections
import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from swd_jax._arrays import tree_paths

ONE, TWO = np.ones(1), np.ones(2)


class Pair(NamedTuple):
    kernel: Any
    bias: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    kernel: Any
    bias: Any


class Module(eqx.Module):
    kernel: Any
    bias: Any


@pytest.mark.parametrize(
    ("tree", "paths"),
    [
        ({"Dense_0": {"bias": ONE, "kernel": TWO}}, "Dense_0/bias Dense_0/kernel"),
        ({"mlp/~/linear_0": {"w": ONE}}, "mlp/~/linear_0/w"),
        (collections.OrderedDict(z=ONE, a=TWO), "z a"),  # in its own order
        ({"layers": [{"w": ONE}, {"w": TWO}]}, "layers/0/w layers/1/w"),
        ((ONE, (TWO, ONE)), "0 1/0 1/1"),
        (Pair(ONE, TWO), "kernel bias"),
        (Layer(ONE, [TWO]), "kernel bias/0"),
        (Module(ONE, TWO), "kernel bias"),
        ({0: {1: ONE}}, "0/1"),
        (nnx.State({"conv": {"kernel": nnx.Param(jnp.ones(1))}}), "conv/kernel"),
        (nnx.State({"w": nnx.Param({"a": jnp.ones(1), "b": jnp.ones(1)})}), "w/a w/b"),
    ],
)
def test_keys_are_joined_by_slashes_in_the_order_of_the_leaves(tree, paths):
    flat = tree_paths.flatten(tree)
    assert flat.paths == paths.split()
    assert len(flat.leaves) == len(flat.paths)
    assert all(
        mine is theirs
        for mine, theirs in zip(flat.leaves, jax.tree.leaves(tree), strict=True)
    )


def test_a_bare_array_has_the_empty_path():
    assert tree_paths.flatten(ONE).paths == [""]


@pytest.mark.parametrize("tree", [{}, [], (), None, {"a": None}])
def test_a_tree_without_leaves_has_no_paths(tree):
    flat = tree_paths.flatten(tree)
    assert flat.paths == flat.leaves == []
    assert flat.rebuilt({}) == tree


def test_linen_and_nnx_parameters_have_the_same_paths():
    class Net(nnx.Module):
        def __init__(self):
            self.conv = nnx.Conv(1, 2, (3, 3), rngs=nnx.Rngs(0))

    state = nnx.state(Net(), nnx.Param)
    assert tree_paths.flatten(state).paths == ["conv/bias", "conv/kernel"]


def test_a_class_of_another_library_that_is_called_variable_keeps_its_keys():
    # Only Flax's own Variable is seen through.
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Variable:
        value: Any

    assert tree_paths.flatten({"w": Variable(ONE)}).paths == ["w/value"]


def test_what_is_no_array_is_a_leaf_with_a_path_but_no_array():
    flat = tree_paths.flatten({"act": jax.nn.relu, "size": 3, "w": ONE})
    assert flat.paths == ["act", "size", "w"]
    assert [(i, path) for i, path, _ in tree_paths.arrays(flat)] == [(2, "w")]


@pytest.mark.parametrize(
    "leaf", [ONE, jnp.ones(1), np.float32(1), jax.ShapeDtypeStruct((1,), "float32")]
)
def test_numpy_jax_and_abstract_arrays_are_arrays(leaf):
    assert tree_paths.is_array(leaf)


@pytest.mark.parametrize("leaf", [1, 1.0, True, "w", jax.nn.relu, None])
def test_numbers_of_python_functions_and_strings_are_no_arrays(leaf):
    assert not tree_paths.is_array(leaf)


def test_rebuilt_puts_replacements_at_their_positions_and_keeps_the_rest():
    tree = {"a": [ONE, TWO], "b": Pair(ONE, jax.nn.relu)}
    rebuilt = tree_paths.flatten(tree).rebuilt({1: "second", 3: "fourth"})
    assert rebuilt == {"a": [ONE, "second"], "b": Pair(ONE, "fourth")}
    assert rebuilt["b"].kernel is ONE


def test_rebuilt_keeps_the_variables_of_nnx():
    state = nnx.State({"w": nnx.Param(jnp.zeros(2))})
    rebuilt = tree_paths.flatten(state).rebuilt({0: jnp.ones(2)})
    assert isinstance(rebuilt["w"], nnx.Param)
    np.testing.assert_array_equal(rebuilt["w"][...], [1, 1])


@pytest.mark.parametrize(
    ("path", "node", "inside"),
    [
        ("a/b", "a", True),
        ("a/b", "a/b", True),
        ("a/b", "", True),
        ("", "", True),
        ("ab", "a", False),  # a common beginning is not a common node
        ("a/bc", "a/b", False),
        ("a", "a/b", False),
        ("", "a", False),
    ],
)
def test_a_path_is_inside_the_nodes_it_leads_through(path, node, inside):
    assert tree_paths.is_inside(path, node) is inside


def test_nodes_that_optax_has_masked_are_listed_and_hold_no_leaves():
    tree = {"a": optax.MaskedNode(), "b": {"c": optax.MaskedNode(), "d": ONE}}
    flat = tree_paths.flatten(tree)
    assert flat.paths == ["b/d"]
    assert flat.masked == ["a", "b/c"]
    assert tree_paths.is_masked("a/kernel", flat)
    assert tree_paths.is_masked("b/c", flat)
    assert not tree_paths.is_masked("b/d", flat)


def test_a_listing_names_one_path_a_line():
    assert tree_paths.listing(["a/b", "c"]) == "\n  a/b\n  c"


def test_a_listing_stops_after_forty_and_counts_the_rest():
    lines = tree_paths.listing(f"p{i}" for i in range(45)).split("\n")
    # An empty string before the first line break, forty paths, a remark.
    assert len(lines) == 42
    assert lines[40] == "  p39"
    assert lines[41] == "  ... and 5 more"
    assert "more" not in tree_paths.listing(f"p{i}" for i in range(40))


def test_a_listing_of_nothing_and_of_an_empty_path_is_still_readable():
    assert "none" in tree_paths.listing([])
    assert "one array" in tree_paths.listing([""])


class TestMatchedPositions:
    """Another tree's arrays, found by path and checked by shape."""

    @staticmethod
    def matched(given: Any, params: Any) -> dict[int, int]:
        return tree_paths.matched_positions(
            "updates", tree_paths.flatten(given), tree_paths.flatten(params)
        )

    def test_equal_trees_match_leaf_by_leaf(self):
        tree = {"a": ONE, "b": TWO}
        assert self.matched(tree, tree) == {0: 0, 1: 1}

    def test_containers_may_differ(self):
        assert self.matched(Layer(ONE, TWO), Pair(ONE, TWO)) == {0: 0, 1: 1}

    def test_leaves_that_are_no_arrays_may_be_missing(self):
        # As in an Equinox module and its gradient.
        params = {"a": jax.nn.relu, "b": ONE, "c": 3.0, "d": TWO}
        given = {"a": None, "b": ONE, "c": None, "d": TWO}
        assert self.matched(given, params) == {1: 0, 3: 1}
        assert self.matched(params, given) == {0: 1, 1: 3}

    def test_arrays_where_the_parameters_are_masked_are_passed_over(self):
        params = {"a": optax.MaskedNode(), "b": ONE}
        assert self.matched({"a": {"x": TWO}, "b": ONE}, params) == {0: 1}

    @pytest.mark.parametrize(
        ("given", "params", "words"),
        [
            ({"a": ONE}, {"a": ONE, "b": {"c": ONE}}, "no array at 'b/c'"),
            ({"a": ONE, "b": {"c": ONE}}, {"a": ONE}, "an array at 'b/c', where"),
            ({"a": TWO}, {"a": ONE}, r"\(2,\) at 'a', where they have \(1,\)"),
            ({"a": None}, {"a": ONE}, "no array at 'a'"),
            ({"a": optax.MaskedNode()}, {"a": ONE}, "no array at 'a'"),
            (
                collections.OrderedDict(b=ONE, a=ONE),
                collections.OrderedDict(a=ONE, b=ONE),
                "another order",
            ),
            ([ONE], {"a": ONE}, "no array at 'a'"),
        ],
    )
    def test_a_difference_is_an_error_that_names_the_path(self, given, params, words):
        with pytest.raises(ValueError, match=words) as error:
            self.matched(given, params)
        assert str(error.value).startswith("updates must have the")

    def test_a_difference_in_structure_lists_the_paths_there_are(self):
        with pytest.raises(ValueError, match="\n  a/x\n  a/y"):
            self.matched({}, {"a": {"x": ONE, "y": TWO}})
