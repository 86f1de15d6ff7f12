"""The house: no import leads back, no room is too large, every module has its tests."""

import ast
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hf_l3rs"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
# What may import what: a room's modules import from their own room and from those below.
FLOORS = [
    {"errors", "files", "markdown", "validation"},
    {"learned"},
    {"hub", "images", "settings"},
    {"integration", "optimizer", "tasks"},
    {"evaluation"},
    {"meta"},
    {"commands"},
    {"cli"},
]


def imports_of(path):
    """The package's modules that a file imports anywhere, but for what only a type checker sees."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hf_l3rs"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("hf_l3rs."))


GRAPH = {name: set(imports_of(path)) for name, path in MODULES.items() if name != "hf_l3rs"}


def test_no_import_leads_back():
    """Imports inside of functions count, too."""
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


@pytest.mark.parametrize("path", sorted(MODULES.values()), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_classes_keep_to_their_size(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno - node.lineno < 250, node.name


# What holds types only is tested with what uses it.
TYPES_ONLY = {"hf_l3rs.errors", "hf_l3rs.meta.estimator", "hf_l3rs.tasks.seeds"}
WITH_TESTS = sorted(name for name in GRAPH.keys() - TYPES_ONLY if MODULES[name].name != "__init__.py")


@pytest.mark.parametrize("name", WITH_TESTS)
def test_every_module_has_its_test_file(name):
    *rooms, module = name.split(".")[1:]
    assert (ROOT / "tests").joinpath(*rooms, f"test_{module}.py").is_file()
