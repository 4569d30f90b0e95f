"""Prints the oldest allowed release of each runtime dependency, for `pip -c`."""

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def main():
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    for requirement in project["dependencies"]:
        found = re.match(r"([\w.-]+)\s*>=\s*([\w.]+)", requirement)
        if found is None:
            raise SystemExit(f"pyproject.toml: no lower bound in {requirement!r}")
        print("==".join(found.groups()))


if __name__ == "__main__":
    main()
