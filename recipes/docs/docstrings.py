"""Docstrings in Hugging Face's format as Markdown, in the form that Hugging Face's own documentation gives them."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator


# Sections that are lists of entries, and those that are text.
LISTS = {"Args": "Arguments", "Attributes": "Attributes", "Raises": "Raises"}
TEXTS = {"Returns": "Returns", "Yields": "Yields"}
REFERENCE = re.compile(r"\[`(~?)([\w.]+)`\](?![\[(])")


def to_markdown(docstring: str) -> str:
    """
    Returns a docstring as Markdown.

    Args:
        docstring (`str`): In Hugging Face's format, with sections such as `Args:`.
    """
    text = "\n\n".join(part for part in _parts(inspect.cleandoc(docstring)) if part)
    return REFERENCE.sub(lambda match: f"`{match[2].rpartition('.')[2] if match[1] else match[2]}`", text)


def _parts(text: str) -> Iterator[str]:
    """The docstring's text and sections, in their order."""
    plain: list[str] = []
    lines = text.split("\n")
    while lines:
        name, colon, rest = (line := lines.pop(0)).partition(":")
        if not colon or rest or name not in {*LISTS, *TEXTS, "Example"}:
            plain.append(line)
            continue
        yield "\n".join(plain).strip()
        plain = []
        if name == "Example":
            yield "**Example**"
            continue
        block = []
        while lines and (not lines[0] or lines[0].startswith(" ")):
            block.append(lines.pop(0))
        body = textwrap.dedent("\n".join(block)).strip()
        if name in TEXTS:
            yield f"**{TEXTS[name]}**"
            yield body
        else:
            yield f"**{LISTS[name]}**"
            yield "\n".join(f"- {_entry(entry)}" for entry in _entries(body))
    yield "\n".join(plain).strip()


def _entries(block: str) -> Iterator[str]:
    """The entries of a list, each on one line: what is indented goes on."""
    for entry in re.split(r"\n(?=\S)", block):
        yield " ".join(entry.split())


def _entry(entry: str) -> str:
    """``name (`type`, *optional*): text`` with the name set off; several names may share a text."""
    end = min(at for at in (entry.find(" ("), entry.find(":"), len(entry)) if at >= 0)
    names = ", ".join(f"**`{name.strip()}`**" for name in entry[:end].split(","))
    return names + entry[end:]
