"""The task of a picture: its pixels, its network and its measure."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sklearn.datasets import load_sample_image

from data_loading import Picture, load
from experiments import tables
from experiments.bases import picture_base
from experiments.picture_task import decibels
from experiments.run import Run
from experiments.task import abstract_model
from experiments.tasks import make_task
from models import macs
from models.coordinates import CoordinateNetwork
from tests.helpers.quick_program import QuickProgram

pytestmark = pytest.mark.no_cover

RUN = dataclasses.replace(picture_base("tiny"), epochs=5, model="coordinates-16")


@pytest.fixture(autouse=True)
def _promotion_of_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def picture():
    return load("picture", None)


def test_each_pixel_is_learnt_or_tested(picture):
    pixels = {
        tuple(position): colour
        for position, colour in zip(
            np.concatenate([picture.train_positions, picture.test_positions]).tolist(),
            np.concatenate([picture.train_colours, picture.test_colours]),
            strict=True,
        )
    }
    assert len(pixels) == 128 * 128
    assert len(picture.train_positions) == len(picture.test_positions) == 8192
    # The middle 384 × 384 of 427 × 640 pixels, three a side for one.
    original = load_sample_image("china.jpg")
    corners = {
        (-1.0, -1.0): original[21:24, 128:131],
        (1.0, -1.0): original[21:24, 509:512],
        (-1.0, 1.0): original[402:405, 128:131],
    }
    for position, square in corners.items():
        np.testing.assert_allclose(
            pixels[position], square.mean((0, 1)) / 255, rtol=1e-5
        )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"test_colours": np.zeros((2, 3), np.float32)}, "3 test pixels, but 2 colo"),
        ({"train_positions": np.zeros((3, 2))}, "training positions are float64"),
        ({"test_colours": -np.ones((3, 3), np.float32)}, "not all from 0 to 1"),
    ],
)
def test_what_is_no_picture_is_refused(change, problem):
    positions, colours = np.zeros((3, 2), np.float32), np.zeros((3, 3), np.float32)
    arguments = {
        "train_positions": positions,
        "train_colours": colours,
        "test_positions": positions,
        "test_colours": colours,
    }
    Picture("some", **arguments)
    with pytest.raises(ValueError, match=problem):
        Picture("some", **arguments | change)


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        (0.4, 20.0),  # an error of 0.1: 10 log10(1 / 0.01)
        (7.0, 10 * np.log10(4)),  # is white, half away from grey
        (np.nan, 0.0),
    ],
)
def test_decibels(predicted, expected):
    found = decibels(jnp.full((5, 3), predicted), jnp.full((5, 3), 0.5))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_frequencies_are_fixed_and_not_trained():
    models = [CoordinateNetwork(width=16, rngs=nnx.Rngs(seed)) for seed in (0, 1)]
    first, second = (np.asarray(model.frequencies[...]) for model in models)
    np.testing.assert_array_equal(first, second)
    shapes = [leaf.shape for leaf in jax.tree.leaves(nnx.state(models[0], nnx.Param))]
    assert sorted(shapes) == [(3,), (16,), (16,), (16, 3), (16, 16), (128, 16)]
    # Only the phases differ by the place: at the middle, all sines are 0.
    model = models[0]
    x = np.concatenate([np.zeros(64), np.ones(64)])
    for layer in (model.dense1, model.dense2, model.dense3):
        x = x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])
        x = x if layer is model.dense3 else np.maximum(x, 0)
    np.testing.assert_allclose(model(jnp.zeros((1, 2)))[0], x, atol=1e-5)


def test_a_picture_is_learnt(picture):
    task = make_task(RUN, None, None)
    assert task.steps_per_epoch == 16
    params = nnx.state(abstract_model(task.make), nnx.Param)
    expected = 128 * 16 + 16 * 16 + 16 * 3
    assert macs.multiply_adds(task.uses(), params) == expected
    program = QuickProgram(task, RUN)
    *_, trained = program.train([0], 0.0)
    # Better than to answer the mean of all pixels.
    mean = picture.train_colours.mean(0)
    error = np.mean((picture.test_colours - mean) ** 2)
    assert trained.final["test_after"][0] > 1 - 10 * np.log10(error)


def test_another_model_is_an_error():
    with pytest.raises(ValueError, match="its model is coordinates-128 .*'lenet-5'"):
        make_task(dataclasses.replace(RUN, model="lenet-5"), None, None)


def test_tables_are_in_decibels():
    def result(run: Run, reached: float) -> dict:
        final = {"test_before": reached, "test_after": reached}
        return {"run": run.as_dict(), "data": "picture", "curves": {}, "final": final}

    pruned = dataclasses.replace(RUN, method="gradual", sparsity=0.9)
    found = [result(RUN, 22.814), result(pruned, 21.034)]
    assert tables.lines(found)[1] == [["gradual", "21.03"]]
    assert "dense 22.81 ± 0.00" in tables.caption(found)
    assert tables.explanation(found).startswith(
        "Peak signal-to-noise ratio on test data in dB after pruning"
    )
