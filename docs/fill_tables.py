"""Write the tables of committed results into the pages that have a place for them.

    python docs/fill_tables.py           # writes them
    python docs/fill_tables.py --check   # only says which pages are out of date

A place is everything between `<!-- table: NAME -->` and `<!-- end -->`, for the table
of one experiment, `<!-- compare: NAME NAME ... -->`, for `paper.py compare`,
`<!-- compare METHOD OTHER: NAME NAME ... -->`, for two methods cell by cell,
`<!-- compiled: NAME ... -->`, for files of `benchmarks/compiled.py`,
`<!-- compiled imagenet: NAME ... -->`, for those of `examples/imagenet.py compile`,
`<!-- partners: KIND -->`, for the optimizers or the chains of `benchmarks/partners.py`,
`<!-- combinations: NAME -->`, for a file of `make test-table`, or
`<!-- errors: all -->`, for the wrong uses in tests/package/wrong_uses.py.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
BENCHMARKS = DOCS.parent / "benchmarks" / "results"
sys.path.insert(0, str(DOCS.parent / "examples"))
sys.path.insert(0, str(DOCS.parent / "tests" / "package"))

import wrong_uses  # noqa: E402
from experiments import comparison, results, study, tables  # noqa: E402

PLACE = re.compile(
    r"(<!-- (?P<kind>table|compare|compiled|partners|combinations|errors)"
    r"(?P<methods> [^:>]+)?: "
    r"(?P<names>[^>]+) -->\n)"
    r".*?(?P<end><!-- end -->)",
    re.S,
)


def filled(page: str) -> str:
    """The text of a page with its tables as the committed results have them."""
    return PLACE.sub(_place, page)


def _place(match: re.Match[str]) -> str:
    if match["kind"] == "errors":
        return f"{match[1]}\n{_errors()}\n{match['end']}"
    names = match["names"].split()
    if match["kind"] == "compiled":
        table = (
            _imagenet(names) if match["methods"] else "\n".join(map(_compiled, names))
        )
        return f"{match[1]}\n{table}\n{match['end']}"
    if match["kind"] == "partners":
        return f"{match[1]}\n{_partners(*names)}\n{match['end']}"
    if match["kind"] == "combinations":
        return f"{match[1]}\n{_combinations(*names)}\n{match['end']}"
    found = [
        result
        for name in names
        for result in results.read(DOCS / "results" / f"{name}.jsonl")
    ]
    if match["kind"] == "table":
        table = tables.markdown(found)
    elif match["methods"]:
        methods = match["methods"].split()
        cells = comparison.cells(found, methods=methods)
        table = comparison.of_two(cells, *methods).markdown()
    else:
        cells = comparison.cells(found, methods=study.STUDY_METHODS, most_kept=10)
        table = comparison.markdown(cells)
    return f"{match[1]}\n{table}\n{match['end']}"


def _errors() -> str:
    """A table of wrong uses and their messages for each part of the library."""
    parts = []
    for heading, uses in wrong_uses.WRONG_USES.items():
        rows = [[_as_code(use.code), _as_code(_raised(use))] for use in uses]
        table = tables.as_markdown(["what was written", "what is raised"], rows, 2)
        parts.append(f"### {heading}\n\n{table}")
    return "\n\n".join(parts)


def _raised(use: wrong_uses.WrongUse) -> str:
    message = use.message.strip('"')
    if message.endswith((":", "order: at")):
        message += " ..."
    kind = use.error.__name__
    return message if kind == "ValueError" else f"{kind}: {message}"


def _as_code(text: str) -> str:
    """Lines of code for a cell of a table, in which "|" would end the cell."""
    lines = text.replace("|", "\\|").split("\n")
    return "<br>".join(f"`{line.strip()}`" for line in lines)


def _compiled(name: str) -> str:
    """The table of a file of `benchmarks/compiled.py`, in multiples of the weights."""
    found = json.loads((BENCHMARKS / f"compiled-{name}.json").read_text())
    devices = found["config"]["devices"]
    accelerator = found["config"]["accelerator"]
    chips = "chips" if accelerator.startswith("v") else "GPUs"
    title = (
        f"{accelerator}: {found['weights']:,} weights"
        f"{f' on {devices} {chips}' if devices > 1 else ''}, "
        f"{found['config']['dtype']}, jax {found['versions']['jax']}."
    )
    columns = {
        "read": "read",
        "written": "written",
        "a reading": "reading",
        "over Adam": "with_one_reading_over_base",
        "temporary": "temporary",
    }
    rows = [
        [row["name"], *(f"{row[field]:.2f}" for field in columns.values())]
        for row in found["rows"]
    ]
    header = ["step", *columns]
    if devices > 1:
        header.append("crosses")
        for cells, row in zip(rows, found["rows"], strict=True):
            cells.append(_crossing(row["collectives"]))
    return f"{title}\n\n{tables.as_markdown(header, rows, 1)}"


def _partners(kind: str) -> str:
    """The table of optimizers, or of chains, in `benchmarks/partners.py`."""
    rows = json.loads((BENCHMARKS / "partners-cpu.json").read_text())["rows"]
    if kind == "chains":
        lines = [
            "| Chain | loss once pruned | what it does | `diagnose` |",
            "| --- | ---: | --- | --- |",
        ]
        for row in rows:
            if "chain" in row:
                warns = "warns" if row["warnings"] else ""
                lines.append(
                    f"| `{row['chain']}` | {_pruned_loss(row)} | {row['effect']} | "
                    f"{warns} |"
                )
        return "\n".join(lines) + "\n"
    of_optimizer: dict[str, dict[str, str]] = {}
    for row in rows:
        if "optimizer" in row:
            cells = of_optimizer.setdefault(row["optimizer"], {})
            is_dense = row["place"] == "dense"
            cells[row["place"]] = (
                f"{row['loss']:.2g}" if is_dense else _pruned_loss(row)
            )
    places = list(next(iter(of_optimizer.values())))
    lines = [
        "| Optimizer | " + " | ".join(places) + " |",
        "| --- | " + " | ".join(["---:"] * len(places)) + " |",
        *(
            f"| `{name}` | " + " | ".join(cells.values()) + " |"
            for name, cells in of_optimizer.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def _pruned_loss(row: dict[str, Any]) -> str:
    """Loss once pruned, and the largest residual where there is one."""
    if row["loss_pruned"] is None:
        return "NaN"
    residual = f" ({row['residual']:.1g})" if row["residual"] else ""
    return f"{row['loss_pruned']:.2g}{residual}"


def _crossing(collectives: dict[str, dict[str, int]]) -> str:
    """Number, kind and bytes of what crosses between devices."""
    each = (
        f"{of['count']} {kind}, {of['bytes']:,} B" for kind, of in collectives.items()
    )
    return "; ".join(each)


def _combinations(name: str) -> str:
    """What was combined with what, and the arguments that are refused."""
    found = json.loads((DOCS / "results" / f"{name}.json").read_text())
    columns = {
        "Wraps": found["wraps"],
        "Dtypes": found["dtypes"],
        "Containers": found["containers"],
    }
    lists = "\n".join(
        f"- {what} ({len(entries)}): {', '.join(entries)}."
        for what, entries in columns.items()
    )
    rows = [
        [method.partition(",")[0], f"`{argument}`", error]
        for method, result in found["methods"].items()
        for argument, error in result["refused"].items()
    ]
    rows = [row for i, row in enumerate(rows) if row not in rows[:i]]
    header = ["function", "argument", "the error"]
    methods = found["methods"].values()
    passed = sum(method["passed"] for method in methods)
    limits = sum(method["limits of optax"] for method in methods)
    explained = sum(method["explained"] for method in methods)
    count = (
        f"Of {passed + limits + explained:,} combinations, with {len(methods)} uses of "
        f"the transformations, {passed:,} work, {limits:,} fail in optax by itself "
        f"(with `optax.identity()` in the transformation's place), and {explained:,} "
        "for the reason below."
    )
    return f"{count}\n\n{lists}\n\n{tables.as_markdown(header, rows, 3)}"


def _imagenet(names: list[str]) -> str:
    """The table of files of `examples/imagenet.py compile`."""
    header = ["slice", "chips", "mesh", "images a chip", "step"]
    header += ["memory, GB", "operations, T", "moved, GB", "crosses, MB"]
    rows = []
    for name in names:
        found = json.loads((BENCHMARKS / f"imagenet-compiled-{name}.json").read_text())
        config, chips = found["config"], found["chips"]
        for kind, step in found["steps"].items():
            crossing = sum(each["bytes"] for each in step["collectives"].values())
            rows.append(
                [
                    found["topology"],
                    str(chips),
                    config["mesh"],
                    str(config["batch_size"] // chips),
                    kind,
                    f"{step['memory_bytes'] / 1e9:.3f}",
                    f"{step['operations'] / 1e12:.4f}",
                    f"{step['moved_bytes'] / 1e9:.3f}",
                    f"{crossing / 1e6:.3f}",
                ]
            )
    return tables.as_markdown(header, rows, 1)


def main() -> None:
    check = sys.argv[1:] == ["--check"]
    stale = []
    for path in sorted(DOCS.glob("*.md")):
        before = path.read_text()
        after = filled(before)
        if after != before:
            stale.append(path.name)
            if not check:
                path.write_text(after)
    if stale:
        done = "Out of date" if check else "Written"
        sys.stdout.write(f"{done}: {', '.join(stale)}\n")
    sys.exit(bool(stale and check))


if __name__ == "__main__":
    main()
