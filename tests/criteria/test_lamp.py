"""LAMP against its formula in float64."""

import jax
import numpy as np
import pytest

import swd_jax
from tests.helpers.scoring import (
    pruned_ints,
    scores,
)


@pytest.fixture(scope="module")
def weights():
    return np.random.default_rng(0).standard_normal((31, 17)).astype(np.float32)


class TestLamp:
    def test_it_is_the_share_of_the_squares_that_are_not_smaller(self):
        # Squares 1 4 9 16: 1/30, 4/29, 9/25 and 16/16.
        values = scores(swd_jax.criteria.lamp, np.float32([[-3, 1], [2, -4]]))
        expected = np.sqrt([[9 / 25, 1 / 30], [4 / 29, 1]])
        np.testing.assert_allclose(values, expected, rtol=1e-6)

    def test_weights_that_tie_have_one_score(self):
        # 1 / (1 + 1 + 4) for both.
        values = scores(swd_jax.criteria.lamp, np.float32([[1, -1, 2]]))
        np.testing.assert_allclose(values, [[6**-0.5, 6**-0.5, 1]], rtol=1e-6)

    @pytest.mark.parametrize("scale", [1e-33, 1e-20, 1.0, 1e20, 1e37])
    def test_no_scale_changes_it(self, weights, scale):
        leaf = (weights * np.float32(scale)).astype(np.float32)
        squares = np.sort((leaf.astype(np.float64) / scale) ** 2, axis=None)
        sums = np.cumsum(squares[::-1])[::-1]
        order = np.argsort(np.abs(leaf), axis=None)
        expected = np.empty(leaf.size)
        expected[order] = np.sqrt(squares / sums)
        values = scores(swd_jax.criteria.lamp, leaf)
        np.testing.assert_allclose(values.ravel(), expected, rtol=2e-5)
        np.testing.assert_array_equal(np.argsort(values, axis=None), order)

    def test_a_global_target_takes_by_leaf_as_its_paper_does(self):
        # Scores of 1 2 3 and of 10 10 20: 1/14 4/13 1; 1/6 1/6 1. Three of six go.
        params = {
            "first": np.float32([[1, 2, 3]]),
            "second": np.float32([[10, 10, 20]]),
        }
        assert pruned_ints(params, swd_jax.Target(0.5, criterion="lamp")) == {
            "first": [[1, 0, 0]],
            "second": [[1, 1, 0]],
        }

    def test_what_is_not_finite_counts_in_no_sum_and_is_kept(self):
        values = scores(swd_jax.criteria.lamp, np.float32([[np.nan, 3, np.inf, 4]]))
        np.testing.assert_array_equal(np.isfinite(values), [[0, 1, 0, 1]])
        np.testing.assert_allclose(values[0, [1, 3]], [0.6, 1], rtol=1e-6)

    def test_a_leaf_of_zeros_and_one_without_weights(self):
        np.testing.assert_array_equal(
            scores(swd_jax.criteria.lamp, np.zeros((2, 3))), 0
        )
        assert scores(swd_jax.criteria.lamp, np.zeros((0, 3), np.float32)).shape == (
            0,
            3,
        )

    def test_leaves_in_parts_are_refused_as_criterion(self):
        prune = jax.vmap(
            lambda part: swd_jax.prune(
                part, swd_jax.Target(0.5, criterion="lamp"), axis_name="halves"
            ),
            axis_name="halves",
        )
        with pytest.raises(
            ValueError, match=r"swd_jax.criteria.lamp has statistics of whole"
        ):
            prune({"kernel": np.ones((2, 2, 2), np.float32)})
