"""The runner's methods for whole channels, and networks thin from the start."""

import dataclasses

import jax
import numpy as np
import pytest

import paper
from experiments import channels, methods, registry, results, runner, tables
from experiments.run import Run
from experiments.tasks import make_task
from experiments.training import Program
from tests.helpers import quickly
from tests.helpers.quick_program import QuickProgram

# The library's lines that it runs, other tests run too.
pytestmark = pytest.mark.no_cover

RUN = Run(
    experiment="tiny",
    data="digits",
    model="resnet-8x4",
    method="swd-channels-rising",
    sparsity=0.5,
    seed=0,
    epochs=2,
    batch_size=32,
    learning_rate=1e-2,
    a_max=1e5,
    train_images=128,
    test_images=100,
)


PRUNED = ["swd-channels-rising", "gradual-channels", "slimming-tuned"]


@pytest.fixture(autouse=True)
def _promotion_of_ranks():
    # Flax's layers add biases to rows.
    with jax.numpy_rank_promotion("allow"):
        yield


def parameters(maps):
    """By hand: 3x3 convolutions, their norms, two shortcuts, the output."""
    stages = [(maps, maps), (maps, 2 * maps), (2 * maps, 4 * maps)]
    blocks = sum(9 * n * m + 9 * m * m + 4 * m for n, m in stages)
    shortcuts = sum(n * m + 2 * m for n, m in stages[1:])
    return 9 * maps + 2 * maps + blocks + shortcuts + 40 * maps + 10


def result_of(name, folder, monkeypatch):
    """What is written of a method."""
    run = dataclasses.replace(RUN, method=name)
    monkeypatch.setitem(registry.EXPERIMENTS, "tiny", lambda: [run])
    monkeypatch.setattr(runner, "Program", QuickProgram)
    paper.run("tiny", results_folder=folder)
    [result] = results.read(folder / "tiny")
    return result


@pytest.mark.parametrize("name", PRUNED)
def test_the_target_counts_parameters_of_the_whole_network(name, tmp_path, monkeypatch):
    final, whole = result_of(name, tmp_path, monkeypatch)["final"], parameters(4)
    assert final["parameters"] == whole
    assert final["emptied"] == []
    lost = whole - final["parameters_left"]
    # The dearest channels are those of the last stage, which three layers share.
    dearest = 8 * 9 + 2 * 16 * 9 + 8 + 3 * 2 + 10
    assert whole // 2 - dearest < lost <= whole // 2
    assert final["sparsity"] == pytest.approx(lost / whole, abs=1e-6)
    assert final["multiply_adds_left"] < final["multiply_adds"]


def test_a_thin_network_is_the_largest_with_as_few_parameters(tmp_path, monkeypatch):
    result, whole = result_of("thin", tmp_path, monkeypatch), parameters(4)
    final = result["final"]
    assert final["parameters"] == whole
    assert final["parameters_left"] == parameters(2) <= whole // 2
    assert parameters(3) > whole // 2
    assert final["sparsity"] == pytest.approx(1 - parameters(2) / whole, abs=1e-6)
    assert final["kept"] == final["prunable"]
    assert final["multiply_adds_left"] == final["multiply_adds"]
    assert final["test_after"] == final["test_before"]
    text = tables.markdown([result])
    assert "| % of the parameters kept | 50 |" in text
    assert f"thin keeps {100 * parameters(2) / whole:.1f} % for 50." in text


@pytest.mark.parametrize("name", sorted(channels.METHODS))
def test_every_method_can_be_traced(name):
    run = dataclasses.replace(RUN, method=name)
    task = make_task(run, None, None)
    task = task.thin(0.5) if name == "thin" else task
    program = Program(task, methods.static(run))
    seeds, sparsity = jax.numpy.arange(2), np.float32(0.5)
    carry = jax.eval_shape(program._start, seeds, sparsity)
    after, loss = jax.eval_shape(program._epochs, carry, task.data, sparsity)
    assert loss.shape == (2,)
    assert jax.tree.structure(after) == jax.tree.structure(carry)


def test_a_penalty_ends_where_fine_tuning_begins():
    """With no gradient and nothing pruned, what moves a scale is the penalty.

    Adam would divide by it; SGD's momentum falls to nine tenths once it is gone.
    """
    run = dataclasses.replace(
        RUN, method="slimming-tuned", mu=0.1, optimizer="sgd", decay="constant"
    )
    program = QuickProgram(make_task(run, None, None), methods.static(run))
    carry = program._start(np.arange(1), np.float32(0))
    params, state = jax.tree.map(
        lambda leaf: leaf[0], (carry.params, carry.optimizer_state)
    )
    transform = program.method(0.0).transform
    zeros, moves = jax.tree.map(jax.numpy.zeros_like, params), []
    update = quickly.jit(transform.update)
    for _ in range(program.steps):  # 8, of which 5 are dense
        updates, state = update(zeros, state, params)
        moves.append(float(updates["stem"]["norm"]["scale"].get_value()[0]))
    # Scales are 1 and so is the slope.
    pressure = [-1e-2 * 0.1 * (1 - 0.9**n) / (1 - 0.9) for n in range(1, 6)]
    np.testing.assert_allclose(moves[:5], pressure, rtol=1e-5)
    fading = pressure[-1] * 0.9 ** np.arange(1, 4)
    np.testing.assert_allclose(moves[5:], fading, rtol=1e-5)


def test_a_thin_network_of_one_width(tmp_path, monkeypatch):
    run = dataclasses.replace(RUN, model="lenet-300-100", method="thin")
    monkeypatch.setitem(registry.EXPERIMENTS, "tiny", lambda: [run])
    with pytest.raises(ValueError, match="there is in all widths.*'lenet-300-100'"):
        paper.run("tiny", results_folder=tmp_path)


def test_layers_keep_what_they_are_asked_to():
    run = dataclasses.replace(RUN, min_channels=0.25)
    target = Program(make_task(run, None, None), methods.static(run)).method(0.9).target
    structure = target.structure
    assert [structure.min_channels_of(group) for group in structure.groups] == [
        -(-group.size // 4) for group in structure.groups
    ]
