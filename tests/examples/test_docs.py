"""The Python in the pages and the README runs, and prints what they say."""

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import swd_jax
from tests.helpers import quickly

# Other tests run the same lines of the library.
pytestmark = pytest.mark.no_cover

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "docs"))

import check_snippets  # noqa: E402
import fill_tables  # noqa: E402

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_pages_have_the_tables_that_their_command_writes(page):
    assert fill_tables.filled(page.read_text()) == page.read_text()


def test_the_python_of_every_page_runs(tmp_path):
    """In one process of its own, since only XLA_FLAGS reach the library's programs."""
    options = {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "XLA_FLAGS": quickly.flags(),
    }
    program = [sys.executable, "-W", "error", check_snippets.__file__]
    done = subprocess.run(
        [*program, *map(str, PAGES)],
        cwd=tmp_path,
        env=os.environ | options,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for page in PAGES:
        assert re.search(rf"{page.name}: \d+ snippets", done.stdout)


def test_there_is_python_to_run():
    counts = {page.name: len(list(check_snippets.snippets(page))) for page in PAGES}
    assert counts["README.md"] >= 2
    assert sum(counts.values()) >= 20


def test_what_a_page_prints_is_compared(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md"):
        check_snippets.run(page)


def test_the_tables_of_costs_are_those_of_the_committed_results(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "figures"))
    cost_table = importlib.import_module("cost_table")
    for name, table in [
        ("selection.md", cost_table.table()),
        ("structures.md", cost_table.structures_table()),
        ("paper.md", cost_table.steps_table()),
        ("channels.md", cost_table.channels_table()),
        ("channels.md", cost_table.latency_table()),
    ]:
        page = (ROOT / "docs" / name).read_text()
        assert cost_table.START + "\n" + table in page


def test_the_readme_quotes_the_committed_results():
    folder = ROOT / "benchmarks" / "results"
    page = " ".join((ROOT / "README.md").read_text().split())

    def of(benchmark, name, key):
        result = json.loads((folder / f"{benchmark}-cpu-25.6M.json").read_text())
        [entry] = [e for e in result["entries"] if e["name"] == name]
        return entry[key]

    moved = of("selection", "swd_jax: warm, moved weights", "median_ms")
    cold = of("selection", "swd_jax: cold", "median_ms")
    sort = of("selection", "jnp.sort", "median_ms")
    top_k = of("selection", "jax.lax.top_k", "median_ms")
    step = of("optimizer_step", "swd + adam", "times_baseline")
    tenth = of("optimizer_step", "swd + adam, update_every=10", "times_baseline")
    near = of("optimizer_step", "swd + adam, tolerance=1e-4", "times_baseline")
    decay = of("optimizer_step", "fixed threshold + adam", "times_baseline")
    sparsify = of("optimizer_step", "adam + sparsify", "times_baseline")
    shrunk = json.loads((folder / "shrunk-multiple8-cpu-resnet50.json").read_text())
    half, quarter = (
        entry["before/milliseconds"] / entry["after/milliseconds"]
        for entry in shrunk["entries"]
    )
    for words in (
        f"a ResNet-50 is {half:.1f} times as fast on a CPU, with a quarter left "
        f"{quarter:.1f} times",
        f"takes {moved:.0f} ms once",
        f"and {cold:.0f} ms without",
        f"`jnp.sort` takes {sort:,.0f} and `jax.lax.top_k` {top_k:,.0f}",
        f"takes {step:.1f} times a plain one, with `tolerance=1e-4` {near:.1f} times, "
        f"and with `update_every=10` {tenth:.1f} times; the decay alone takes "
        f"{decay:.1f} times",
        f"`sparsify` takes {sparsify:.1f} times a plain step",
    ):
        assert words in page


def test_the_page_on_selection_quotes_the_results_for_a_billion_weights():
    file = ROOT / "benchmarks" / "results" / "selection-cpu-1G.json"
    entries = {e["name"]: e for e in json.loads(file.read_text())["entries"]}

    def of(name, key="median_ms"):
        return entries[name][key]

    moved, partition = "swd_jax: warm, moved weights", "np.partition on the host, "
    partition += "copy included"
    page = " ".join((ROOT / "docs" / "selection.md").read_text().split())
    for words in (
        f"a plain read takes {of('read: jnp.max of each leaf'):.0f} ms",
        f"threshold {of(moved):.0f} ms when the weights have moved",
        f"{of('swd_jax: cold'):.0f} ms cold",
        f"{of(moved, 'temp_bytes') / 1e3:.0f} KB of temporary memory",
        f"takes {of(partition):,.0f} ms and {of(partition, 'temp_bytes') / 1e9:.1f} GB",
    ):
        assert words in page
    assert "needs" in of("jnp.sort", "failure")


def test_the_index_of_the_api_has_all_that_is_public():
    page = (ROOT / "docs" / "api.md").read_text()
    index = page[: page.index("\n## ")]
    public = {name for name in dir(swd_jax) if not name.startswith("_")}
    for namespace in {n for n in public if inspect.ismodule(getattr(swd_jax, n))}:
        public |= {
            f"{namespace}.{name}"
            for name, item in vars(getattr(swd_jax, namespace)).items()
            if not name.startswith("_") and not inspect.ismodule(item)
        }
    # A name that is flat as well is listed once, by its short path.
    public -= {path for path in public if path.rpartition(".")[2] in public - {path}}
    for text in (index, page[len(index) :]):
        named = set(re.findall(r"swd_jax\.([\w.]+\w)", text))
        named |= {path.partition(".")[0] for path in named}
        assert public <= named, public - named
