"""Random scores: exact counts, positions alone, seeds."""

import jax.numpy as jnp
import numpy as np
import pytest

import swd_jax
from swd_jax.criteria import _criterion


class TestRandomScores:
    PARAMS = {
        "in": np.random.default_rng(9).normal(size=(40, 50)).astype(np.float32),
        "out": np.random.default_rng(10).normal(size=(30, 100)).astype(np.float32),
    }

    def mask(self, seed, params=PARAMS):
        target = swd_jax.Target(0.3, criterion=swd_jax.criteria.random_scores(seed))
        masks = swd_jax.prune_mask(params, target)
        return {name: np.asarray(mask) for name, mask in masks.items()}

    def test_the_count_is_exact_and_the_positions_are_spread_evenly(self):
        mask = self.mask(0)
        assert sum((~leaf).sum() for leaf in mask.values()) == 1500
        # 0.3 of each leaf, of its small weights and of every other column, within 5
        # standard deviations.
        for name, leaf in self.PARAMS.items():
            small = np.abs(leaf) < np.median(np.abs(leaf))
            for part in (mask[name], mask[name][small], mask[name][:, ::2]):
                deviation = 5 * np.sqrt(0.21 / part.size)
                assert (~part).mean() == pytest.approx(0.3, abs=deviation)

    def test_scores_depend_on_positions_only(self):
        changed = {name: 3 * leaf[::-1] for name, leaf in self.PARAMS.items()}
        for name, mask in self.mask(0, changed).items():
            np.testing.assert_array_equal(mask, self.mask(0)[name])

    @pytest.mark.parametrize("seed", [1, 2**16, 2**31, 2**32, -1])
    def test_another_seed_gives_an_independent_choice(self, seed):
        first, second = self.mask(0), self.mask(seed)
        agreement = [(first[n] == second[n]).mean() for n in self.PARAMS]
        # Independent masks agree on 0.7^2 + 0.3^2.
        np.testing.assert_allclose(agreement, 0.58, atol=0.05)

    def test_no_leaf_has_the_scores_of_another_leaf_or_seed(self):
        """Seeds that differ by 1 or 65,536 shared leaves when both were added up."""
        leaf = np.ones((4, 4), np.float32)
        seeds = [0, 1, 2, 2**16, 2**16 + 1, 2**17]
        scores = set()
        for seed in seeds:
            criterion = swd_jax.criteria.random_scores(seed)
            leaf_seeds = _criterion.statistics(criterion, [leaf] * 10, jnp.float32)
            for leaf_seed in leaf_seeds:
                values = _criterion.scores(criterion, leaf, leaf_seed, {}, jnp.float32)
                scores.add(np.asarray(values).tobytes())
        assert len(scores) == 10 * len(seeds)

    @pytest.mark.parametrize("seed", [0.5, "1", None, True])
    def test_another_type_of_seed_is_an_error(self, seed):
        with pytest.raises(ValueError, match=r"seed must be a whole number, got"):
            swd_jax.criteria.random_scores(seed)
