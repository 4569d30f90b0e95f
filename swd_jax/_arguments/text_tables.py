"""Plain tables for reports."""

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]], *, names: int, totals: bool = False) -> str:
    """Rows in aligned columns, with a line below the first.

    Args:
      rows: cells; the first row has the headings.
      names: how many of the first columns are aligned to the left.
      totals: whether the last row sums up the others, and has a line above it.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_aligned(row, widths, names) for row in rows]
    rule = "-" * len(lines[0])
    lines.insert(1, rule)
    if totals:
        lines.insert(-1, rule)
    return "\n".join(lines)


def _aligned(row: Sequence[str], widths: Sequence[int], names: int) -> str:
    cells = [
        cell.ljust(width) if column < names else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
