"""The experiment runner: what it trains and writes, and what it says of mistakes."""

import dataclasses
import json
import re
from pathlib import Path

import chex
import jax
import numpy as np
import optax
import pytest
from flax import nnx

import paper
from experiments import (
    channels,
    choices,
    figures,
    grids,
    methods,
    registry,
    results,
    runner,
    tables,
)
from experiments.environment import without_folder
from experiments.run import Run
from experiments.tasks import make_task
from experiments.training import Program, prunable_leaves
from tests.helpers import quickly
from tests.helpers.quick_program import QuickProgram

# The library's lines that it runs, other tests run too.
pytestmark = pytest.mark.no_cover

ROOT = Path(__file__).parents[2]
PAGES = [
    (ROOT / "docs" / name).read_text()
    for name in ("paper.md", "structures.md", "study.md")
]
COMPARED = [
    names.split()
    for page in PAGES
    for names in re.findall("<!-- compare: (.*?) -->", page)
]
COMMITTED = sorted((ROOT / "docs" / "results").glob("*.jsonl"))

TINY = Run(
    experiment="tiny",
    data="digits",
    model="lenet-300-100",
    method="swd-rising",
    sparsity=0.9,
    seed=0,
    epochs=4,
    batch_size=32,
    learning_rate=1e-2,
    a_max=1e5,
    train_images=128,
    test_images=100,
)


@pytest.fixture(autouse=True)
def _promotion_of_ranks(monkeypatch):
    # Users' own models and Flax's layers add biases to rows.
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def task():
    return make_task(TINY, None, None)


@pytest.fixture
def tiny_experiment(monkeypatch):
    """An experiment of dense training and one method, two targets and two seeds."""
    runs = registry.grid(TINY, ["gradual"], (10, 5), seeds=2)
    monkeypatch.setattr(runner, "Program", QuickProgram)
    monkeypatch.setitem(registry.EXPERIMENTS, "tiny", lambda: runs)
    return runs


def content(folder):
    """The results by name, without what differs from time to time."""
    found = {path.name: json.loads(path.read_text()) for path in folder.iterdir()}
    for result in found.values():
        del result["seconds"], result["environment"]
    return found


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_can_be_traced_from_start_to_end(task, name):
    run = dataclasses.replace(TINY, method=name)
    program = Program(task, methods.static(run))
    seeds, sparsity = jax.numpy.arange(2), np.float32(0.9)
    if name in ("slimming", "swd-scales"):  # of which this model has none
        with pytest.raises(ValueError, match="matches none of the parameters"):
            jax.eval_shape(program._start, seeds, sparsity)
        return
    # `sparsify-channels` ranks them by all weights.
    if name in channels.METHODS and name not in ("thin", "sparsify-channels"):
        with pytest.raises(ValueError, match="none of the groups has a batch norm"):
            jax.eval_shape(program._start, seeds, sparsity)
        return
    carry = jax.eval_shape(program._start, seeds, sparsity)
    after, loss = jax.eval_shape(program._epochs, carry, task.data, sparsity)
    assert loss.shape == (2,)
    after, point = jax.eval_shape(program._look, after, task.data, sparsity)
    assert jax.tree.structure(after) == jax.tree.structure(carry)
    assert point["test"].shape == point["residual"].shape == (2,)
    final, params = jax.eval_shape(program._end, after, task.data, sparsity)
    assert final["test_after"].shape == (2,)
    assert jax.tree.structure(params) == jax.tree.structure(carry.params)


