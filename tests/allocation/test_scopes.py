"""Scopes: what is ranked together, and how much of it goes."""

import re
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swd_jax
from swd_jax._allocation import scopes

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def resnet50():
    """Kernel shapes of ResNet-50, and the length of a side of what each computes."""
    layers = [((7, 7, 3, 64), 112)]
    inputs = 64
    for stage, (width, blocks, side) in enumerate(
        [(64, 3, 56), (128, 4, 28), (256, 6, 14), (512, 3, 7)]
    ):
        for block in range(blocks):
            # The first convolution of a stage still sees the larger image.
            larger = block == 0 and stage > 0
            layers.append(((1, 1, inputs, width), 2 * side if larger else side))
            layers.append(((3, 3, width, width), side))
            layers.append(((1, 1, width, 4 * width), side))
            if block == 0:
                layers.append(((1, 1, inputs, 4 * width), side))
            inputs = 4 * width
    return [*layers, ((2048, 1000), 1)]


# At 90 %, by hand: 1 - epsilon (sum of lengths) / (product of lengths), with an epsilon
# of 48.786097; by it the smallest kernel would keep more than all, and so it is dense.
AT_90_PERCENT = {
    (7, 7, 3, 64): 0.579967,
    (1, 1, 64, 64): 0,
    (3, 3, 64, 64): 0.822663,
    (1, 1, 64, 256): 0.041191,
    (1, 1, 256, 64): 0.041191,
    (1, 1, 256, 128): 0.425310,
    (3, 3, 128, 128): 0.913317,
    (1, 1, 128, 512): 0.522084,
    (1, 1, 256, 512): 0.713400,
    (1, 1, 512, 128): 0.522084,
    (1, 1, 512, 256): 0.713400,
    (3, 3, 256, 256): 0.957155,
    (1, 1, 256, 1024): 0.761414,
    (1, 1, 512, 1024): 0.856886,
    (1, 1, 1024, 256): 0.761414,
    (1, 1, 1024, 512): 0.856886,
    (3, 3, 512, 512): 0.978701,
    (1, 1, 512, 2048): 0.880800,
    (1, 1, 1024, 2048): 0.928489,
    (1, 1, 2048, 512): 0.880800,
    (2048, 1000): 0.927393,
}


def test_erk_agrees_with_the_table_for_resnet_50():
    shapes = [shape for shape, _ in resnet50()]
    assert len(shapes) == 54
    found = scopes.erk_sparsities(Fraction(9, 10), shapes)
    expected = [AT_90_PERCENT[shape] for shape in shapes]
    np.testing.assert_allclose(np.array(found, float), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("sparsity", "published"), [("0.8", 0.42), ("0.9", 0.24), ("0.95", 0.12)]
)
def test_erk_leaves_the_products_that_its_paper_counts(sparsity, published):
    """The FLOPs for a test of ResNet-50, table 2 of arXiv 1911.11134."""
    layers = resnet50()
    found = scopes.erk_sparsities(Fraction(sparsity), [shape for shape, _ in layers])
    products = [np.prod(shape) * side**2 for shape, side in layers]
    left = sum(n * (1 - float(s)) for n, s in zip(products, found, strict=True))
    assert left / sum(products) == pytest.approx(published, abs=0.01)


@pytest.mark.parametrize("sparsity", ["0", "0.3", "0.8", "0.95", "0.999"])
def test_erk_of_a_schedule_is_that_of_the_number(sparsity):
    shapes = [shape for shape, _ in resnet50()]
    exact = scopes.erk_sparsities(Fraction(sparsity), shapes)
    traced = jax.jit(lambda s: scopes.erk_sparsities(s, shapes))(
        jnp.float32(float(Fraction(sparsity)))
    )
    np.testing.assert_allclose(
        np.array(traced), np.array(exact, float), atol=3e-6, rtol=1e-5
    )
    # And of all of them together it is what was asked for, but never more.
    sizes = np.array([np.prod(shape) for shape in shapes], float)
    whole = (np.array(exact, float) * sizes).sum() / sizes.sum()
    assert float(Fraction(sparsity)) - 2e-7 <= whole + 1e-12
    assert whole <= float(Fraction(sparsity)) + 1e-12


def test_erk_prunes_each_leaf_to_its_own_sparsity():
    # Ratios (4 + 4) / 16 and (8 + 8) / 64: a leaf's kept share is twice the other's,
    # e/2 and e/4, and 8 e + 16 e = 40 kept weights: e = 5/3, 5/6 and 5/12.
    rng = np.random.default_rng(0)
    params = {
        "small": rng.normal(size=(4, 4)).astype(np.float32),
        "large": rng.normal(size=(8, 8)).astype(np.float32),
    }
    mask = swd_jax.prune_mask(params, swd_jax.Target(0.5, scope="erk"))
    lost = {name: int((~leaf).sum()) for name, leaf in mask.items()}
    assert lost == {"small": int(16 / 6), "large": int(64 * 7 / 12)}
    for name, leaf in params.items():
        order = np.argsort(np.abs(leaf), axis=None)[: lost[name]]
        assert set(np.flatnonzero(~np.asarray(mask[name]))) == set(order)


