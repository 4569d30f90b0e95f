"""Comparisons of methods over paired seeds: means, errors and ranks worked by hand."""

import dataclasses
import math

import pytest

import paper
from experiments import comparison, results
from experiments.run import Run

RUN = Run(
    experiment="digits",
    data="digits",
    model="lenet-300-100",
    method="dense",
    sparsity=0.0,
    seed=0,
    epochs=1,
    learning_rate=0.1,
)


def of_cell(scores, kept=5, **changes):
    """Results of one cell: what each method reached, seed by seed."""
    run = dataclasses.replace(RUN, sparsity=round(1 - kept / 100, 9), **changes)
    return [
        {
            "run": dataclasses.replace(run, method=method, seed=seed).as_dict(),
            "data": run.data,
            "curves": {},
            "final": {"test_before": reached, "test_after": reached},
        }
        for method, reaches in scores.items()
        for seed, reached in enumerate(reaches)
    ]


# Differences of the seeds: 1, 0, 2.
FIRST = of_cell({"sparsify": [90.0, 92, 94], "gradual": [89.0, 92, 92]})
# 4, 3, 5; each 3 above those before.
SECOND = of_cell({"sparsify": [80.0, 82, 81], "gradual": [76.0, 79, 76]}, kept=2)
# 0, -3
OTHER = of_cell(
    {"sparsify": [50.0, 50], "gradual": [50.0, 53]},
    experiment="study-cora",
    data="cora",
)
ROOT_THIRD = math.sqrt(1 / 3)


@pytest.mark.parametrize(
    ("found", "mean", "error", "verdict"),
    [
        (FIRST, 1, ROOT_THIRD, "within 2 errors"),
        (SECOND, 4, ROOT_THIRD, "better"),
        (OTHER, -1.5, 1.5, "within 2 errors"),
        # A seed is high or low in both cells: their mean is as uncertain as each.
        (FIRST + SECOND, 2.5, ROOT_THIRD, "better"),
        # Seeds of other data are other draws: (4/3 + 9/4) / 9.
        (FIRST + SECOND + OTHER, 7 / 6, math.sqrt(43 / 108), "within 2 errors"),
    ],
)
def test_differences_have_the_error_of_their_seeds(found, mean, error, verdict):
    cells = comparison.cells(found)
    difference = comparison.difference(cells, "sparsify", "gradual")
    assert difference is not None
    assert difference.mean == pytest.approx(mean)
    assert difference.error == pytest.approx(error)
    assert difference.verdict == verdict
    opposite = comparison.difference(cells, "gradual", "sparsify")
    assert opposite == pytest.approx((-mean, error))


def test_a_seed_that_not_all_methods_have_is_left_out():
    found = FIRST + of_cell({"feather": [0.0, 0, 0, 0]})
    found += of_cell({"straight-through": [0.0, 93]})
    [cell] = comparison.cells(found)
    assert cell.seeds == 2
    # The mean of 90 and 92; not of 94 too.
    assert cell.means["sparsify"] == 91
    assert cell.means["straight-through"] == 46.5


def test_one_seed_has_no_error():
    cells = comparison.cells(of_cell({"sparsify": [90.0], "gradual": [89.0]}))
    difference = comparison.difference(cells, "sparsify", "gradual")
    assert difference == (1, None)
    assert (str(difference), difference.verdict) == ("+1.00", "one seed")
    assert comparison.difference(cells, "sparsify", "feather") is None


def test_ranks_are_shared_by_ties():
    found = of_cell({"a": [3.0], "b": [5.0], "c": [5.0], "d": [1.0]})
    found += of_cell({"a": [3.0], "b": [2.0]}, kept=1)
    assert comparison.ranks(comparison.cells(found)) == {
        "a": [3, 1],
        "b": [1.5, 2],
        "c": [1.5],
        "d": [4],
    }


def test_cells_are_in_order_and_dense_training_is_none():
    found = of_cell({"dense": [99.0]}, kept=100)
    found += of_cell({"a": [1.0]}, kept=0.5, variant="sgd") + SECOND + FIRST
    found += of_cell({"a": [1.0]}, kept=10, variant="sgd")
    cells = [(cell.variant, cell.kept) for cell in comparison.cells(found)]
    assert cells == [("sgd", "10"), ("sgd", "0.5"), ("", "5"), ("", "2")]


def test_points_and_decibels_are_not_added():
    picture = of_cell(
        {"sparsify": [22.5, 22.7], "gradual": [22.0, 22.4]},
        experiment="study-picture",
        data="picture",
    )
    *_, over_cells = comparison.parts(comparison.cells(FIRST + picture))
    # 0.5 and 0.3: 0.4 on average, a tenth the error.
    assert over_cells.rows == [
        ["sparsify − gradual", "%", "within 2 errors", "1", "+1.00 ± 0.58"],
        ["sparsify − gradual", "dB", "better", "1", "+0.40 ± 0.10"],
    ]


def test_a_comparison_is_printed(tmp_path, capsys):
    folder = tmp_path / "digits"
    for result in FIRST + SECOND:
        results.write(folder, Run(**result["run"]), result)
    command = ["compare", "digits", "--results", str(tmp_path)]
    paper.main([*command, "--markdown"])
    text = capsys.readouterr().out
    assert "| sparsify | 92.00 * | 81.00 * |\n" in text
    assert "| gradual | 91.00 | 77.00 |\n" in text
    row = "| digits |  | sparsify | gradual | better | 2 | 3 | +4.00 ± 0.58 |\n"
    assert row in text
    assert "| sparsify | 1.00 | 2 |\n| gradual | 2.00 | 2 |\n" in text
    assert "| sparsify − gradual | % | better | 2 | +2.50 ± 0.58 |\n" in text
    paper.main([*command, "--method", "gradual"])
    assert "-2.50 ± 0.58" not in capsys.readouterr().out  # itself is no rival
    with pytest.raises(SystemExit, match="no results of swd: there are gradual, sp"):
        paper.main([*command, "--method", "swd"])
    with pytest.raises(SystemExit, match="needs the name of an experiment"):
        paper.main(["compare"])


def test_two_methods_cell_by_cell():
    alone = of_cell({"gradual": [1.0]}, kept=1)
    cells = comparison.cells([*FIRST, *SECOND, *alone], methods=["sparsify", "gradual"])
    part = comparison.of_two(cells, "sparsify", "gradual")
    assert part.rows == [
        ["digits", "", "within 2 errors", "5", "92.00", "91.00", "3", "+1.00 ± 0.58"],
        ["digits", "", "better", "2", "81.00", "77.00", "3", "+4.00 ± 0.58"],
    ]
    title, _, head, *_ = part.markdown().splitlines()
    assert title == "sparsify less gradual, ± standard error of the paired difference."
    assert head.startswith("| experiment | variant | sparsify is | % kept | sparsify |")
