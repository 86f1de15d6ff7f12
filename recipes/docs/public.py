"""Which names have a place in the reference: those that its pages ask for."""

from __future__ import annotations

import re
from pathlib import Path


PAGES = Path(__file__).parent / "pages"


def documented() -> list[str]:
    """Returns the full names of everything that a page of the reference documents."""
    pages = sorted((PAGES / "api").glob("*.md"))
    return [name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.M)]