def test_an_experiment_is_run_once_and_goes_on_where_it_was_stopped(
    tiny_experiment, tmp_path, capsys
):
    folder = tmp_path / "tiny"
    paper.run("tiny", results_folder=tmp_path)
    first = content(folder)
    assert set(first) == {f"{run.name}.json" for run in tiny_experiment}
    for result in first.values():
        final, run = result["final"], result["run"]
        # Of 64 * 300 + 300 * 100 + 100 * 10 weights, to the last one.
        pruned = 0 if run["method"] == "dense" else round(50_200 * run["sparsity"])
        assert final["kept"] == final["prunable"] - pruned == 50_200 - pruned
        assert final["multiply_adds_left"] == final["kept"]
        assert len(result["curves"]["test"]) == 4
        assert 0 <= final["test_after"] <= 100
    assert "gradual" in capsys.readouterr().out
    # A killed run leaves no file behind, or none that is whole.
    lost = folder / "gradual-kept5-seed1.json"
    kept = folder / "gradual-kept10-seed0.json"
    before = kept.stat().st_mtime_ns
    lost.unlink()
    paper.run("tiny", results_folder=tmp_path)
    assert content(folder) == first
    assert kept.stat().st_mtime_ns == before
    assert "5 of 6 runs have results" in capsys.readouterr().out


CHOICES = [
    *({"structure": name} for name in choices.STRUCTURES),
    *({"criterion": name} for name in choices.CRITERIA),
    {"criterion": "fisher", "method": "swd-proximal"},
    {"scope": "local"},
    {"scope": "erk"},
]


@pytest.mark.parametrize("changes", CHOICES, ids=lambda c: "-".join(c.values()))
def test_every_choice_can_be_traced_from_start_to_end(task, changes):
    run = dataclasses.replace(TINY, **changes)
    program = Program(task, methods.static(run))
    seeds, sparsity = jax.numpy.arange(2), np.float32(0.8)
    carry = jax.eval_shape(program._start, seeds, sparsity)
    batch = jax.eval_shape(lambda carry: program._batches(carry)[:, 0], carry)
    after, _ = jax.eval_shape(program._step, carry, batch, task.data, sparsity)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, carry)
    after, _ = jax.eval_shape(program._look, after, task.data, sparsity)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, carry)
    target = program.method(run.sparsity).target
    assert target.structure == choices.STRUCTURES[run.structure]
    assert target.criterion == choices.CRITERIA[run.criterion]
    assert target.scope == run.scope


@pytest.mark.parametrize("criterion", ["saliency", "movement"])
def test_what_a_criterion_gathers_in_training_decides_what_is_pruned(task, criterion):
    """Rank by hand what the training has left of weights, gradients and sums."""
    program = QuickProgram(task, dataclasses.replace(TINY.program, criterion=criterion))
    known = np.float32(0.9)
    carry = program._start(np.array([3]), known)
    batch = program._batches(carry)[:, 0]
    for _ in range(2):
        carry, _ = program._step(carry, batch, task.data, known)
    method = program.method(0.9)
    extra_args = choices.extra_args(
        method.target.criterion, carry.gradient, carry.optimizer_state
    )
    [name] = extra_args
    kept = program._look(jax.tree.map(jax.numpy.copy, carry), task.data, known)[0].kept
    scored = {
        "saliency": lambda w, g: np.abs(w * g),
        "movement": lambda w, s: s,
    }[criterion]
    # After 2 of 16 steps the target has risen to 0.9 (1 - (1 - 2/11)^3).
    lost = int(0.9 * (1 - (9 / 11) ** 3) * 50_200)
    scores, masks = [], []
    for _, path, weights in prunable_leaves(carry.params, method.target):
        layer = path.split("/")[0]
        seen = np.asarray(extra_args[name][layer]["kernel"].get_value())
        scores.append(scored(np.asarray(weights), seen).ravel())
        masks.append(np.asarray(kept[layer]["kernel"].get_value()).ravel())
    scores, masks = np.concatenate(scores), np.concatenate(masks)
    assert abs((~masks).sum() - lost) <= 1
    assert scores[~masks].max() <= scores[masks].min() * (1 + 1e-5) + 1e-12


def test_spared_leaves_are_none_of_those_that_are_pruned(task):
    program = Program(task, dataclasses.replace(TINY, spared="dense3/"))
    params = jax.eval_shape(program._start, jax.numpy.arange(1), np.float32(0.5)).params
    found = prunable_leaves(params, program.method(0.5).target)
    assert [path for _, path, _ in found] == ["dense1/kernel", "dense2/kernel"]


