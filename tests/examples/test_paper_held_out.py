"""Part of the training data in place of the test data, for choosing settings."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx

import paper
from data_loading import Graph, Images, Picture, Text, load
from experiments import registry, runner, tables, tasks
from tests.examples.test_paper import TINY
from tests.helpers.quick_program import QuickProgram

pytestmark = pytest.mark.no_cover


@pytest.fixture(autouse=True)
def _promotion_of_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def test_every_fifth_image_of_each_class():
    labels = np.array([0, 0, 0, 0, 1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0], np.int32)
    images = np.arange(15, dtype=np.uint8).reshape(15, 1, 1, 1)
    test = np.full((1, 1, 1, 1), 99, np.uint8)
    data = Images("some", images, labels, test, np.zeros(1, np.int32), 2).held_out()
    # The zeros are at 0 1 2 3 5 10 11 12 13 14, the ones at 4 6 7 8 9.
    assert data.test_images.ravel().tolist() == [5, 9, 14]
    assert data.test_labels.tolist() == [0, 1, 0]
    rest = [0, 1, 2, 3, 4, 6, 7, 8, 10, 11, 12, 13]
    assert data.train_images.ravel().tolist() == rest
    assert data.train_labels.tolist() == labels[rest].tolist()
    assert data.name == "some, held-out training data (12/3 images)"


def test_the_last_tenth_of_a_text():
    train = np.arange(90, dtype=np.int32) % 2
    data = Text("some", train, np.full(10, 2, np.int32), "abc").held_out()
    np.testing.assert_array_equal(data.train, train[:81])
    np.testing.assert_array_equal(data.test, train[81:])
    assert data.vocabulary == "abc"
    assert data.name == "some, held-out training data (81/9 characters)"


def test_every_fifth_pixel():
    places = np.linspace(-1, 1, 22, dtype=np.float32).reshape(11, 2)
    colours = np.linspace(0, 1, 33, dtype=np.float32).reshape(11, 3)
    data = Picture("some", places, colours, -places, colours).held_out()
    np.testing.assert_array_equal(data.test_positions, places[[4, 9]])
    np.testing.assert_array_equal(data.test_colours, colours[[4, 9]])
    assert len(data.train_positions) == len(data.train_colours) == 9
    assert data.name == "some, held-out training data (9/2 pixels)"


def test_the_validation_nodes_of_a_graph(monkeypatch):
    four = np.arange(4, dtype=np.int32)
    graph = Graph(
        "square",
        feature_rows=four,
        feature_columns=four,
        feature_values=np.ones(4, np.float32),
        nodes=4,
        feature_count=4,
        edge_rows=four,
        edge_columns=four,
        edge_values=np.ones(4, np.float32),
        labels=np.array([0, 1, 0, 0], np.int32),
        classes=2,
        train_nodes=four[:1],
        validation_nodes=four[1:3],
        test_nodes=four[3:],
    )
    monkeypatch.setattr(tasks, "load", lambda *arguments: graph)
    run = dataclasses.replace(TINY, data="cora", model="gcn")

    def measured(run):
        task = tasks.make_task(run, None, None)
        model = task.make(nnx.Rngs(0))
        model.eval()
        # All outputs are equal: the answer is class 0.
        zeros = jax.tree.map(jax.numpy.zeros_like, nnx.state(model, nnx.Param))
        nnx.update(model, zeros)
        return task.data_name, task.accuracies(model, task.data)

    assert measured(run) == ("square", {"validation": 50, "test": 100})
    held_out = dataclasses.replace(run, held_out=True)
    assert measured(held_out) == ("square, held-out validation nodes", {"test": 50})


def test_test_images_are_never_looked_at():
    task = tasks.make_task(dataclasses.replace(TINY, held_out=True), None, None)
    digits = load("digits", None)
    known = {image.tobytes() for image in digits.train_images}
    learnt, measured = (task.data[part][0] for part in ("train", "test"))
    # Of 128 images, in which each class has 12 or 13: two of every class.
    assert (len(learnt), len(measured)) == (108, 20)
    assert all(np.asarray(i).tobytes() in known for i in (*learnt, *measured))


def test_held_out_results_have_a_folder_of_their_own(monkeypatch, tmp_path, capsys):
    runs = registry.grid(TINY, ["gradual"], (10,), seeds=1)
    monkeypatch.setattr(runner, "Program", QuickProgram)
    monkeypatch.setitem(registry.EXPERIMENTS, "tiny", lambda: runs)
    command = ["run", "tiny", "--held-out", "--results", str(tmp_path)]
    paper.main([*command, "--methods", "gradual"])
    [folder] = tmp_path.iterdir()
    [path] = folder.iterdir()
    assert (folder.name, path.name) == ("tiny-held-out", "gradual-kept10-seed0.json")
    result = json.loads(path.read_text())
    assert result["run"]["held_out"] is True
    assert result["data"].endswith("held-out training data (108/20 images)")
    assert "Accuracy on held-out training data" in tables.explanation([result])
    capsys.readouterr()
    paper.main(["table", "tiny-held-out", "--results", str(tmp_path)])
    assert "held-out training data" in capsys.readouterr().out
    # It goes on, too, and by the name of the folder.
    command[1:3] = ["tiny-held-out"]
    paper.main([*command, "--methods", "gradual"])
    assert "1 of 1 runs have results" in capsys.readouterr().out
