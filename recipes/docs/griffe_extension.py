"""Makes Markdown of hf_l3rs's docstrings before the reference is drawn; what has a place in it is linked."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import griffe


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # mkdocs loads this file by its path

import hf_l3rs
from recipes.docs.docstrings import to_markdown
from recipes.docs.public import documented


class HuggingFaceDocstrings(griffe.Extension):
    """Rewrites the docstrings of the package."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Called by griffe when a package is loaded."""
        if pkg.name == "hf_l3rs":
            _rewrite(pkg, Links(pkg))


def _rewrite(item: griffe.Object, links: Links) -> None:
    if isinstance(item, griffe.Class):
        _show_arguments(item)
    if item.docstring:
        item.docstring.value = to_markdown(item.docstring.value, lambda name, shown: links.to(item, name, shown))
    for member in item.members.values():
        if not member.is_alias:
            _rewrite(member, links)


def _show_arguments(item: griffe.Class) -> None:
    """A constructor that hands its arguments on shows those of its base; defaults are shown as they come out."""
    constructor = item.members.get("__init__")
    if not isinstance(constructor, griffe.Function):
        return
    if {"args", "kwargs"} <= {parameter.name for parameter in constructor.parameters}:
        bases = [base.members["__init__"] for base in item.mro() if "__init__" in base.members]
        if bases:
            constructor.parameters = bases[0].parameters
    for parameter in constructor.parameters:
        default = re.fullmatch(r"\(lambda: (.*)\)\(\)", str(parameter.default))
        parameter.default = default[1] if default else parameter.default


class Links:
    """
    Where the reference has a name.

    Args:
        package (`griffe.Module`): Whose names are linked.
    """

    def __init__(self, package: griffe.Module) -> None:
        self.package = package
        modules = hf_l3rs._MODULES
        public = {f"hf_l3rs.{name}": f"hf_l3rs.{module}.{name}" for name, module in modules.items()}
        self.anchors = {alias: name for name in documented() for alias in (name, public.get(name, name))}

    def to(self, item: griffe.Object, name: str, shown: str) -> str:
        """Returns a link to a name as an object's docstring has it; the bare name if the reference has it not."""
        for path in self._paths(item, name):
            owner, _, member = path.rpartition(".")
            if path in self.anchors:
                return f"[`{shown}`][{self.anchors[path]}]"
            if owner in self.anchors and self._has(self.anchors, owner, member):
                return f"[`{shown}`][{self.anchors[owner]}.{member}]"
        return f"`{shown}`"

    def _paths(self, item: griffe.Object, name: str) -> list[str]:
        """What a name may stand for: itself, what the module knows by it, a public name."""
        first, dot, rest = name.partition(".")
        paths = [name]
        try:
            paths.append(item.resolve(first) + dot + rest)
        except griffe.NameResolutionError:
            pass
        return [*paths, f"hf_l3rs.{name}"]

    def _has(self, anchors: dict[str, str], owner: str, member: str) -> bool:
        """Whether a class has a member that is documented."""
        path = next(path for path, anchor in anchors.items() if anchor == anchors[owner] and path.count(".") > 1)
        members = self.package[path.removeprefix("hf_l3rs.")].all_members
        return member in members and bool(members[member].docstring)
