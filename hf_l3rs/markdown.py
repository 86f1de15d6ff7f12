"""Text and tables in Markdown: what a value says is shown, and nothing that it could do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any


ALIGNMENTS = {"left": ":--", "right": "--:"}


def one_line(value: Any) -> str:
    """Returns a value as text on one line, without characters that a terminal would obey rather than show."""
    shown = "".join(char if char.isprintable() or char.isspace() else "\ufffd" for char in str(value))
    return " ".join(shown.split())


def duration(seconds: float) -> str:
    """Returns a time in the unit that says it in two digits or so: `"45 s"`, `"12 min"` or `"1.5 hours"`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def mean_with_stderr(mean: float, stderr: float | None, digits: int = 3) -> str:
    """Returns a mean with its standard error where that is known, which a single value has not: `"0.222 ± 0.009"`."""
    return f"{mean:.{digits}f}" if stderr is None else f"{mean:.{digits}f} ± {stderr:.{digits}f}"


def percent_with_stderr(share: float, stderr: float | None) -> str:
    """Returns a mean share in percent with its standard error where that is known: `"92.3 ± 0.2 %"`."""
    return f"{mean_with_stderr(100 * share, None if stderr is None else 100 * stderr, 1)} %"


def listed(values: Iterable[Any]) -> str:
    """Returns at least one value as a list in a sentence: `"10, 20 and 50"`."""
    *first, last = map(str, values)
    return f"{', '.join(first)} and {last}" if first else last


def markdown_text(value: Any) -> str:
    """Returns a value as text in a line of Markdown: neither HTML, comments nor links come to life."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", one_line(value).replace("\\", r"\\"))
    return text.replace("<", "&lt;").replace("](", r"]\(")


def markdown_cell(value: Any) -> str:
    """Returns a value as the text of one cell; `None` is an empty one."""
    return "" if value is None else markdown_text(value).replace("|", r"\|")


def markdown_code(value: Any) -> str:
    """Returns a value as a span of code, which shows HTML as it is. Comments, which mark parts of cards, are cut."""
    return f"`{one_line(value).replace('`', chr(39)).replace('<!--', '<! --')}`"


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[Any]], alignments: Sequence[str] = ()) -> str:
    """Returns a table of any values, each column `"left"` or `"right"`. Bars and line breaks stay in their cells."""
    rules = [ALIGNMENTS[alignment] for alignment in alignments or ["left"] * len(headers)]
    lines = [headers, rules, *rows]
    if any(len(cells) != len(headers) for cells in lines):
        raise ValueError(f"A table of {len(headers)} columns needs as many cells in every row.")
    return "\n".join(f"| {' | '.join(map(markdown_cell, cells))} |" for cells in lines)