@pytest.mark.parametrize("what", ["structure", "criterion"])
def test_an_unknown_choice_is_an_error_that_lists_the_known_ones(task, what):
    run = dataclasses.replace(TINY, **{what: "blocks"})
    with pytest.raises(ValueError, match=rf"{what} must be one of .*; got 'blocks'"):
        Program(task, run).method(0.5)


def test_a_grid_of_choices_has_every_choice_at_every_target():
    runs = grids.choices_grid(TINY, output="dense3/", seeds=2)
    assert len({run.name for run in runs}) == len(runs)
    names = {(run.structure, run.kept_percent) for run in runs}
    for m, kept in ((5, "20"), (10, "10"), (20, "5"), (50, "2")):
        # Exactly what the structure can do.
        assert {percent for name, percent in names if name == f"1-of-{m}"} == {kept}
    assert {run.structure for run in runs} == set(choices.STRUCTURES)
    assert {run.criterion for run in runs} == set(choices.CRITERIA)
    rows = {run.variant: run for run in runs}
    row = rows["structure=channels, output dense, scope=local"]
    assert (row.structure, row.spared, row.scope) == ("channels", "dense3/", "local")


def test_a_grid_of_choices_spares_embeddings_where_there_are_some():
    def spared(**options):
        runs = grids.choices_grid(TINY, output="dense3/", seeds=1, **options)
        return {run.spared: run.variant for run in runs if run.structure == "block-4x4"}

    assert spared() == {"": "structure=block-4x4, scope=local"}
    row = "structure=block-4x4, criterion=normalized_magnitude, embeddings dense"
    assert spared(embeddings="table$")["table$"] == row


@pytest.fixture(scope="module")
def program(task):
    with jax.numpy_rank_promotion("allow"):
        yield QuickProgram(task, TINY.program)


def test_seeds_side_by_side_are_the_seeds_one_by_one(program):
    *_, both = program.train([0, 1], 0.9)
    for seed in (0, 1):
        *_, alone = program.train([seed], 0.9)
        np.testing.assert_allclose(
            alone.curves["loss"][:, 0], both.curves["loss"][:, seed], rtol=0.05
        )
        np.testing.assert_array_equal(
            alone.curves["selected_fraction"][:, 0],
            both.curves["selected_fraction"][:, seed],
        )


def test_steps_one_by_one_are_those_of_a_scan(task, program):
    """As convolutions are trained on a CPU."""
    one_by_one = QuickProgram(task._replace(step_by_step=True), TINY.program)
    *_, alone = one_by_one.train([3], 0.9)
    *_, scanned = program.train([3], 0.9)
    for key in ("loss", "selected_fraction", "multiplier"):
        np.testing.assert_allclose(
            alone.curves[key], scanned.curves[key], rtol=0.05, err_msg=key
        )


def test_curves_tell_what_is_selected_and_what_moves(program):
    *_, trained = program.train([3], 0.9)
    curves = {key: values[:, 0] for key, values in trained.curves.items()}
    # The target rises over 0.7 of 16 steps; the last update before each look is
    # step 3, 7, 11 and 15.
    rising = optax.polynomial_schedule(0.0, 0.9, 3, 11)
    expected = [float(rising(step)) for step in (3, 7, 11, 15)]
    np.testing.assert_allclose(curves["selected_fraction"], expected, atol=1e-4)
    growth = [0.1 * 1e6 ** (step / 16) for step in (3, 7, 11, 15)]
    np.testing.assert_allclose(curves["multiplier"], growth, rtol=1e-4)
    # Nothing is selected before: what is by now has moved in, less what has left.
    now = [float(rising(step)) for step in (4, 8, 12, 16)]
    net = np.cumsum(curves["migrated_in"] - curves["migrated_out"])
    np.testing.assert_allclose(net, now, atol=1e-4)


