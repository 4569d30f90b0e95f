"""Paths of leaves in any container, and trees matched with the parameters."""

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

LENGTH_1, LENGTH_2 = np.ones(1), np.ones(2)


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
        (
            {"Dense_0": {"bias": LENGTH_1, "kernel": LENGTH_2}},
            "Dense_0/bias Dense_0/kernel",
        ),
        ({"mlp/~/linear_0": {"w": LENGTH_1}}, "mlp/~/linear_0/w"),
        (collections.OrderedDict(z=LENGTH_1, a=LENGTH_2), "z a"),  # in its own order
        ({"layers": [{"w": LENGTH_1}, {"w": LENGTH_2}]}, "layers/0/w layers/1/w"),
        ((LENGTH_1, (LENGTH_2, LENGTH_1)), "0 1/0 1/1"),
        (Pair(LENGTH_1, LENGTH_2), "kernel bias"),
        (Layer(LENGTH_1, [LENGTH_2]), "kernel bias/0"),
        (Module(LENGTH_1, LENGTH_2), "kernel bias"),
        ({0: {1: LENGTH_1}}, "0/1"),
        (nnx.State({"conv": {"kernel": nnx.Param(jnp.ones(1))}}), "conv/kernel"),
        (nnx.State({"w": nnx.Param({"a": jnp.ones(1), "b": jnp.ones(1)})}), "w/a w/b"),
    ],
)
def test_keys_are_joined_by_slashes_in_the_order_of_the_leaves(tree, paths):
    flat = tree_paths.flatten(tree)
    assert flat.paths == paths.split()
    assert len(flat.leaves) == len(flat.paths)
    assert all(
        leaf is expected
        for leaf, expected in zip(flat.leaves, jax.tree.leaves(tree), strict=True)
    )


def test_a_bare_array_has_the_empty_path():
    assert tree_paths.flatten(LENGTH_1).paths == [""]


@pytest.mark.parametrize("tree", [{}, [], (), None, {"a": None}])
def test_a_tree_without_leaves_has_no_paths(tree):
    flat = tree_paths.flatten(tree)
    assert flat.paths == flat.leaves == []
    assert flat.rebuild({}) == tree


def test_linen_and_nnx_parameters_have_the_same_paths():
    class Net(nnx.Module):
        def __init__(self):
            self.conv = nnx.Conv(1, 2, (3, 3), rngs=nnx.Rngs(0))

    state = nnx.state(Net(), nnx.Param)
    assert tree_paths.flatten(state).paths == ["conv/bias", "conv/kernel"]


def test_a_class_of_another_library_named_variable_keeps_its_keys():
    # Only the keys of Flax's Variable are left out.
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Variable:
        value: Any

    assert tree_paths.flatten({"w": Variable(LENGTH_1)}).paths == ["w/value"]


def test_arrays_leave_out_functions_and_numbers():
    flat = tree_paths.flatten({"act": jax.nn.relu, "size": 3, "w": LENGTH_1})
    assert flat.paths == ["act", "size", "w"]
    assert [(i, path) for i, path, _ in tree_paths.arrays(flat)] == [(2, "w")]


@pytest.mark.parametrize(
    "leaf",
    [LENGTH_1, jnp.ones(1), np.float32(1), jax.ShapeDtypeStruct((1,), "float32")],
)
def test_numpy_jax_and_abstract_arrays_are_arrays(leaf):
    assert tree_paths.is_array(leaf)


@pytest.mark.parametrize("leaf", [1, 1.0, True, "w", jax.nn.relu, None])
def test_numbers_of_python_functions_and_strings_are_no_arrays(leaf):
    assert not tree_paths.is_array(leaf)


def test_rebuild_replaces_leaves_by_position():
    tree = {"a": [LENGTH_1, LENGTH_2], "b": Pair(LENGTH_1, jax.nn.relu)}
    rebuilt = tree_paths.flatten(tree).rebuild({1: "second", 3: "fourth"})
    assert rebuilt == {"a": [LENGTH_1, "second"], "b": Pair(LENGTH_1, "fourth")}
    assert rebuilt["b"].kernel is LENGTH_1


def test_rebuild_keeps_the_variables_of_nnx():
    state = nnx.State({"w": nnx.Param(jnp.zeros(2))})
    rebuilt = tree_paths.flatten(state).rebuild({0: jnp.ones(2)})
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


def test_masked_nodes_have_paths_and_no_leaves():
    tree = {"a": optax.MaskedNode(), "b": {"c": optax.MaskedNode(), "d": LENGTH_1}}
    flat = tree_paths.flatten(tree)
    assert flat.paths == ["b/d"]
    assert flat.masked_paths == ["a", "b/c"]
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


def test_a_listing_describes_no_paths_and_the_empty_path():
    assert "none" in tree_paths.listing([])
    assert "one array" in tree_paths.listing([""])


# Two arrays with the path "a/b/c".
SHARED = {"a/b": {"c": LENGTH_1}, "a": {"b/c": LENGTH_2}}


