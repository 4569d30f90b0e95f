"""Run the ```python blocks of pages, in order, in one namespace for each page.

    python docs/check_snippets.py              # all pages in docs/
    python docs/check_snippets.py README.md    # these

A ```text block that directly follows is what must be printed, as in a doctest ("..."
stands for anything, runs of blanks are alike). Exits with 1 if a page fails.
"""

import contextlib
import doctest
import io
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\s*^```text\n(?P<printed>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)
_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Snippet(NamedTuple):
    line: int
    code: str
    printed: str | None


def snippets(page: Path) -> Iterator[Snippet]:
    text = page.read_text(encoding="utf-8")
    for block in _BLOCK.finditer(text):
        line = text.count("\n", 0, block.start("code"))
        yield Snippet(line, block["code"], block["printed"])


def run(page: Path) -> int:
    """Run a page's snippets and return their number; raise where one fails."""
    namespace = {"__name__": "__main__"}
    in_order = list(snippets(page))
    for snippet in in_order:
        # Blank lines before the code, so that a traceback has the page's line numbers.
        code = compile("\n" * snippet.line + snippet.code, str(page), "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)  # noqa: S102, the pages are ours
        example = doctest.Example(snippet.code, snippet.printed or "")
        checker = doctest.OutputChecker()
        if snippet.printed is not None and not checker.check_output(
            example.want, printed.getvalue(), _FLAGS
        ):
            difference = checker.output_difference(example, printed.getvalue(), _FLAGS)
            raise AssertionError(f"{page}, after line {snippet.line}:\n{difference}")
    return len(in_order)


def main(pages: list[Path]) -> int:
    failed = False
    for page in pages:
        try:
            result = f"{run(page)} snippets"
        except Exception:
            failed, result = True, "FAILED\n" + traceback.format_exc()
        sys.stdout.write(f"{page}: {result}\n")
    return int(failed)


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:]]
    sys.exit(main(given or sorted(Path(__file__).parent.glob("*.md"))))
