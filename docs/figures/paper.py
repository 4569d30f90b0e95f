"""The tables and figures of paper.md, from the results in docs/results/.

python docs/figures/paper.py
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.append(str(ROOT / "examples"))

from experiments import figures, results, tables  # noqa: E402

PAGE = ROOT / "docs" / "paper.md"
PART = "<!-- table: {} -->\n", "<!-- end -->\n"


def main() -> None:
    page = PAGE.read_text()
    for place in sorted((ROOT / "docs" / "results").glob("*.jsonl")):
        found = results.read(place)
        for image in figures.draw(place.stem, found, ROOT / "docs" / "images"):
            if image.name not in page:
                image.unlink()
        start, end = (part.format(place.stem) for part in PART)
        if start in page:
            before, _, rest = page.partition(start)
            _, _, after = rest.partition(end)
            table = tables.markdown(found)
            page = f"{before}{start}\n{table}\n{end}{after}"
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
