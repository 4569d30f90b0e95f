"""What every leaf keeps at least."""

import re

import jax
import numpy as np
import pytest

import swd_jax


class TestMinKept:
    PARAMS = {
        "small": np.array([[0.1, 0.3], [0.4, 0.2]], np.float32),
        "large": np.arange(1.0, 9.0, dtype=np.float32).reshape(2, 4),
    }

    @pytest.mark.parametrize("min_kept", [2, 0.5, np.int64(2)])
    def test_each_leaf_keeps_its_best_and_other_leaves_lose_more(self, min_kept):
        # Six of twelve are pruned: 0.1 and 0.2 of the small leaf, which keeps two, and
        # 1 to 4 of the large one.
        target = swd_jax.Target(0.5, min_kept=min_kept)
        expected = {
            "small": [[False, True], [True, False]],
            "large": [[False] * 4, [True] * 4],
        }
        for prune_mask in (
            swd_jax.prune_mask,
            jax.jit(swd_jax.prune_mask, static_argnums=1),
        ):
            mask = prune_mask(self.PARAMS, target)
            for name, mask_of_leaf in expected.items():
                np.testing.assert_array_equal(mask[name], mask_of_leaf)
        tx = swd_jax.swd(target, weight_decay=1.0, a=1.0)
        zeros = jax.tree.map(np.zeros_like, self.PARAMS)
        updates, state = jax.jit(tx.update)(zeros, tx.init(self.PARAMS), self.PARAMS)
        for name, mask_of_leaf in expected.items():
            np.testing.assert_array_equal(updates[name] == 0, mask_of_leaf)
        assert state.selection.selected_fraction == 0.5

    def test_without_it_a_leaf_may_be_emptied_and_the_report_says_so(self):
        target = swd_jax.Target(0.5)
        pruned = swd_jax.prune(self.PARAMS, target)
        assert not pruned["small"].any()
        assert "small" in str(swd_jax.summarize(pruned, target)).split("emptied")[-1]
        pruned = swd_jax.prune(self.PARAMS, swd_jax.Target(0.5, min_kept=1))
        assert np.count_nonzero(pruned["small"]) == 1
        assert np.count_nonzero(pruned["large"]) == 5

    def test_the_last_of_weights_that_tie_is_kept(self):
        params = {"in": np.ones((2, 2), np.float32), "out": np.ones((2, 4), np.float32)}
        mask = swd_jax.prune_mask(params, swd_jax.Target(0.5, min_kept=1))
        np.testing.assert_array_equal(mask["in"].ravel(), [0, 0, 0, 1])
        np.testing.assert_array_equal(mask["out"].ravel(), [0, 0, 0, 1, 1, 1, 1, 1])

    def test_ties_that_a_leaf_keeps_do_not_count_as_selected(self):
        # Six of twelve may go. The small leaf may lose two, but its four weights tie:
        # none is below its threshold. 1 to 4 of the large leaf are below 5.
        params = {**self.PARAMS, "small": np.full((2, 2), 0.5, np.float32)}
        target = swd_jax.Target(0.5, min_kept=2)
        tx = swd_jax.swd(target, weight_decay=1.0, a=1.0)
        zeros = jax.tree.map(np.zeros_like, params)
        updates, state = jax.jit(tx.update)(zeros, tx.init(params), params)
        assert not updates["small"].any()
        np.testing.assert_array_equal(updates["large"], [[1, 2, 3, 4], [0, 0, 0, 0]])
        assert state.selection.selected_fraction == np.float32(4 / 12)

    def test_it_counts_weights_of_channels_too(self):
        # With channels of two weights, one weight to keep is one channel.
        target = swd_jax.Target(0.5, min_kept=1, structure=swd_jax.Channel(-1))
        mask = swd_jax.prune_mask(self.PARAMS, target)
        np.testing.assert_array_equal(mask["small"].sum(axis=0), [2, 0])
        assert mask["large"].sum() == 4

    def test_a_number_beyond_the_size_keeps_everything(self):
        pruned = swd_jax.prune(self.PARAMS, swd_jax.Target(0.5, min_kept=100))
        np.testing.assert_array_equal(pruned["large"], self.PARAMS["large"])

    @pytest.mark.parametrize("min_kept", [-1, 1.5, 1.0, True, "half", None])
    def test_another_number_is_an_error(self, min_kept):
        with pytest.raises(
            ValueError, match=r"min_kept.*got " + re.escape(repr(min_kept))
        ):
            swd_jax.Target(0.5, min_kept=min_kept)
