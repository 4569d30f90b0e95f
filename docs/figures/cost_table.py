"""The tables of costs in the pages, from benchmarks/results/.

python docs/figures/cost_table.py
"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "selection.md"
STRUCTURES_PAGE = ROOT / "docs" / "structures.md"
PAPER_PAGE = ROOT / "docs" / "paper.md"
CHANNELS_PAGE = ROOT / "docs" / "channels.md"
START, END = "<!-- from docs/figures/cost_table.py -->\n", "<!-- to here -->\n"
SIZES = ("4.3M", "25.6M", "4.1M")
STEPS = (
    "swd + adam",
    "swd + adam, update_every=10",
    "swd + adam, normalized_magnitude",
    "adam + decoupled_swd",
    "swd + sgd",
)
ALONE = {
    "swd_jax: warm, same weights": "threshold, weights unchanged",
    "swd_jax: warm, moved weights": "threshold, weights moved by a thousandth",
    "swd_jax: cold": "threshold, cold",
    "bisection: a read for each bit": "bisection, a read for each bit",
    "np.partition on the host, copy included": "`np.partition`, with its copy",
    "jax.lax.top_k": "`jax.lax.top_k`",
    "jnp.sort": "`jnp.sort`",
}


def results(benchmark: str) -> list[dict[str, Any]]:
    folder = ROOT / "benchmarks" / "results"
    files = [folder / f"{benchmark}-cpu-{size}.json" for size in SIZES]
    return [json.loads(file.read_text()) for file in files]


def entry(result: dict[str, Any], name: str) -> dict[str, Any]:
    return next(entry for entry in result["entries"] if entry["name"] == name)


def milliseconds(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


def row(label: str, cells: list[str]) -> str:
    return " | ".join(["", label, *cells, ""]).strip() + "\n"


def table() -> str:
    alone, steps = results("selection"), results("optimizer_step")
    heads = [f"{r['weights'] / 1e6:.1f} M weights, {r['leaves']} leaves" for r in alone]
    lines = [row("", heads), row("---", ["---"] * len(heads))]
    reads = [
        min(e["median_ms"] for e in r["entries"] if e["name"].startswith("read"))
        for r in alone
    ]
    lines.append(row("one plain read of the weights", list(map(milliseconds, reads))))
    for name, label in ALONE.items():
        cells = []
        for of_size in (entry(r, name) for r in alone):
            cell = milliseconds(of_size["median_ms"])
            if "readings" in of_size:
                cell += f", {of_size['readings']} pass"
                cell += "es" if of_size["readings"] > 1 else ""
            cells.append(cell)
        lines.append(row(label, cells))
    for step in steps[0]["entries"]:
        name, base = step["name"], step["baseline"]
        if name == base:
            continue
        ratios = [entry(r, name)["times_baseline"] for r in steps]
        cells = [f"{ratio:.2f} times {base.split(',')[0]}" for ratio in ratios]
        lines.append(row(name, cells))
    return "".join(lines)


def steps_table() -> str:
    """The cost of a step with SWD next to its optimizer alone."""
    steps = results("optimizer_step")[:2]
    heads = [f"{r['weights'] / 1e6:.1f} M weights" for r in steps]
    lines = [row("", heads), row("---", ["---:"] * len(heads))]
    for base in dict.fromkeys(entry(steps[0], name)["baseline"] for name in STEPS):
        cells = [milliseconds(entry(r, base)["median_ms"]) for r in steps]
        lines.append(row(base, cells))
    for name in STEPS:
        cells = [
            f"{milliseconds(e['median_ms'])}, {e['times_baseline']:.2f} times"
            for e in (entry(r, name) for r in steps)
        ]
        lines.append(row(name, cells))
    return "".join(lines)


def structures_table() -> str:
    """The cost of each structure, criterion and scope."""
    return targets_table("structures")


def channels_table() -> str:
    """The cost of coupled channels."""
    return targets_table("channels")


def targets_table(benchmark: str) -> str:
    """The cost of a step with each target, next to single weights."""
    file = ROOT / "benchmarks" / "results" / f"{benchmark}-cpu-25.6M.json"
    rows = [
        row("", ["a step", "times plain magnitude", "temporary", "kept in the state"])
    ]
    rows.append(row("---", ["---:"] * 4))
    for entry in json.loads(file.read_text())["entries"]:
        temporary = entry["temp_percent_of_weights"]
        cells = [
            milliseconds(entry["median_ms"]),
            f"{entry['times_baseline']:.2f}",
            f"{temporary:,.{2 if temporary < 1 else 0}f} % of the weights",
            size(entry["state_bytes"]),
        ]
        rows.append(row(f"`{entry['name']}`", cells))
    return "".join(rows)


def latencies() -> list[dict[str, Any]]:
    """The measurements of shrunk networks, one entry for each network."""
    measured = []
    for file in ("shrunk-cpu", "shrunk-multiple8-cpu", "shrunk-multiple8-cpu-resnet50"):
        result = json.loads((ROOT / f"benchmarks/results/{file}.json").read_text())
        for entry in result["entries"]:
            name = entry["network"].replace("resnet", "ResNet-")
            multiple = result["config"]["multiple_of"]
            sizes = f"multiples of {multiple}" if multiple > 1 else "any"
            measured.append(entry | {"name": name, "sizes": sizes})
    return measured


def latency_table() -> str:
    """The latency of shrunk networks next to the whole ones."""
    heads = ["sizes", "operations left", "before", "after", "times faster"]
    rows = [row("", heads), row("---", ["---", *["---:"] * 4])]
    for entry in latencies():
        before, after = entry["before/milliseconds"], entry["after/milliseconds"]
        cells = [
            entry["sizes"],
            f"{entry['after/flops'] / entry['before/flops']:.1%}",
            milliseconds(before),
            milliseconds(after),
            f"{before / after:.2f}",
        ]
        rows.append(row(entry["name"], cells))
    return "".join(rows)


def size(count: int) -> str:
    return f"{count} bytes" if count < 10_000 else f"{count / 1e6:.0f} MB"


def fill(page: Path, *tables: str) -> None:
    """Replace the tables of a page, in their order."""
    before, *rest = page.read_text().split(START)
    for table, part in zip(tables, rest, strict=True):
        _, after = part.split(END)
        before += f"{START}\n{table}\n{END}{after}"
    page.write_text(before)


def main() -> None:
    fill(PAGE, table())
    fill(STRUCTURES_PAGE, structures_table())
    fill(PAPER_PAGE, steps_table())
    fill(CHANNELS_PAGE, channels_table(), latency_table())


if __name__ == "__main__":
    main()
