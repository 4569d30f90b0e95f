"""Which part of a model a tree of parameters is."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax
from swd_jax._arrays import tree_paths
from swd_jax._coupling.path_prefix import find_prefix

X = jnp.ones((3, 6))


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def network(params, x):
    return jax.nn.relu(x @ params["w1"]) @ params["w2"]


def network_params(seed, width=5):
    return {"w1": random(6, width, seed=seed), "w2": random(width, 6, seed=seed + 1)}


def both(params, x):
    return network(params["dis"], network(params["gen"], x))


PARAMS = {"dis": network_params(0), "gen": network_params(2)}
DIFFERENT = {"dis": network_params(0, width=4), "gen": network_params(2)}


def groups_of(params):
    return swd_jax.channels.channel_groups(both, params, X)


def prefix_of(tree, params=PARAMS, **options):
    return find_prefix(groups_of(params), tree_paths.flatten(tree), **options)


class TestPrefix:
    def test_is_empty_for_the_whole_model(self):
        assert prefix_of(PARAMS) == ""

    def test_is_found_for_a_part_that_fits_once(self):
        assert prefix_of(DIFFERENT["gen"], DIFFERENT) == "gen/"
        assert prefix_of(DIFFERENT["dis"], DIFFERENT) == "dis/"

    def test_is_empty_for_a_tree_without_arrays(self):
        assert prefix_of({}) == ""

    @pytest.mark.parametrize("part", ["gen", "dis"])
    def test_is_not_guessed_for_a_part_that_fits_twice(self, part):
        with pytest.raises(
            ValueError, match=r"'dis', 'gen'.*give CoupledChannels\(prefix=\.\.\.\)"
        ):
            prefix_of(PARAMS[part])

    def test_is_not_guessed_for_a_part_with_the_paths_of_another(self):
        def apply(params, x):
            return network(params["ema"], network(params, x))

        params = network_params(0) | {"ema": network_params(2)}
        groups = swd_jax.channels.channel_groups(apply, params, X)
        flat = tree_paths.flatten(network_params(4))
        with pytest.raises(ValueError, match=r"in 2 places.*'', 'ema'"):
            find_prefix(groups, flat)
        assert find_prefix(groups, flat, prefix="") == ""
        assert find_prefix(groups, flat, prefix="ema") == "ema/"

    @pytest.mark.parametrize("prefix", ["gen", "gen/"])
    def test_may_be_given(self, prefix):
        assert prefix_of(PARAMS["gen"], prefix=prefix) == "gen/"

    def test_of_a_tree_that_is_one_array(self):
        assert prefix_of(DIFFERENT["gen"]["w1"], DIFFERENT) == "gen/w1"
        assert prefix_of(PARAMS["gen"]["w1"], prefix="gen/w1") == "gen/w1"

    def test_that_is_given_must_fit(self):
        with pytest.raises(ValueError, match="nothing under 'generator'"):
            prefix_of(PARAMS["gen"], prefix="generator")
        with pytest.raises(ValueError, match=r"where there was \(6, 4\) under 'dis'"):
            prefix_of(DIFFERENT["gen"], DIFFERENT, prefix="dis")


def test_a_target_does_not_guess_the_part():
    structure = swd_jax.CoupledChannels(groups_of(PARAMS))
    target = swd_jax.Target(0.3, structure=structure, prunable="w1")
    with pytest.raises(ValueError, match=r"give CoupledChannels\(prefix=\.\.\.\)"):
        swd_jax.prune(PARAMS["gen"], target)


@pytest.mark.parametrize("part", ["gen", "dis"])
def test_a_target_prunes_the_part_that_is_named(part):
    groups = groups_of(PARAMS)
    structure = swd_jax.CoupledChannels(groups, prefix=part)
    target = swd_jax.Target(0.3, structure=structure, prunable="w1")
    pruned = swd_jax.prune(PARAMS[part], target)
    kept = swd_jax.channels.kept_channels(PARAMS[part], target)
    num_kept = int((pruned["w1"] != 0).any(0).sum())
    assert 0 < num_kept < 5
    assert {name: int(vector.sum()) for name, vector in kept.items()} == {
        "gen": 5,
        "gen#2": 6,
        "dis": 5,
        part: num_kept,
    }
    params = PARAMS | {part: pruned}
    small = swd_jax.channels.shrink(both, params, groups, kept, X)
    assert small.shapes[f"{part}/w1"] == (6, num_kept)
    np.testing.assert_allclose(
        small.apply(small.params, X), both(params, X), rtol=1e-5, atol=1e-5
    )


class TestMasks:
    def test_of_a_part_that_fits_twice_are_refused(self):
        mask = {"w1": np.ones((6, 5), bool), "w2": np.ones((5, 6), bool)}
        mask["w1"][:, 1:] = False
        mask["w2"][1:] = False
        groups = groups_of(PARAMS)
        with pytest.raises(ValueError, match="groups fit kept in 2 places"):
            swd_jax.channels.shrink(both, PARAMS, groups, mask, X)
        with pytest.raises(ValueError, match="groups fit kept in 2 places"):
            swd_jax.channels.shrink_state(PARAMS, groups, mask)
        small = swd_jax.channels.shrink(both, PARAMS, groups, {"gen": mask}, X)
        assert small.shapes == {
            "dis/w1": (6, 5),
            "dis/w2": (5, 6),
            "gen/w1": (6, 1),
            "gen/w2": (1, 6),
        }

    def test_of_a_part_that_fits_once_are_cut_there(self):
        mask = {"w1": np.ones((6, 5), bool), "w2": np.ones((5, 6), bool)}
        mask["w1"][:, 1:] = False
        mask["w2"][1:] = False
        small = swd_jax.channels.shrink(both, DIFFERENT, groups_of(DIFFERENT), mask, X)
        assert small.shapes["gen/w1"] == (6, 1)
        assert small.shapes["dis/w1"] == (6, 4)


class TestStates:
    def test_of_a_part_that_fits_twice_need_the_prefix(self):
        groups = groups_of(PARAMS)
        # The 6 channels between the networks are "gen#2".
        kept = {"gen": np.arange(5) < 2, "gen#2": np.ones(6, bool)}
        kept["dis"] = np.ones(5, bool)
        state = optax.trace(0.9).init(PARAMS["gen"])
        with pytest.raises(ValueError, match=r"shrink_state\(prefix=\.\.\.\)"):
            swd_jax.channels.shrink_state(state, groups, kept)
        small = swd_jax.channels.shrink_state(state, groups, kept, prefix="gen")
        assert small.trace["w1"].shape == (6, 2)
        small = swd_jax.channels.shrink_state(state, groups, kept, prefix="dis")
        assert small.trace["w1"].shape == (6, 5)
        with pytest.raises(ValueError, match="prefix='generator' leads to none"):
            swd_jax.channels.shrink_state(state, groups, kept, prefix="generator")
