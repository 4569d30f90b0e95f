"""The tables and figures of paper.md and structures.md, from docs/results/.

python docs/figures/paper.py
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.append(str(ROOT / "examples"))

from experiments import choice_figures, figures, results, tables  # noqa: E402

PAGES = [ROOT / "docs" / "paper.md", ROOT / "docs" / "structures.md"]
IMAGES = ROOT / "docs" / "images"
PART = "<!-- table: {} -->\n", "<!-- end -->\n"
# Experiments that one figure shows side by side.
CHOICES = ("digits-structures", "mnist-structures", "text-structures")


def main() -> None:
    pages = {path: path.read_text() for path in PAGES}
    everything = "".join(pages.values())
    committed = {
        place.stem: results.read(place)
        for place in sorted((ROOT / "docs" / "results").glob("*.jsonl"))
    }
    for name, of_experiment in committed.items():
        for image in figures.draw(name, of_experiment, IMAGES):
            if image.name not in everything:
                image.unlink()
        table = tables.markdown(of_experiment)
        pages = {path: filled(page, name, table) for path, page in pages.items()}
    figure = choice_figures.draw({name: committed[name] for name in CHOICES})
    # Without matplotlib's version in the metadata, equal pictures are equal files.
    figure.savefig(IMAGES / "structures.png", metadata={"Software": None})
    for path, page in pages.items():
        path.write_text(page)


def filled(page: str, name: str, table: str) -> str:
    """Return the page with the table between its marks, if it has them."""
    start, end = (part.format(name) for part in PART)
    if start not in page:
        return page
    before, _, rest = page.partition(start)
    _, _, after = rest.partition(end)
    return f"{before}{start}\n{table}\n{end}{after}"


if __name__ == "__main__":
    main()