class TestAMapping:
    PARAMS = {
        "attention": {"query": np.array([[4.0, 3, 2, 1]], np.float32)},
        "mlp": {
            "up": np.array([[9.0, 1, 8, 2]], np.float32),
            "down": np.array([[3.0, 7, 4, 6]], np.float32),
        },
        "head": {"kernel": np.array([[0.1, 0.2]], np.float32)},
    }

    def lost(self, target):
        mask = swd_jax.prune_mask(self.PARAMS, target)
        return jax.tree.map(lambda kept: (~kept).astype(int).tolist(), mask)

    def test_ranks_together_what_matches_and_the_rest_at_the_sparsity(self):
        target = swd_jax.Target(0, scope={"attention": 0.25, "^mlp/": 0.5})
        assert self.lost(target) == {
            "attention": {"query": [[0, 0, 0, 1]]},
            # Of the eight of both, 1, 2, 3 and 4.
            "mlp": {"up": [[0, 1, 0, 1]], "down": [[1, 0, 1, 0]]},
            "head": {"kernel": [[0, 0]]},
        }

    def test_the_first_pattern_that_matches_counts(self):
        target = swd_jax.Target(0.5, scope={"up": 0, "mlp": 0.5, "query|head": 0.5})
        assert self.lost(target) == {
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
        assert state.selection.threshold.shape == (2,)  # of the query, and of the rest

    def test_a_pattern_that_matches_nothing_lists_the_paths(self):
        target = swd_jax.Target(0.5, scope={"attention": 0.25, "ffn": 0.5})
        with pytest.raises(ValueError, match=r"(?s)'ffn'.*nothing among.*mlp/up"):
            swd_jax.prune(self.PARAMS, target)
        with pytest.raises(ValueError, match=r"(?s)'ffn'.*nothing among.*mlp/up"):
            swd_jax.swd(target, weight_decay=1.0, a=1.0).init(self.PARAMS)

    def test_a_pattern_whose_leaves_are_taken_says_so(self):
        target = swd_jax.Target(0.5, scope={"mlp": 0.25, "mlp/up": 0.5})
        with pytest.raises(ValueError, match=r"'mlp/up'.*earlier patterns have taken"):
            swd_jax.prune(self.PARAMS, target)

    @pytest.mark.parametrize(
        ("scope", "message"),
        [
            ({"(": 0.5}, r"'\(', which is not a regular expression"),
            ({1: 0.5}, r"must map regular expressions to sparsities, got 1"),
            ({"mlp": 1.5}, r"sparsity.*1\.5"),
        ],
    )
    def test_one_that_can_never_do_is_an_error_at_once(self, scope, message):
        with pytest.raises(ValueError, match=message):
            swd_jax.Target(0.5, scope=scope)

    def test_patterns_may_be_compiled(self):
        target = swd_jax.Target(0, scope={re.compile("QUERY", re.IGNORECASE): 0.25})
        assert self.lost(target)["attention"]["query"] == [[0, 0, 0, 1]]


class TestAFloor:
    PARAMS = {
        "small": np.array([[0.1, 0.3], [0.4, 0.2]], np.float32),
        "large": np.arange(1.0, 9.0, dtype=np.float32).reshape(2, 4),
    }

    @pytest.mark.parametrize("floor", [2, 0.5, np.int64(2)])
    def test_each_leaf_keeps_its_best_and_others_lose_more(self, floor):
        # Of twelve six go: the small leaf keeps 0.3 and 0.4, and so 1 to 4 go.
        target = swd_jax.Target(0.5, min_kept=floor)
        expected = {
            "small": [[False, True], [True, False]],
            "large": [[False] * 4, [True] * 4],
        }
        for prune_mask in (
            swd_jax.prune_mask,
            jax.jit(swd_jax.prune_mask, static_argnums=1),
        ):
            mask = prune_mask(self.PARAMS, target)
            for name, kept in expected.items():
                np.testing.assert_array_equal(mask[name], kept)
        tx = swd_jax.swd(target, weight_decay=1.0, a=1.0)
        zeros = jax.tree.map(np.zeros_like, self.PARAMS)
        updates, state = jax.jit(tx.update)(zeros, tx.init(self.PARAMS), self.PARAMS)
        for name, kept in expected.items():
            np.testing.assert_array_equal(updates[name] == 0, kept)
        assert state.selection.selected_fraction == 0.5

    def test_without_one_a_leaf_may_be_emptied_and_the_report_says_so(self):
        target = swd_jax.Target(0.5)
        pruned = swd_jax.prune(self.PARAMS, target)
        assert not pruned["small"].any()
        assert "small" in str(swd_jax.summarize(pruned, target)).split("emptied")[-1]
        kept = swd_jax.prune(self.PARAMS, swd_jax.Target(0.5, min_kept=1))
        assert np.count_nonzero(kept["small"]) == 1
        assert np.count_nonzero(kept["large"]) == 5

    def test_of_weights_that_tie_the_floor_keeps_the_last(self):
        params = {"in": np.ones((2, 2), np.float32), "out": np.ones((2, 4), np.float32)}
        mask = swd_jax.prune_mask(params, swd_jax.Target(0.5, min_kept=1))
        np.testing.assert_array_equal(mask["in"].ravel(), [0, 0, 0, 1])
        np.testing.assert_array_equal(mask["out"].ravel(), [0, 0, 0, 1, 1, 1, 1, 1])

    def test_it_counts_weights_of_groups_too(self):
        # Channels of two weights: with a floor of one weight, one of them stays.
        target = swd_jax.Target(0.5, min_kept=1, structure=swd_jax.Channel(-1))
        mask = swd_jax.prune_mask(self.PARAMS, target)
        np.testing.assert_array_equal(mask["small"].sum(axis=0), [2, 0])
        assert mask["large"].sum() == 4

    def test_a_floor_above_what_there_is_keeps_everything(self):
        kept = swd_jax.prune(self.PARAMS, swd_jax.Target(0.5, min_kept=100))
        np.testing.assert_array_equal(kept["large"], self.PARAMS["large"])

    @pytest.mark.parametrize("floor", [-1, 1.5, 1.0, True, "half", None])
    def test_one_that_is_none_is_an_error(self, floor):
        with pytest.raises(
            ValueError, match=r"min_kept.*got " + re.escape(repr(floor))
        ):
            swd_jax.Target(0.5, min_kept=floor)