class TestErrors:
    """What can be wrong is said in words that help."""

    def test_an_unknown_experiment(self):
        with pytest.raises(ValueError, match=r"must be one of cora, .*; got 'corra'"):
            paper.run("corra")

    def test_an_unknown_method(self):
        with pytest.raises(ValueError, match=r"method must be one of dense, .*'swdd'"):
            paper.run("digits", methods=("swdd",))

    def test_a_target_that_the_experiment_does_not_have(self):
        with pytest.raises(ValueError, match="kept, in percent: 0.5, 1, 10"):
            paper.run("digits", methods=("swd",), kept=(3,))

    def test_a_missing_data_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            paper.run("cora", data=tmp_path / "nowhere", results_folder=tmp_path)

    def test_a_result_that_is_not_whole(self, tiny_experiment, tmp_path):
        path = tmp_path / "tiny" / f"{tiny_experiment[0].name}.json"
        path.parent.mkdir()
        path.write_text('{"format": 1, "run": {')
        with pytest.raises(results.BadResult, match="not a whole result.*Delete it"):
            paper.run("tiny", results_folder=tmp_path)

    def test_a_result_of_another_version(self, tiny_experiment, tmp_path):
        path = tmp_path / "tiny" / f"{tiny_experiment[0].name}.json"
        path.parent.mkdir()
        path.write_text('{"format": 0}')
        with pytest.raises(results.BadResult, match="format 0, written by another"):
            paper.run("tiny", results_folder=tmp_path)

    def test_a_result_with_a_part_missing(self, tmp_path):
        path = tmp_path / "x.json"
        path.write_text('{"format": 1, "run": {}, "curves": {}}')
        with pytest.raises(results.BadResult, match="has no 'final'"):
            results.read(tmp_path)

    def test_a_result_with_other_settings(self, tmp_path):
        other = dataclasses.replace(TINY, epochs=7)
        results.write(tmp_path, other, {"curves": {}, "final": {}})
        with pytest.raises(results.BadResult, match="epochs=7, and now epochs is 4"):
            results.finished(tmp_path, [TINY])

    def test_results_from_before_there_was_a_choice_count(self, tmp_path):
        path = results.write(tmp_path, TINY, {"curves": {}, "final": {}})
        old = json.loads(path.read_text())
        for key in ("structure", "criterion", "scope", "spared"):
            del old["run"][key]
        path.write_text(json.dumps(old))
        assert results.finished(tmp_path, [TINY]) == {TINY.name}
        chosen = dataclasses.replace(TINY, structure="channels")
        with pytest.raises(results.BadResult, match="structure='unstructured', and"):
            results.finished(tmp_path, [chosen])

    def test_no_results_at_all(self, tmp_path):
        with pytest.raises(results.BadResult, match="no results in .*paper.py run"):
            paper.table("cifar10-scales", results_folder=tmp_path)

    def test_a_model_for_other_data(self):
        with pytest.raises(ValueError, match="model must be one of .*'resnet-x'"):
            make_task(dataclasses.replace(TINY, model="resnet-x"), None, None)

    def test_a_network_whose_first_convolution_halves_the_image(self):
        task = make_task(dataclasses.replace(TINY, model="half-resnet-8x2"), None, None)
        assert task.make(nnx.Rngs(0)).stem.conv.strides == 2

    @pytest.mark.parametrize("size", [None, 0, 129])
    def test_a_batch_that_does_not_fit(self, size):
        with pytest.raises(ValueError, match="batch_size must be from 1 to 128"):
            make_task(dataclasses.replace(TINY, batch_size=size), None, None)


def test_numbers_that_are_none_are_written_as_null(tmp_path):
    path = results.write(
        tmp_path, TINY, {"curves": {"a": [float("nan"), 1.23456789]}, "final": {}}
    )
    assert json.loads(path.read_text())["curves"] == {"a": [None, 1.23457]}
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_failed_write_leaves_the_old_result(tmp_path):
    path = results.write(tmp_path, TINY, {"curves": {}, "final": {}})
    before = path.read_text()
    with pytest.raises(TypeError):
        results.write(tmp_path, TINY, {"curves": {"a": object()}, "final": {}})
    assert path.read_text() == before


