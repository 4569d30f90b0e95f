"""Write the tables of committed results into the pages that have a place for them.

    python docs/fill_tables.py           # writes them
    python docs/fill_tables.py --check   # only says which pages are out of date

A place is everything between `<!-- table: NAME -->` and `<!-- end -->`, for the table
of one experiment, or `<!-- compare: NAME NAME ... -->`, for `paper.py compare`.
"""

import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "examples"))

from experiments import comparison, results, study, tables  # noqa: E402

PLACE = re.compile(
    r"(<!-- (?P<kind>table|compare): (?P<names>[^>]+) -->\n).*?(<!-- end -->)", re.S
)


def filled(page: str) -> str:
    """The text of a page with its tables as the committed results have them."""
    return PLACE.sub(_place, page)


def _place(match: re.Match[str]) -> str:
    names = match["names"].split()
    found = [
        result
        for name in names
        for result in results.read(DOCS / "results" / f"{name}.jsonl")
    ]
    if match["kind"] == "table":
        table = tables.markdown(found)
    else:
        cells = comparison.cells(found, methods=study.COMPARED_METHODS, most_kept=10)
        table = comparison.markdown(cells)
    return f"{match[1]}\n{table}\n{match[4]}"


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
