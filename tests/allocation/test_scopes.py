"""Scopes: which leaves share a threshold, and at which sparsity."""

import copy
import pickle
import re
from collections.abc import Mapping
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swd_jax
from swd_jax._allocation import (
    scopes,
)


class TestMapping:
    PARAMS = {
        "attention": {"query": np.array([[4.0, 3, 2, 1]], np.float32)},
        "mlp": {
            "up": np.array([[9.0, 1, 8, 2]], np.float32),
            "down": np.array([[3.0, 7, 4, 6]], np.float32),
        },
        "head": {"kernel": np.array([[0.1, 0.2]], np.float32)},
    }

    def pruned(self, target):
        mask = swd_jax.prune_mask(self.PARAMS, target)
        return jax.tree.map(lambda leaf: (~leaf).astype(int).tolist(), mask)

    def test_ranks_together_what_matches_and_the_rest_at_the_sparsity(self):
        target = swd_jax.Target(0, scope={"attention": 0.25, "^mlp/": 0.5})
        assert self.pruned(target) == {
            "attention": {"query": [[0, 0, 0, 1]]},
            # 1, 2, 3 and 4 are the lowest half of both leaves.
            "mlp": {"up": [[0, 1, 0, 1]], "down": [[1, 0, 1, 0]]},
            "head": {"kernel": [[0, 0]]},
        }

    def test_the_first_pattern_that_matches_counts(self):
        target = swd_jax.Target(0.5, scope={"up": 0, "mlp": 0.5, "query|head": 0.5})
        assert self.pruned(target) == {
            "attention": {"query": [[0, 0, 0, 1]]},
            "mlp": {"up": [[0, 0, 0, 0]], "down": [[1, 0, 1, 0]]},
            "head": {"kernel": [[1, 1]]},
        }

    def test_a_pattern_may_have_a_schedule(self):
        target = swd_jax.Target(0, scope={"query": lambda step: 0.25 * step})
        tx = swd_jax.swd(target, weight_decay=1.0, a=1.0)
        state = tx.init(self.PARAMS)
        zeros = jax.tree.map(np.zeros_like, self.PARAMS)
        selected = []
        for _ in range(3):
            updates, state = tx.update(zeros, state, self.PARAMS)
            selected.append(int((updates["attention"]["query"] != 0).sum()))
            assert not updates["mlp"]["up"].any()
        assert selected == [0, 1, 2]
        assert state.selection.threshold.shape == (
            2,
        )  # of the query, and of the other leaves

    def test_a_pattern_that_matches_nothing_lists_the_paths(self):
        target = swd_jax.Target(0.5, scope={"attention": 0.25, "ffn": 0.5})
        with pytest.raises(ValueError, match=r"(?s)'ffn'.*none of the.*mlp/up"):
            swd_jax.prune(self.PARAMS, target)
        with pytest.raises(ValueError, match=r"(?s)'ffn'.*none of the.*mlp/up"):
            swd_jax.swd(target, weight_decay=1.0, a=1.0).init(self.PARAMS)

    def test_a_pattern_whose_leaves_are_taken_says_so(self):
        target = swd_jax.Target(0.5, scope={"mlp": 0.25, "mlp/up": 0.5})
        with pytest.raises(ValueError, match=r"'mlp/up'.*earlier patterns have taken"):
            swd_jax.prune(self.PARAMS, target)

    @pytest.mark.parametrize(
        ("scope", "message"),
        [
            ({"(": 0.5}, r"'\(', which is not a regular expression"),
            ({1: 0.5}, r"must map regular expressions .*, got 1 for a pattern"),
            ({"mlp": 1.5}, r"^scope\['mlp'\], .*1\.5"),
        ],
    )
    def test_an_invalid_mapping_is_an_error_at_construction(self, scope, message):
        with pytest.raises(ValueError, match=message):
            swd_jax.Target(0.5, scope=scope)

    def test_patterns_may_be_compiled(self):
        target = swd_jax.Target(0, scope={re.compile("QUERY", re.IGNORECASE): 0.25})
        assert self.pruned(target)["attention"]["query"] == [[0, 0, 0, 1]]


class TestFrozenMapping:
    ENTRIES = {"attention": 0.5, "mlp": swd_jax.cubic_sparsity(0.9, 0, 100)}

    def test_is_a_mapping_in_the_order_of_its_entries(self):
        mapping = scopes.FrozenMapping(self.ENTRIES)
        assert isinstance(mapping, Mapping)
        assert list(mapping.items()) == list(self.ENTRIES.items())
        assert mapping["attention"] == 0.5
        assert len(mapping) == 2
        assert repr(scopes.FrozenMapping({"mlp": 0.5})) == "{'mlp': 0.5}"

    def test_is_equal_and_hash_equal_for_equal_entries(self):
        first = scopes.FrozenMapping(self.ENTRIES)
        second = scopes.FrozenMapping(
            {"attention": 0.5, "mlp": swd_jax.cubic_sparsity(0.9, 0, 100)}
        )
        assert first == second
        assert hash(first) == hash(second)
        assert first == self.ENTRIES
        assert first != scopes.FrozenMapping({"attention": 0.5})
        assert first != "global"

    def test_in_another_order_is_another_value(self):
        """The first pattern that matches a leaf decides."""
        backwards = dict(reversed(self.ENTRIES.items()))
        assert scopes.FrozenMapping(self.ENTRIES) != scopes.FrozenMapping(backwards)

    def test_is_a_copy(self):
        entries = {"mlp": 0.5}
        mapping = scopes.FrozenMapping(entries)
        entries["mlp"] = 0.9
        assert mapping["mlp"] == 0.5
        with pytest.raises(TypeError):
            mapping["mlp"] = 0.9

    def test_can_be_copied_and_pickled(self):
        mapping = scopes.FrozenMapping({"mlp": 0.5})
        assert copy.deepcopy(mapping) == mapping
        assert pickle.loads(pickle.dumps(mapping)) == mapping


class TestConversion:
    @pytest.mark.parametrize("scope", ["global", "local", "erk"])
    def test_a_name_stays_as_it_is(self, scope):
        assert scopes.as_scope(scope) == scope

    def test_a_mapping_becomes_hashable_also_with_arrays(self):
        scope = scopes.as_scope({"mlp": jnp.float32(0.9), re.compile("up"): 0.5})
        hash(scope)
        assert isinstance(scope["mlp"], np.float32)
        assert scopes.as_scope(scope) is scope

    @pytest.mark.parametrize("scope", ["layer", 0.5, None, {}, ["mlp"]])
    def test_anything_else_is_an_error(self, scope):
        with pytest.raises(ValueError, match=r"scope must be .* or a mapping"):
            scopes.as_scope(scope)


def test_a_schedule_of_several_pools_is_evaluated_once():
    calls = []

    def schedule(step):
        calls.append(step)
        return 0.5 * step

    scope = {"query": schedule, "up": 0.25, "down": schedule}
    pools = ((0,), (1,), (2,), (3,))
    shapes = [(2, 2)] * 4
    step = jnp.int32(1)
    sparsities = scopes.pool_sparsities(scope, schedule, step, shapes, pools)
    assert sparsities == [
        Fraction(1, 2),
        Fraction(1, 4),
        Fraction(1, 2),
        Fraction(1, 2),
    ]
    assert len(calls) == 1
