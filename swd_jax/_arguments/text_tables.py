"""Plain-text tables and lists for reports."""

from collections.abc import Sequence

_LEAVES_NAMED = 3


def format_table(
    rows: Sequence[Sequence[str]], *, label_columns: int, has_totals: bool = False
) -> str:
    """Return rows in aligned columns, with a rule below the headings.

    Args:
      rows: cells; the first row has the headings.
      label_columns: the number of first columns that are aligned to the left; the
        others, of numbers, are aligned to the right.
      has_totals: whether the last row has totals, which get a rule above them.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_align(row, widths, label_columns) for row in rows]
    rule = "-" * len(lines[0])
    lines.insert(1, rule)
    if has_totals:
        lines.insert(-1, rule)
    return "\n".join(lines)


def _align(row: Sequence[str], widths: Sequence[int], label_columns: int) -> str:
    cells = [
        cell.ljust(width) if column < label_columns else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def first_leaves(names: Sequence[str]) -> str:
    """Return the first names of leaves, and the number of the others, in words."""
    first = [*names[:_LEAVES_NAMED]]
    if len(names) > _LEAVES_NAMED:
        first.append(f"{len(names) - _LEAVES_NAMED:,} more leaves")
    return " and ".join(filter(None, [", ".join(first[:-1]), first[-1]]))
