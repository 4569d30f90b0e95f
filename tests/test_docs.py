"""The Python in the pages and the README runs, and prints what they say."""

import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "docs"))

import check_snippets  # noqa: E402

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    # Readers' own code adds biases to rows.
    with jax.numpy_rank_promotion("allow"):
        check_snippets.run(page)


def test_there_is_python_to_run():
    counts = {page.name: len(list(check_snippets.snippets(page))) for page in PAGES}
    assert counts["README.md"] >= 2
    assert sum(counts.values()) >= 20


def test_what_a_page_prints_is_compared(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md"):
        check_snippets.run(page)
