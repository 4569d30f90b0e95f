"""The figures of paper.md and structures.md, from docs/results/.

python docs/figures/paper.py
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.append(str(ROOT / "examples"))

from experiments import choice_figures, figures, results  # noqa: E402

PAGES = [ROOT / "docs" / "paper.md", ROOT / "docs" / "structures.md"]
IMAGES = ROOT / "docs" / "images"
# Experiments that one figure shows side by side.
CHOICES = ("digits-structures", "mnist-structures", "text-structures")


def main() -> None:
    everything = "".join(path.read_text() for path in PAGES)
    committed = {
        place.stem: results.read(place)
        for place in sorted((ROOT / "docs" / "results").glob("*.jsonl"))
    }
    for name, of_experiment in committed.items():
        for image in figures.draw(name, of_experiment, IMAGES):
            if image.name not in everything:
                image.unlink()
    figure = choice_figures.draw({name: committed[name] for name in CHOICES})
    # Without matplotlib's version in the metadata, equal pictures are equal files.
    figure.savefig(IMAGES / "structures.png", metadata={"Software": None})


if __name__ == "__main__":
    main()
