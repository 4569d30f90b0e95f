"""The report, against examples worked out by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import swd_jax

# Seven prunable weights: 0 0 1 2 2 3 4. At s = 0.6, k = floor(4.2) = 4 of them go: the
# two zeros, the 1 and the first 2.
PARAMS = {
    "bias": np.ones(2, np.float32),
    "in": {"kernel": np.array([[3, 0], [0, 4]], np.float32)},
    "out": {"kernel": np.array([[1, 2, -2]], np.float32)},
}


@pytest.fixture(scope="module")
def report():
    return swd_jax.summarize(PARAMS, 0.6)


class TestByHand:
    def test_counts(self, report):
        assert report.target_sparsity == 0.6
        assert report.weights == 7
        assert report.zeros == 2
        assert report.pruned == 4
        assert report.non_finite == 0
        assert report.parameters == 9  # with the two of the bias
        assert report.obtained_sparsity == pytest.approx(2 / 7)
        assert report.emptied_leaves == ()
        assert report.largest_stable_learning_rate is None

    def test_residual(self, report):
        # sqrt(1 + 4) of sqrt(9 + 16 + 1 + 4 + 4)
        assert report.residual == pytest.approx(np.sqrt(5 / 34), rel=1e-6)

    def test_bytes(self, report):
        # Dense: nine float32 numbers.
        assert report.bytes_dense == 36
        # bias: 8 as it is. in: 2 non-zeros, 8 bytes and a mask of one. out: 1 non-zero,
        # 4 bytes and a mask of one. (With indices in would take 16, out 8.)
        assert report.bytes_sparse == 8 + 9 + 5

    def test_leaves(self, report):
        first, second = report.leaves
        assert dataclasses.asdict(first) == {
            "path": "in/kernel",
            "shape": (2, 2),
            "dtype": "float32",
            "weights": 4,
            "zeros": 2,
            "pruned": 2,
            "non_finite": 0,
            "residual": 0.0,
        }
        assert first.sparsity == 0.5
        assert not first.emptied
        assert dataclasses.asdict(second) == {
            "path": "out/kernel",
            "shape": (1, 3),
            "dtype": "float32",
            "weights": 3,
            "zeros": 0,
            "pruned": 2,
            "non_finite": 0,
            "residual": pytest.approx(np.sqrt(5) / 3, rel=1e-6),
        }
        assert second.sparsity == 0

    def test_dict(self, report):
        values = report.as_dict()
        assert all(type(value) is float for value in values.values())
        assert values == pytest.approx(
            {
                "target_sparsity": 0.6,
                "obtained_sparsity": 2 / 7,
                "residual": np.sqrt(5 / 34),
                "weights": 7,
                "zeros": 2,
                "pruned": 4,
                "non_finite": 0,
                "non_finite_scores": 0,
                "emptied_leaves": 0,
                "num_warnings": 0,
                "parameters": 9,
                "bytes_dense": 36,
                "bytes_sparse": 22,
                "sparsity/in/kernel": 0.5,
                "residual/in/kernel": 0,
                "sparsity/out/kernel": 0,
                "residual/out/kernel": np.sqrt(5) / 3,
            },
            rel=1e-6,
        )

    def test_table(self, report):
        table, remarks = str(report).split("\n\n")
        rows = [line.split() for line in table.splitlines()]
        assert rows[0] == "leaf shape weights zeros sparsity pruned residual".split()
        assert rows[2] == "in/kernel (2, 2) 4 2 50.00% 2 0".split()
        assert rows[3] == "out/kernel (1, 3) 3 0 0.00% 2 0.745".split()
        assert rows[5] == "all prunable 7 2 28.57% 4 0.383".split()
        assert set(table.splitlines()[1]) == set(table.splitlines()[4]) == {"-"}
        assert "target sparsity 0.6, obtained 0.2857143" in remarks
        assert "residual 0.383" in remarks
        assert "36 bytes as dense arrays" in remarks
        assert "22 stored sparsely" in remarks
        assert "WARNING" not in remarks

    def test_columns_are_aligned(self, report):
        table = str(report).split("\n\n")[0].splitlines()
        assert len({len(line) for line in table}) == 1

    def test_the_summary_is_a_frozen_value(self, report):
        assert report == swd_jax.summarize(PARAMS, 0.6)
        with pytest.raises(dataclasses.FrozenInstanceError):
            report.zeros = 0


def test_once_pruned_the_target_is_met_and_nothing_is_at_risk():
    pruned = swd_jax.prune(PARAMS, 0.6)
    report = swd_jax.summarize(pruned, 0.6)
    assert report.zeros == report.pruned == 4
    assert report.obtained_sparsity == pytest.approx(4 / 7)
    assert report.residual == 0
    before = swd_jax.summarize(PARAMS, 0.6)
    assert report.bytes_sparse == before.bytes_sparse
    assert report.bytes_dense == before.bytes_dense


def test_more_zeros_than_the_target_wants_count_as_pruned():
    # k = floor(0.25 * 4) = 1, but two are zero already and stay so.
    report = swd_jax.summarize({"kernel": jnp.array([[0.0, 1.0], [0.0, 2.0]])}, 0.25)
    assert report.zeros == report.pruned == 2
    assert report.residual == 0


def test_a_local_target_takes_the_same_share_of_every_leaf():
    # floor(0.5 * 4) = 2 zeros of "in"; floor(0.5 * 3) = 1 of "out", the 1.
    report = swd_jax.summarize(PARAMS, swd_jax.Target(0.5, scope="local"))
    assert [leaf.pruned for leaf in report.leaves] == [2, 1]
    assert [leaf.residual for leaf in report.leaves] == pytest.approx([0, 1 / 3])
    assert report.residual == pytest.approx(np.sqrt(1 / 34))


def test_leaves_that_are_emptied_are_named_and_warned_of():
    params = {
        "large": {"kernel": jnp.full((2, 2), 10.0)},
        "small": {"kernel": jnp.full((1, 3), 0.1)},
        "empty": {"kernel": jnp.zeros((0, 3))},  # has nothing to lose
    }
    report = swd_jax.summarize(params, 0.5)  # k = 3 of 7
    assert report.emptied_leaves == ("small/kernel",)
    assert "WARNING: pruning leaves nothing of 'small/kernel'" in str(report)
    assert report.as_dict()["emptied_leaves"] == 1
    # sqrt(3 * 0.01) of sqrt(400.03)
    assert report.residual == pytest.approx(np.sqrt(0.03 / 400.03), rel=1e-6)
    normalized = swd_jax.Target(0.5, criterion="normalized_magnitude")
    assert swd_jax.summarize(params, normalized).emptied_leaves == ()


def test_weights_that_are_not_finite_are_counted_and_warned_of():
    params = {"kernel": jnp.array([[3.0, jnp.nan, -jnp.inf, 4.0]])}
    report = swd_jax.summarize(params, 0.25)
    assert report.non_finite == report.leaves[0].non_finite == 2
    assert report.as_dict()["non_finite"] == 2
    assert "WARNING: 2 weights are NaN or infinite" in str(report)
    # They are in no norm: 3 of sqrt(9 + 16).
    assert report.residual == pytest.approx(3 / 5)
    assert report.pruned == 1


class TestResidualOfTheWorstLeaf:
    # At scope="local" and 0.5 the head loses 3 of 3, 4: 3 / 5. The body loses 0.01 of a
    # norm of about 1000.
    PARAMS = {
        "body": {"kernel": jnp.array([[0.01, 1000.0]])},
        "head": {"kernel": jnp.array([[3.0, 4.0]])},
    }
    TARGET = swd_jax.Target(0.5, scope="local")

    def test_it_stands_beside_that_of_all_leaves_and_is_warned_of(self):
        report = swd_jax.summarize(self.PARAMS, self.TARGET)
        assert report.residual == pytest.approx(3 / 1000, rel=1e-3)
        assert report.worst_leaf.path == "head/kernel"
        assert "of one leaf at most 0.6, of 'head/kernel'" in str(report)
        assert "WARNING: pruning takes 0.6 of the norm of 'head/kernel'" in str(report)

    def test_no_warning_where_every_leaf_loses_little(self):
        head = {"kernel": jnp.array([[0.3, 4.0]])}  # 0.3 / 4.01 is less than 0.1
        report = swd_jax.summarize({**self.PARAMS, "head": head}, self.TARGET)
        assert "at most 0.0748, of 'head/kernel'" in str(report)
        assert "WARNING" not in str(report)

    def test_several_are_counted_and_an_emptied_leaf_is_named_once(self):
        params = {
            **self.PARAMS,
            "neck": {"kernel": jnp.array([[1.0, 4.0]])},
        }
        # At 0.6 a global target takes 0.01, 1, 3 and 3.5 of seven weights.
        gone = {"gone": {"kernel": jnp.array([[3.5]])}}
        text = str(swd_jax.summarize({**params, **gone}, 0.6))
        assert text.count("'gone/kernel'") == 1
        text = str(swd_jax.summarize(params, self.TARGET))
        assert "norm of 'head/kernel'" in text
        assert "one leaf and of 1 more is enough" in text

    def test_of_weights_that_are_nan_it_is_nan(self):
        params = {
            "lost": {"kernel": jnp.full((2, 2), jnp.nan)},
            "rest": {"kernel": jnp.array([[0.1, 5.0]])},
        }
        report = swd_jax.summarize(params, self.TARGET)
        assert report.residual == pytest.approx(0.1 / 5, rel=1e-3)
        assert np.isnan(report.leaves[0].residual)
        assert report.worst_leaf.path == "lost/kernel"
        assert "WARNING: 'lost/kernel' has no finite weights" in str(report)
        alone = swd_jax.summarize({"kernel": params["lost"]["kernel"]}, 0.5)
        assert np.isnan(alone.residual)
        assert np.isnan(alone.as_dict()["residual"])


class TestScoresThatAreNotFinite:
    def test_those_of_finite_weights_are_counted(self):
        target = swd_jax.Target(0.5, criterion=swd_jax.criteria.movement)
        accumulated = {"kernel": jnp.array([[jnp.nan, 1.0, jnp.inf, 2.0]])}
        params = {"kernel": jnp.array([[1.0, jnp.nan, 2.0, 3.0]])}
        extra_args = {"accumulated": accumulated}
        report = swd_jax.summarize(params, target, extra_args=extra_args)
        assert report.non_finite == 1
        assert report.non_finite_scores == 2
        assert report.pruned == 1  # of k = 2: only one score is finite
        assert "the scores of 2 other weights are NaN or infinite" in str(report)

    def test_a_block_with_nan_keeps_its_finite_weights(self):
        params = {"kernel": jnp.array([[jnp.nan, 1.0, 2.0, 3.0]])}
        target = swd_jax.Target(0.5, structure=swd_jax.Block((1, 2)))
        assert swd_jax.summarize(params, target).non_finite_scores == 1

    def test_what_a_structure_never_prunes_is_not_counted(self):
        # Of groups of four NM(2, 4) keeps two; the NaN makes the report look at scores.
        params = {"kernel": jnp.array([[jnp.nan, 1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 4.0]])}
        target = swd_jax.Target(0.25, structure=swd_jax.NM(2, 4, axis=-1))
        assert swd_jax.summarize(params, target).non_finite_scores == 0


class TestBytes:
    """The smallest of three forms, in bytes: all, non-zeros with a mask or indices."""

    @pytest.mark.parametrize(
        ("shape", "dtype", "sparsity", "expected"),
        [
            # 1000 weights, 1 left: 4 + 4 with an index, 4 + 125 with a mask.
            ((10, 100), jnp.float32, 0.999, 8),
            # 500 left: 2000 + 125 with a mask, 4000 with indices or as they are.
            ((10, 100), jnp.float32, 0.5, 2125),
            # All left: as they are.
            ((10, 100), jnp.float32, 0, 4000),
            # 950 left, at two bytes each: 1900 + 125 is more than the 2000 they take.
            ((10, 100), jnp.bfloat16, 0.05, 2000),
            # 900 left: 1800 + 125.
            ((10, 100), jnp.bfloat16, 0.1, 1925),
            # 9 weights, 4 left: 4 * 2 and two bytes for nine bits.
            ((3, 3), jnp.float16, 0.6, 10),
        ],
    )
    def test_of_one_leaf(self, shape, dtype, sparsity, expected):
        size = np.prod(shape)
        # Even sixteen-bit numbers tell 1, 1.01, ... apart or tie; k is the same.
        kernel = jnp.linspace(1, 2, size).reshape(shape).astype(dtype)
        report = swd_jax.summarize({"kernel": kernel}, sparsity)
        assert report.bytes_sparse == expected
        assert report.bytes_dense == size * jnp.dtype(dtype).itemsize

    def test_count_what_is_not_prunable_as_it_is(self):
        params = {"bias": jnp.ones(5), "kernel": jnp.ones((2, 2)), "n": jnp.int32(3)}
        report = swd_jax.summarize(params, 0.75)
        # Four bytes each: 5 + 4 + 1. Of the kernel one is left: 4 + 1.
        assert report.bytes_dense == 40
        assert report.bytes_sparse == 20 + 5 + 4
        assert report.parameters == 10


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_residuals_are_worked_out_in_float32_at_least(dtype):
    # 300 squared is more than a float16 holds.
    params = {"kernel": jnp.full((10, 10), 300.0, dtype)}
    report = swd_jax.summarize(params, 0.36)
    assert report.residual == pytest.approx(0.6, rel=1e-5)  # sqrt(0.36)
    assert report.leaves[0].dtype == jnp.dtype(dtype).name


def test_subnormal_weights_are_not_counted_as_zeros():
    params = {"kernel": np.array([[1e-45, 0.0, -0.0, 1.0]], np.float32)}
    assert swd_jax.summarize(params, 0.25).zeros == 2


class TestSchedule:
    TARGET = swd_jax.Target(swd_jax.cubic_sparsity(0.75, 0, 100))
    WEIGHTS = {"kernel": jnp.array([[1.0, 2.0, 3.0, 4.0]])}

    def test_without_a_step_the_report_is_for_where_it_settles(self):
        report = swd_jax.summarize(self.WEIGHTS, self.TARGET)
        assert (report.target_sparsity, report.pruned) == (0.75, 3)

    @pytest.mark.parametrize("step", [50, jnp.int32(50)])
    def test_with_a_step_it_is_for_that_step(self, step):
        report = swd_jax.summarize(self.WEIGHTS, self.TARGET, step=step)
        # 0.75 (1 - 0.5 ** 3) = 0.65625, of four weights 2.
        assert report.target_sparsity == pytest.approx(0.65625)
        assert report.pruned == 2


class TestState:
    """With the optimizer's state: how fast SGD may still learn."""

    @staticmethod
    def after_one_update(tx):
        updates = jax.tree.map(jnp.zeros_like, PARAMS)
        return tx.update(updates, tx.init(PARAMS), PARAMS)[1]

    def test_says_how_large_the_learning_rate_may_be(self):
        tx = optax.chain(
            swd_jax.swd(0.6, weight_decay=0.1, a=4.0), optax.sgd(0.1, momentum=0.9)
        )
        report = swd_jax.summarize(PARAMS, 0.6, state=self.after_one_update(tx))
        # 2 / (a mu) = 2 / 0.4; with momentum 0.9, 2 (1 - 0.9)^2 / 1.9 / 0.4.
        assert report.largest_stable_learning_rate == pytest.approx(5)
        assert report.as_dict()["largest_stable_learning_rate"] == pytest.approx(5)
        assert (
            "up to a learning rate of 5; with momentum 0.9 that is sure up to 0.0263"
            in (str(report))
        )

    def test_before_the_first_update_knows_no_limit(self):
        state = swd_jax.swd(0.6, weight_decay=0.1, a=4.0).init(PARAMS)
        report = swd_jax.summarize(PARAMS, 0.6, state=state)
        assert report.largest_stable_learning_rate == np.inf

    @pytest.mark.parametrize(
        "tx",
        [
            optax.chain(swd_jax.swd(0.6, weight_decay=0.1, a=4.0), optax.adam(0.1)),
            optax.chain(swd_jax.swd(0.6, weight_decay=0.1, a=4.0), optax.rmsprop(0.1)),
            optax.chain(
                optax.sgd(0.1),
                swd_jax.proximal_swd(0.6, weight_decay=0.1, a=4.0, learning_rate=0.1),
            ),
        ],
    )
    def test_says_nothing_of_sgd_where_there_is_no_limit(self, tx):
        report = swd_jax.summarize(PARAMS, 0.6, state=self.after_one_update(tx))
        assert report.largest_stable_learning_rate is None
        assert "SGD" not in str(report)

    def test_of_several_swd_counts_the_strongest(self):
        tx = optax.chain(
            swd_jax.swd(0.6, weight_decay=0.1, a=4.0),
            swd_jax.swd(0.3, weight_decay=0.1, a=10.0),
        )
        report = swd_jax.summarize(PARAMS, 0.6, state=self.after_one_update(tx))
        assert report.largest_stable_learning_rate == pytest.approx(2)

    def test_is_found_inside_wrappers(self):
        make = lambda a: optax.chain(swd_jax.swd(0.6, weight_decay=0.1, a=a))
        tx = optax.inject_hyperparams(make)(a=4.0)
        report = swd_jax.summarize(PARAMS, 0.6, state=self.after_one_update(tx))
        assert report.largest_stable_learning_rate == pytest.approx(5)

    def test_without_that_of_swd_is_an_error(self):
        with pytest.raises(ValueError, match="^state holds no state of swd"):
            swd_jax.summarize(PARAMS, 0.6, state=optax.adam(0.1).init(PARAMS))