class TestSharedPaths:
    def test_they_are_an_error_where_leaves_are_looked_up_by_path(self):
        with pytest.raises(ValueError, match="^params has two arrays.*'a/b/c'"):
            tree_paths.arrays_by_path("params", tree_paths.flatten(SHARED))

    def test_a_leaf_that_is_no_array_shares_no_path(self):
        tree = {"a/b": {"c": LENGTH_1}, "a": {"b/c": 3}}
        by_path = tree_paths.arrays_by_path("params", tree_paths.flatten(tree))
        assert list(by_path) == ["a/b/c"]
        assert by_path["a/b/c"] is LENGTH_1

    def test_equal_trees_are_looked_up_by_position(self):
        flat = tree_paths.flatten(SHARED)
        find = tree_paths.array_lookup("nu", flat, flat)
        assert [find(i) for i in range(3)] == [LENGTH_2, LENGTH_1, None]

    def test_trees_of_other_containers_are_looked_up_by_path(self):
        tree = tree_paths.flatten(Pair(LENGTH_1, LENGTH_2))
        params = tree_paths.flatten(Layer(LENGTH_1, LENGTH_2))
        find = tree_paths.array_lookup("nu", tree, params)
        assert [find(0), find(1)] == [LENGTH_1, LENGTH_2]
        shared = tree_paths.flatten([SHARED])
        with pytest.raises(ValueError, match="^nu has two arrays.*'0/a/b/c'"):
            tree_paths.array_lookup("nu", shared, params)

    def test_arrays_with_one_path_have_positions_of_their_own(self):
        leaves = tree_paths.arrays(tree_paths.flatten(SHARED))
        assert [leaf.position for leaf in leaves] == [0, 1]
        # In the order of the keys "a" and "a/b".
        assert [leaf.array.shape for leaf in leaves] == [(2,), (1,)]


class TestMatchPositions:
    """Arrays of a tree, matched with the parameters by position or by path."""

    @staticmethod
    def match(tree: Any, params: Any) -> dict[int, int]:
        return tree_paths.match_positions(
            "updates", tree_paths.flatten(tree), tree_paths.flatten(params)
        )

    def test_equal_trees_match_leaf_by_leaf(self):
        tree = {"a": LENGTH_1, "b": LENGTH_2}
        assert self.match(tree, tree) == {0: 0, 1: 1}

    def test_arrays_that_share_a_path_match_by_position(self):
        assert self.match(SHARED, SHARED) == {0: 0, 1: 1}

    def test_arrays_that_share_a_path_must_have_their_own_shapes(self):
        exchanged = {"a/b": {"c": LENGTH_2}, "a": {"b/c": LENGTH_1}}
        with pytest.raises(ValueError, match=r"has \(1,\) at 'a/b/c', where they have"):
            self.match(exchanged, SHARED)

    def test_arrays_of_one_structure_that_the_parameters_lack_are_an_error(self):
        params, tree = {"a": LENGTH_1, "b": 3.0}, {"a": LENGTH_1, "b": LENGTH_1}
        with pytest.raises(ValueError, match="an array at 'b', where they have none"):
            self.match(tree, params)

    def test_containers_may_differ(self):
        assert self.match(Layer(LENGTH_1, LENGTH_2), Pair(LENGTH_1, LENGTH_2)) == {
            0: 0,
            1: 1,
        }

    def test_leaves_that_are_no_arrays_may_be_missing(self):
        # As in an Equinox module and its gradient.
        params = {"a": jax.nn.relu, "b": LENGTH_1, "c": 3.0, "d": LENGTH_2}
        gradient = {"a": None, "b": LENGTH_1, "c": None, "d": LENGTH_2}
        assert self.match(gradient, params) == {1: 0, 3: 1}
        assert self.match(params, gradient) == {0: 1, 1: 3}

    def test_arrays_at_masked_parameters_are_ignored(self):
        params = {"a": optax.MaskedNode(), "b": LENGTH_1}
        assert self.match({"a": {"x": LENGTH_2}, "b": LENGTH_1}, params) == {0: 1}

    @pytest.mark.parametrize(
        ("tree", "params", "words"),
        [
            (
                {"a": LENGTH_1},
                {"a": LENGTH_1, "b": {"c": LENGTH_1}},
                "no array at 'b/c'",
            ),
            (
                {"a": LENGTH_1, "b": {"c": LENGTH_1}},
                {"a": LENGTH_1},
                "an array at 'b/c', where",
            ),
            (
                {"a": LENGTH_2},
                {"a": LENGTH_1},
                r"\(2,\) at 'a', where they have \(1,\)",
            ),
            ({"a": None}, {"a": LENGTH_1}, "no array at 'a'"),
            ({"a": optax.MaskedNode()}, {"a": LENGTH_1}, "no array at 'a'"),
            (
                collections.OrderedDict(b=LENGTH_1, a=LENGTH_1),
                collections.OrderedDict(a=LENGTH_1, b=LENGTH_1),
                "another order",
            ),
            ([LENGTH_1], {"a": LENGTH_1}, "no array at 'a'"),
        ],
    )
    def test_a_difference_is_an_error_that_names_the_path(self, tree, params, words):
        with pytest.raises(ValueError, match=words) as error:
            self.match(tree, params)
        assert str(error.value).startswith("updates must have the")

    def test_a_difference_in_structure_lists_the_paths_there_are(self):
        with pytest.raises(ValueError, match="\n  a/x\n  a/y"):
            self.match({}, {"a": {"x": LENGTH_1, "y": LENGTH_2}})
