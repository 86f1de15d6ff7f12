"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


ALIGNMENTS = {"left": ":--", "right": "--:"}


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[Any]], alignments: Sequence[str] = ()) -> str:
    """
    Returns a table. What is in a cell stays in it: a line break or a bar would end it.

    Args:
        headers (`Sequence[str]`): One a column.
        rows (`Iterable[Sequence]`): Cells, brought to text by `str`; `None` is an empty cell.
        alignments (`Sequence[str]`, *optional*): `"left"` or `"right"`, one a column; all left by default.
    """
    rules = [ALIGNMENTS[alignment] for alignment in alignments] or [ALIGNMENTS["left"]] * len(headers)
    return "\n".join(_line(cells) for cells in (headers, rules, *rows))


def _line(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(markdown_cell(cell) for cell in cells) + " |"


def markdown_cell(value: Any) -> str:
    """Returns a value as the text of one cell."""
    return "" if value is None else " ".join(str(value).replace("|", r"\|").split())
