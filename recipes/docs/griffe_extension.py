"""Makes Markdown of the docstrings of hf_l3rs before the reference is drawn."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import griffe


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # mkdocs loads this file by its path

from recipes.docs.docstrings import to_markdown


class HuggingFaceDocstrings(griffe.Extension):
    """Rewrites the docstrings of the package."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Called by griffe when a package is loaded."""
        if pkg.name == "hf_l3rs":
            _rewrite(pkg)


def _rewrite(item: griffe.Object) -> None:
    if item.docstring:
        item.docstring.value = to_markdown(item.docstring.value)
    for member in item.members.values():
        if isinstance(member, griffe.Function) and member.name == "__init__":
            for parameter in member.parameters:  # of a dataclass: what the factory of a default gives
                made = re.fullmatch(r"\(lambda: (.*)\)\(\)", str(parameter.default))
                parameter.default = made[1] if made else parameter.default
        if not member.is_alias:
            _rewrite(member)