class TestNothing:
    def test_of_parameters_that_optax_has_masked_all_is_zero(self):
        report = swd_jax.summarize({"kernel": optax.MaskedNode()}, 0.9)
        assert report.leaves == report.emptied_leaves == ()
        values = report.as_dict()
        assert values.pop("target_sparsity") == 0.9
        assert set(values.values()) == {0.0}
        assert "all prunable" in str(report)

    def test_of_weights_that_are_all_zero_the_residual_is_zero(self):
        report = swd_jax.summarize({"kernel": jnp.zeros((2, 2))}, 0.5)
        assert report.residual == report.leaves[0].residual == 0
        assert report.obtained_sparsity == 1
        assert report.emptied_leaves == ("kernel",)


def test_traced_parameters_are_an_error():
    def traced(params):
        return swd_jax.summarize(params, 0.6).residual

    with pytest.raises(ValueError, match="^params are traced.* outside jit"):
        jax.jit(traced)(PARAMS)


def test_large_numbers_are_grouped():
    report = swd_jax.summarize({"kernel": jnp.ones((100, 20))}, 0.9)
    assert "2,000" in str(report)
    assert "8,000 bytes" in str(report)


class TestLeavesThatStayDenseByName:
    def test_are_listed(self):
        params = {"kernel": jnp.ones((2, 2)), "gamma_map": jnp.ones((2, 2))}
        report = swd_jax.summarize(params, 0.5)
        assert report.left_by_name == ("gamma_map",)
        assert "\nleft dense by name: gamma_map\n" in f"{report}\n"

    def test_are_shortened_in_the_table(self):
        biases = {f"bias_{i}": jnp.ones((2, 2)) for i in range(9)}
        report = swd_jax.summarize({"kernel": jnp.ones((2, 2)), **biases}, 0.5)
        assert len(report.left_by_name) == 9
        assert "bias_4, bias_5 and 3 more, in left_by_name" in str(report)

    def test_are_not_mentioned_where_there_are_none_or_another_target_prunes_them(self):
        params = {"kernel": jnp.ones((2, 2)), "scale": jnp.ones((2, 2))}
        only_matrix = {"kernel": jnp.ones((2, 2)), "scale": jnp.ones(2)}
        targets = [swd_jax.Target(0.5), swd_jax.Target(0.5, prunable="scale")]
        for report in (
            swd_jax.summarize(only_matrix, 0.5),
            swd_jax.summarize(params, swd_jax.Target(0.5, prunable="kernel")),
            swd_jax.summarize(params, targets),
        ):
            assert report.left_by_name == ()
            assert "by name" not in str(report)