def made_up(method, sparsity, seed, before, after, **changes):
    run = dataclasses.replace(
        TINY, method=method, sparsity=sparsity, seed=seed, **changes
    )
    final = {"test_before": before, "test_after": after}
    return {"run": run.as_dict(), "data": "digits", "curves": {}, "final": final}


def test_a_table_has_means_spreads_and_what_pruning_cost():
    found = [
        made_up("dense", 0.0, 0, 97.0, 97.0),
        made_up("dense", 0.0, 1, 98.0, 98.0),
        made_up("swd", 0.95, 0, 90.0, 90.0),
        made_up("swd", 0.95, 1, 94.0, 94.0),
        made_up("one-shot", 0.95, 0, 97.0, 30.0),
        made_up("one-shot", 0.99, 0, 97.0, 20.0),
    ]
    heads, rows = tables.lines(found)
    assert heads[1:] == ["5", "1"]
    assert rows == [
        ["swd", "92.0 ± 2.8", ""],
        ["one-shot", "30.0 (-67.0)", "20.0 (-77.0)"],
    ]
    assert "dense 97.5 ± 0.7" in tables.caption(found)
    assert tables.markdown(found).splitlines()[2] == "| % of the weights kept | 5 | 1 |"


def test_a_table_of_choices_says_what_was_kept_and_what_died():
    def chosen(variant, seed, after, sparsity=0.95, emptied=()):
        result = made_up("swd-rising", 0.95, seed, after, after, variant=variant)
        result["final"] |= {"sparsity": sparsity, "emptied": list(emptied)}
        result["final"] |= {"test_bits_before": 2.5, "test_bits_after": 2.5 + seed}
        return result

    found = [
        chosen("criterion=movement", 0, 91.0),
        chosen("", 0, 90.0),
        chosen("structure=1-of-m", 0, 89.0, sparsity=0.94),
        chosen("structure=channels", 0, 9.0, emptied=["b", "a"]),
        chosen("structure=channels", 1, 11.0),
    ]
    _, rows = tables.lines(found)
    assert [row[0] for row in rows] == [
        *("swd-rising", "structure=1-of-m", "structure=channels"),
        "criterion=movement",
    ]
    assert tables.lines(found, "test_bits")[1][2][1] == "3.00 ± 0.71 (+0.50)"
    assert tables.remarks(found) == [
        "structure=1-of-m keeps 6.0 % for 5.",
        "structure=channels, 5 % kept: nothing is left of a, b (1 of 2 seeds).",
    ]
    text = tables.markdown(found)
    assert "\n- structure=1-of-m keeps 6.0 % for 5.\n" in text
    assert "Bits per character" in text


@pytest.mark.parametrize("place", COMMITTED, ids=lambda path: path.stem)
def test_the_tables_of_the_docs_are_those_of_the_committed_results(place):
    found = results.read(place)
    # Means worked out again, from the lines of the file.
    lines = [json.loads(line) for line in place.read_text().splitlines()]
    for row, columns in tables.cells(found).items():
        for column, cell in columns.items():
            same = [
                line["final"]["test_after"]
                for line in lines
                if row
                in (
                    f"{line['run']['method']} {line['run']['variant']}".strip(),
                    "=" in row and line["run"]["variant"],
                )
                and abs(100 - 100 * line["run"]["sparsity"] - float(column)) < 1e-6
            ]
            assert cell.seeds == len(same)
            np.testing.assert_allclose(cell.mean, np.mean(same), rtol=1e-9)
    if "a_min=" not in lines[0]["run"]["variant"]:  # that one is a heat map
        is_alone = any(tables.markdown(found) in page for page in PAGES)
        assert is_alone or any(place.stem in names for names in COMPARED)


