"""The study: its experiments, and the optimizers and learning rates that they need."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import swd_jax
from experiments import methods, registry, results, study, tables, tasks
from experiments.method import OPTIMIZERS, Training
from experiments.tasks import make_task
from experiments.training import Program
from swd_jax.channels import ChannelGroups
from tests.examples.test_paper import TINY, made_up

pytestmark = pytest.mark.no_cover


@pytest.fixture(autouse=True)
def _promotion_of_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def training(steps=100, **changes):
    def groups() -> ChannelGroups:
        raise AssertionError("nothing here prunes channels")

    run = dataclasses.replace(TINY, **changes)
    return Training(run, run.sparsity, steps, steps, groups)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_first_step_of_every_optimizer(name):
    """Without decay all gradients would point the other way; biases have none."""
    made = training(
        optimizer=name, learning_rate=0.1, decay="constant", weight_decay=0.5
    ).optimizer()
    params = {"kernel": jnp.array([[1.0, -2.0], [2.0, 4.0]]), "bias": jnp.ones(2)}
    gradients = {"kernel": -0.1 * params["kernel"], "bias": jnp.array([-3.0, 1.0])}
    updates, _ = made.update(gradients, made.init(params), params)
    kernel, bias = updates["kernel"], updates["bias"]
    signs = np.array([[1.0, -1.0], [1.0, 1.0]])
    if name == "sgd":  # 0.5 w - 0.1 w
        np.testing.assert_allclose(kernel, -0.1 * 0.4 * params["kernel"], rtol=1e-5)
        np.testing.assert_allclose(bias, [0.3, -0.1], rtol=1e-5)
    elif name in ("adam", "lion"):
        np.testing.assert_allclose(kernel, -0.1 * signs, rtol=1e-4)
        np.testing.assert_allclose(bias, [0.1, -0.1], rtol=1e-4)
    elif name == "lamb":  # as long as 0.1 times the weights: a norm of 5 and of 2^0.5
        np.testing.assert_allclose(kernel, -0.1 * 5 / 2 * signs, rtol=1e-4)
        np.testing.assert_allclose(bias, [0.1, -0.1], rtol=1e-4)
    else:  # a rotation, as near as five iterations come, of the matrix [1 -2; 2 4]
        rotation = np.array([[5.0, -4.0], [4.0, 5.0]]) / np.sqrt(41)
        np.testing.assert_allclose(kernel, -0.1 * rotation, atol=0.04)
        assert np.sign(bias).tolist() == [1, -1]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    "method", ["swd-rising", "gradual", "straight-through", "sparsify"]
)
def test_every_optimizer_can_be_traced_with_methods(name, method):
    run = dataclasses.replace(TINY, optimizer=name, method=method, decay="one-cycle")
    task = make_task(run, None, None)
    program = Program(task, methods.static(run))
    seeds, sparsity = jnp.arange(2), np.float32(0.9)
    carry = jax.eval_shape(program._start, seeds, sparsity)
    after, _ = jax.eval_shape(program._epochs, carry, task.data, sparsity)
    assert jax.tree.structure(after) == jax.tree.structure(carry)
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), t) for t in (after, carry)]
    assert shapes[0] == shapes[1]


def test_the_multiplier_is_bounded_with_sgd_only():
    for name in OPTIMIZERS:
        made = training(
            optimizer=name, learning_rate=1.0, decay="constant", mu=0.1, a_max=1e8
        )
        # 95 % of 2 (1 + momentum) / (learning rate · mu).
        expected = 0.95 * 2 * 1.9 / 0.1 if name == "sgd" else 1e8
        assert float(made.multiplier()(100)) == pytest.approx(expected, rel=1e-4)


def test_one_cycle_of_the_learning_rate():
    rate = training(learning_rate=0.5, decay="one-cycle").learning_rate()
    assert float(rate(0)) == pytest.approx(0.5 / 25)
    assert float(rate(20)) == pytest.approx(0.5)
    assert float(rate(60)) == pytest.approx(0.25, rel=1e-4)  # half way down a cosine
    assert float(rate(100)) == pytest.approx(0.5 / 25e4)


RUNS = {
    # Ten methods, and dense training.
    "study-picture": 10 * 3 * 6 + 6,
    # Five methods.
    "study-text": 2 * 5 * 3 * 3 + 3,
    "study-cifar10": 5 * 3 * 2 + 2,
    "study-cifar10-resnet20": 5 * 4 * 2 + 2,
    # Eight conditions, and sparsify-chained: on the digits with LAMB and Muon.
    "study-digits-conditions": 8 * (5 * 3 * 5 + 5) + 2 * 3 * 5,
    "study-cora-conditions": 8 * (6 * 3 * 5 + 5),
    # Three methods.
    "study-digits-fine-tuned": 3 * 4 * 5 + 5,
    "study-cora-fine-tuned": 3 * 4 * 10 + 10,
    # Seven methods.
    "study-digits-parts": 7 * 4 * 5 + 5,
    "study-cora-parts": 9 * 4 * 10 + 10,
    "study-picture-parts": 7 * 2 * 3 + 3,
}


@pytest.mark.parametrize("name", study.EXPERIMENTS)
def test_an_experiment_has_all_its_runs_and_goes_on(name, tmp_path):
    runs = registry.runs_of(name)
    names = {run.name for run in runs}
    assert len(names) == len(runs) == RUNS[name]
    assert {run.experiment for run in runs} == {name}
    # One task is made for all of them.
    assert len({(run.data, run.model, run.batch_size) for run in runs}) == 1
    assert results.finished(tmp_path, runs) == set()
    for run in (runs[0], runs[-1]):
        results.write(tmp_path, run, {"curves": {}, "final": {}})
    assert results.finished(tmp_path, runs) == {runs[0].name, runs[-1].name}
    method = next(run.method for run in runs if run.method != "dense")
    some = registry.chosen(runs, methods=[method], kept=[2], seeds=2)
    variants = len({run.variant for run in runs})
    assert len(some) == 2 * variants
    assert {run.kept_percent for run in some} == {"2"}


@pytest.mark.parametrize("method", ["sparsify", "sparsify-power-3"])
@pytest.mark.parametrize(
    ("changes", "is_inside"),
    [
        ({}, False),
        ({"optimizer": "sgd"}, False),
        ({"weight_decay": 0.1}, True),
        ({"optimizer": "lamb"}, True),
        ({"optimizer": "muon"}, True),
    ],
)
def test_an_optimizer_that_reads_weights_is_inside_of_sparsify(
    method, changes, is_inside
):
    def state(method):
        made = methods.make_method(training(method=method, **changes))
        return made.transform.init({"kernel": jnp.ones((4, 4))})

    inside = swd_jax.methods.LatentOptimizerState
    assert isinstance(state(method), inside) == is_inside
    assert not isinstance(state("sparsify-chained"), inside)


def test_conditions_change_one_thing_each():
    runs = {run.variant: run for run in study.study_digits_conditions()}
    assert runs["lr x0.1"].learning_rate == pytest.approx(3e-4)
    assert runs["lr x10"].learning_rate == pytest.approx(3e-2)
    assert (runs["steps x0.5"].epochs, runs["steps x2"].epochs) == (30, 120)
    assert {run.optimizer for run in runs.values()} == set(OPTIMIZERS)
    assert len(runs) == 8


def test_held_out_runs_differ_in_that_only():
    runs = registry.runs_of("study-picture-held-out")
    back = [dataclasses.replace(run, held_out=False) for run in runs]
    assert back == registry.runs_of("study-picture")
    assert all(run.held_out for run in runs)


def test_a_table_of_conditions_has_dense_training_of_each():
    found = [
        made_up("dense", 0.0, 0, 97.0, 97.0, variant="sgd"),
        made_up("gradual", 0.95, 0, 90.0, 90.0, variant="sgd"),
    ]
    heads, rows = tables.lines(found)
    assert heads[1:] == ["100", "5"]
    assert rows == [["dense sgd", "97.0", ""], ["gradual sgd", "", "90.0"]]


class TestImages:
    def test_are_moved_by_so_many_pixels_at_most_and_mirrored(self):
        images = np.random.default_rng(0).random((200, 5, 6, 1), np.float32)
        padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
        moved = np.asarray(tasks._cropped_and_flipped(jax.random.key(0), images, 1))
        seen = set()
        for i in range(len(images)):
            for row, column, is_mirrored in itertools.product(*map(range, (3, 3, 2))):
                crop = padded[i, row : row + 5, column : column + 6]
                crop = crop[:, ::-1] if is_mirrored else crop
                if np.array_equal(crop, moved[i]):
                    seen.add((row, column, is_mirrored))
                    break
            else:
                raise AssertionError(f"image {i} is no crop")
        assert len(seen) == 18

    def test_labels_are_smoothed(self):
        """Of one batch the loss is what it is by hand."""
        smooth = dataclasses.replace(TINY, label_smoothing=0.2)
        task = make_task(smooth, None, None)
        model = task.make(nnx.Rngs(0))
        batch = jnp.arange(7)
        loss = task.loss(model, task.data, batch, jax.random.key(0))
        pixels, labels = (np.asarray(part)[:7] for part in task.data["train"])
        sharp = make_task(TINY, None, None)
        assert sharp.loss(model, task.data, batch, jax.random.key(0)) != loss
        everything = np.asarray(task.data["train"][0], np.float32)
        mean = everything.mean((0, 1, 2))
        deviation = everything.std((0, 1, 2)) + 1e-6
        logits = np.asarray(model(jnp.asarray((pixels - mean) / deviation)), np.float64)
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        classes = logits.shape[-1]
        wanted = 0.8 * np.eye(classes)[labels] + 0.2 / classes
        assert loss == pytest.approx(-(wanted * logs).sum(-1).mean(), rel=1e-5)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"label_smoothing": 1.0}, "label_smoothing must be in"),
            ({"shift": -1}, "shift"),
        ],
    )
    def test_impossible_settings_are_errors(self, changed, message):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(TINY, **changed)
