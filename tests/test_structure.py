"""The house: no import leads back, imports go downwards, names say one thing, and the budget is kept."""

import ast
from collections import Counter
from pathlib import Path


ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hf_l3rs"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
# What may import what: a room's modules import from their own room and from those below.
FLOORS = [
    {"distributed", "errors", "files", "markdown", "settings", "validation"},
    {"optimizer"},
    {"hub", "trainer"},
    {"tasks"},
    {"evaluation", "meta"},
    {"cli"},
]


def imports_of(path):
    """The package's modules that a file imports at its top: an import in a function waits until it is called."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hf_l3rs"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("hf_l3rs."))


GRAPH = {name: set(imports_of(path)) for name, path in MODULES.items() if name != "hf_l3rs"}


def test_no_import_leads_back():
    done, path = set(), []

    def visit(name):
        if name in done:
            return
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        path.append(name)
        for other in sorted(GRAPH.get(name, ())):
            visit(other)
        path.pop()
        done.add(name)

    for name in sorted(GRAPH):
        visit(name)


def floor_of(name):
    room = name.split(".")[1]
    return next(floor for floor, rooms in enumerate(FLOORS) if room in rooms)


def test_imports_go_downwards():
    for name, others in GRAPH.items():
        for other in others - {"hf_l3rs"}:
            assert floor_of(name) >= floor_of(other), f"{name} imports {other}"


def test_no_two_files_have_one_name():
    names = Counter(path.name for path in MODULES.values() if path.name != "__init__.py")
    assert [name for name, count in names.items() if count > 1] == []
