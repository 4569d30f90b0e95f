"""A user's criterion: names, plain functions, and factories of equal criteria."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swd_jax
from swd_jax.criteria import _as_criterion
from tests.helpers.scoring import GRADIENT, KERNEL, pruned_ints


@pytest.mark.parametrize(
    "name",
    [
        "magnitude",
        "normalized_magnitude",
        "rms_normalized_magnitude",
        "lamp",
        "saliency",
        "movement",
        "fisher",
    ],
)
def test_a_name_stands_for_the_criterion_which_prints_as_its_expression(name):
    criterion = getattr(swd_jax.criteria, name)
    assert _as_criterion.as_criterion(name) is criterion
    assert _as_criterion.as_criterion(criterion) is criterion
    assert repr(criterion) == f"swd_jax.criteria.{name}"


def agreement(weights, gradient):
    return jnp.abs(weights * gradient)


def test_a_users_criterion_does_not_print_as_one_of_the_library():
    assert repr(_as_criterion.as_criterion(agreement)) == "Criterion('agreement')"
    assert repr(_as_criterion.as_criterion(lambda w: w)) == "Criterion('<lambda>')"
    criterion = swd_jax.criteria.Criterion("magnitude", lambda w, _: abs(w))
    assert repr(criterion) == "Criterion('magnitude')"


EQUAL = [
    lambda: swd_jax.criteria.mean_saliency(0.9),
    lambda: swd_jax.criteria.random_scores(3),
    lambda: _as_criterion.as_criterion(agreement),
]


@pytest.mark.parametrize("make", EQUAL)
def test_equal_arguments_give_equal_criteria(make):
    assert make() == make()
    assert hash(make()) == hash(make())


def test_other_arguments_give_other_criteria():
    criteria = {
        swd_jax.criteria.mean_saliency(0.9),
        swd_jax.criteria.mean_saliency(0.99),
        swd_jax.criteria.random_scores(3),
        swd_jax.criteria.random_scores(4),
        _as_criterion.as_criterion(agreement),
        _as_criterion.as_criterion(lambda w: w),
    }
    assert len(criteria) == 6


def test_a_number_of_any_type_gives_the_same_criterion():
    assert swd_jax.criteria.mean_saliency(np.float32(0.9)) == (
        swd_jax.criteria.mean_saliency(decay=0.9)
    )
    assert swd_jax.criteria.random_scores(np.int64(3)) == (
        swd_jax.criteria.random_scores(seed=3)
    )


@pytest.mark.parametrize(
    ("make", "extra_args"),
    [
        (lambda: swd_jax.criteria.random_scores(3), None),
        (lambda: swd_jax.criteria.mean_saliency(0.9), {"accumulated": KERNEL}),
    ],
)
def test_an_equal_target_does_not_trace_again(make, extra_args):
    traces = []

    def prune(params, extra_args, target):
        traces.append(target)
        return swd_jax.prune(params, target, extra_args=extra_args)

    jitted = jax.jit(prune, static_argnames="target")
    for _ in range(2):
        target = swd_jax.Target(
            swd_jax.cubic_sparsity(0.5, 0, 10), scope={"kernel": 0.5}, criterion=make()
        )
        jitted(KERNEL, extra_args, target=target)
    assert len(traces) == 1


@pytest.mark.parametrize("unknown", ["lamb", "Magnitude", "", None, 1, ["x"]])
def test_an_unknown_criterion_is_an_error_that_lists_the_known_ones(unknown):
    with pytest.raises(ValueError, match=r"criterion must be .*normalized_mag"):
        swd_jax.Target(0.5, criterion=unknown)


class TestPlainFunction:
    def test_of_the_weights(self):
        by_square = swd_jax.Target(0.5, criterion=lambda weights: weights**2)
        assert pruned_ints(KERNEL, by_square) == pruned_ints(
            KERNEL, swd_jax.Target(0.5)
        )
        closest_to_two = swd_jax.Target(0.25, criterion=lambda w: jnp.abs(w - 2))
        assert pruned_ints({"kernel": KERNEL["kernel"] + 0.1}, closest_to_two) == {
            "kernel": [[1, 0], [0, 0]]
        }

    @pytest.mark.parametrize(
        "structure", [swd_jax.Unstructured(), swd_jax.NM(2, 4), swd_jax.Channel(-1)]
    )
    def test_may_have_scores_of_either_sign(self, structure):
        # The lowest are -4 and -3, not 1 and 2 of the smallest magnitudes.
        params = {"kernel": np.float32([[-3, 1, 2, -4]])}
        axis = {"axis": -1} if isinstance(structure, swd_jax.NM) else {}
        target = swd_jax.Target(
            0.5,
            structure=dataclasses.replace(structure, **axis),
            criterion=lambda weights: weights,
        )
        assert pruned_ints(params, target) == {"kernel": [[1, 0, 0, 1]]}

    def test_keeps_the_sign_of_a_movement(self):
        # -w g is -1 2 -3 -4: the last weight moves towards zero fastest.
        target = swd_jax.Target(
            0.25, criterion=lambda weights, gradient: -weights * gradient
        )
        gradient = {"kernel": np.float32([[1, 1], [1, 1]])}
        assert pruned_ints(KERNEL, target, extra_args={"gradient": gradient}) == {
            "kernel": [[0, 0], [0, 1]]
        }

    def test_loses_one_bit_of_its_scores(self):
        """Two scores tie that differ in the last bit alone, and the first is pruned."""
        even = np.float32(1)
        odd = np.nextafter(even, np.float32(2))
        params = {"kernel": np.array([[odd, even, 9, 9]], np.float32)}
        signed = swd_jax.Target(0.25, criterion=lambda weights: weights)
        assert pruned_ints(params, signed) == {"kernel": [[1, 0, 0, 0]]}
        unsigned = swd_jax.criteria.Criterion("identity", lambda w, _: w)
        exact = swd_jax.Target(0.25, criterion=unsigned)
        assert pruned_ints(params, exact) == {"kernel": [[0, 1, 0, 0]]}

    def test_that_cannot_be_hashed_is_an_error(self):
        @dataclasses.dataclass
        class Weighted:
            importance: np.ndarray

            def __call__(self, weights):
                return abs(weights) * self.importance

        with pytest.raises(ValueError, match=r"criterion 'Weighted' must be hashable"):
            swd_jax.Target(0.5, criterion=Weighted(np.ones(4)))

    def test_reads_what_its_further_parameters_name(self):
        def agreement(weights, gradient, importance):
            return jnp.abs(weights * gradient) * importance

        target = swd_jax.Target(0.5, criterion=agreement)
        importance = {"kernel": np.array([[0.1, 1], [1, 10]], np.float32)}
        tx = swd_jax.swd(target, weight_decay=1.0, a=1.0)
        updates, _ = tx.update(GRADIENT, tx.init(KERNEL), KERNEL, importance=importance)
        # Scores 0.4, 2, 1.5, 4.
        moved = np.asarray(updates["kernel"]) != GRADIENT["kernel"]
        np.testing.assert_array_equal(moved, [[1, 0], [1, 0]])
        with pytest.raises(ValueError, match=r"needs importance"):
            tx.update(GRADIENT, tx.init(KERNEL), KERNEL)

    @pytest.mark.parametrize(
        "function", [lambda: 1, lambda *weights: 1, lambda weights, **more: 1]
    )
    def test_with_unknown_arguments_is_an_error(self, function):
        with pytest.raises(ValueError, match=r"must be a function of the weights"):
            swd_jax.Target(0.5, criterion=function)

    def test_without_a_score_for_each_weight_is_an_error(self):
        target = swd_jax.Target(0.5, criterion=jnp.sum)
        with pytest.raises(ValueError, match=r"scores in the shape of the weights"):
            swd_jax.prune(KERNEL, target)