@pytest.mark.parametrize("place", COMMITTED, ids=lambda path: path.stem)
def test_figures_are_drawn_from_the_committed_results(place, tmp_path):
    found = results.read(place)
    drawn = figures.draw(place.stem, found, tmp_path)
    # One target makes no line over targets.
    kept = {result["run"]["sparsity"] for result in found} - {0.0}
    is_grid = any("a_min=" in result["run"]["variant"] for result in found)
    ending = "-curves" if len(kept) == 1 and not is_grid else ""
    assert f"paper-{place.stem}{ending}" in [path.stem for path in drawn]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_committed_results_say_where_they_come_from():
    for place in COMMITTED:
        for result in results.read(place):
            about = result["environment"]
            assert about["commit"], place
            assert not about["commit"].endswith("-dirty"), place
            assert about["hardware"]["cores"], place
            assert about["command"].startswith("python examples/paper.py run"), place
            arguments = re.split("[ =]", about["command"])
            assert not any(Path(each).is_absolute() for each in arguments), place


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("/srv/data", "DIR"),
        ("--data=/srv/data", "--data=DIR"),
        ("data", "data"),
        ("--seeds=3", "--seeds=3"),
    ],
)
def test_a_command_names_no_folder_of_a_machine(argument, shown):
    assert without_folder(argument) == shown


class TestText:
    """The task of a text: 1,800 characters to learn from, 200 to be tested on."""

    RUN = dataclasses.replace(
        TINY,
        data="text",
        model="transformer-1x16",
        batch_size=4,
        train_images=12,
        test_images=None,
    )

    @pytest.fixture
    def text(self, tmp_path):
        path = tmp_path / "some.txt"
        path.write_text("abcd" * 500)
        return path

    def test_an_epoch_has_windows_from_all_over_the_text(self, text):
        task = make_task(self.RUN, text, None)
        assert task.steps_per_epoch == 3
        keys = jax.random.split(jax.random.key(0), 50)
        starts = np.stack([task.batches(key) for key in keys])
        assert starts.shape == (50, 3, 4)
        assert starts.min() < 64
        assert 1800 - 3 * 64 < starts.max() + 65 <= 1800
        # Windows of an epoch do not overlap.
        ordered = np.sort(starts.reshape(50, -1), axis=1)
        assert np.diff(ordered, axis=1).min() >= 64

    def test_a_network_that_knows_nothing_needs_all_bits(self, text):
        task = make_task(self.RUN, text, None)
        model = task.make(nnx.Rngs(0))
        model.head.kernel[...] = jax.numpy.zeros_like(model.head.kernel[...])
        definition, state = nnx.split(model)

        @quickly.jit
        def measured(state, data, starts):
            model = nnx.merge(definition, state)
            accuracies = task.accuracies(model, data)
            return accuracies, task.loss(model, data, starts, jax.random.key(0))

        found, loss = measured(state, task.data, np.array([0, 64]))
        np.testing.assert_allclose(found["test_bits"], 2, rtol=1e-5)  # of 4 characters
        # It says "a" always, which is every fourth: of 192 in three windows, 48.
        assert float(found["test"]) == pytest.approx(25)
        np.testing.assert_allclose(loss, np.log(4), rtol=1e-5)

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"model": "lenet-5"}, "its model is transformer-2x64 .*not 'lenet-5'"),
            ({"batch_size": 13}, "batch_size must be from 1 to 12, got 13"),
        ],
    )
    def test_what_does_not_fit_is_told(self, text, changes, problem):
        with pytest.raises(ValueError, match=problem):
            make_task(dataclasses.replace(self.RUN, **changes), text, None)

    def test_a_text_that_is_too_short(self, tmp_path):
        (tmp_path / "short.txt").write_text("abc" * 100)
        with pytest.raises(ValueError, match="too short: .* more than 64 characters"):
            make_task(self.RUN, tmp_path, None)


def test_paper_names_its_experiments_and_explains_its_commands(capsys):
    paper.main(["list"])
    listed = capsys.readouterr().out
    assert "cora" in listed
    assert "cifar10-resnet20x64" in listed
    # What ends a program with a line is printed, and the exit status is 1.
    with pytest.raises(SystemExit, match="^paper.py: experiment must be one of") as end:
        paper.main(["table", "corra"])
    assert isinstance(end.value.code, str)
    assert "\n" not in end.value.code
