"""A notebook as a page."""

from __future__ import annotations

import json
from pathlib import Path


def to_page(path: Path) -> str:
    """Returns the texts and the code of a notebook as Markdown."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join(
        text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"
        for cell in cells
        if (text := "".join(cell["source"]).strip())
    )
