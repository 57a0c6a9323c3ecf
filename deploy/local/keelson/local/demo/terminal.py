"""Plain text for a terminal of 100 columns: headings and aligned tables, no colours."""

import sys
import textwrap
from collections.abc import Sequence
from contextlib import suppress

WIDTH = 100
_GAP = 2
_NARROWEST = 12


def say(*lines: str) -> None:
    """Print lines at once."""
    # The terminal may be closed, or the reader of a pipe gone: no reason to leave things running.
    with suppress(OSError):
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()


def heading(text: str) -> str:
    """Give a heading with a line under it and an empty one above."""
    return f"\n{text}\n{'-' * len(text)}"


def paragraph(text: str) -> str:
    """Give text wrapped to the width."""
    return textwrap.fill(" ".join(text.split()), WIDTH)


def table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Give rows in aligned columns under titles; the last column takes what is left of the width, and wraps."""
    cells = [[_text(cell) for cell in row] for row in rows]
    return "\n".join(table_lines(titles, cells, column_widths([list(titles), *cells])))


def column_widths(cells: Sequence[Sequence[str]]) -> list[int]:
    """Give each column the width of its widest cell, but the last one what is left."""
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    left = WIDTH - sum(widths[:-1]) - _GAP * (len(widths) - 1)
    return [*widths[:-1], max(left, _NARROWEST)]


def table_lines(titles: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> list[str]:
    """Give the lines of a table whose columns have these widths."""
    return [line for row in (titles, *rows) for line in row_lines(row, widths)]


def row_lines(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Give the lines of one row: more than one where its last cell wraps."""
    wrapped = textwrap.wrap(row[-1], widths[-1]) or [""]
    starts = [list(row[:-1])] + [[""] * (len(row) - 1)] * (len(wrapped) - 1)
    gap = " " * _GAP
    return [
        gap.join([*(cell.ljust(width) for cell, width in zip(start, widths, strict=False)), last]).rstrip()
        for start, last in zip(starts, wrapped, strict=True)
    ]


def _text(cell: object) -> str:
    return "-" if cell is None or cell == "" else str(cell)
