"""The documentation: every public name has a place, every link leads somewhere, notebook and site work offline."""

import json
import re
import sys

import pytest
import yaml

import hf_l3rs
from recipes.docs.docstrings import to_markdown
from recipes.docs.links import ELSEWHERE, INCLUDE, PAGES, ROOT, Rewriter, pieces, section, targets
from recipes.docs.notebook import to_page
from recipes.docs.public import documented


NOTEBOOK = PAGES.parent / "quickstart.ipynb"
SOURCES = [*PAGES.rglob("*.md"), *(ROOT / source for source in ELSEWHERE.values() if source.endswith(".md"))]
CONFIG = PAGES.parent / "mkdocs.yml"


def bare(name, shown):
    return f"<{name}|{shown}>"


def test_every_public_name_has_a_place():
    names = documented()
    assert len(names) == len(set(names))
    assert {f"hf_l3rs.{name}" for name in hf_l3rs.__all__} <= set(names)


@pytest.mark.parametrize("page", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for text, folder in pieces(page.read_text(encoding="utf-8"), page.parent):
        missing = [str(target) for target in targets(text, folder) if not target.exists()]
        assert not missing


def test_a_broken_link_would_be_found():
    assert not any(target.exists() for target in targets("[a](nowhere.md) ![b](../none.png#c)", PAGES))
    assert list(targets("[a](https://example.org)", PAGES)) == []


def test_every_page_is_in_the_navigation():
    def leaves(entry):
        if isinstance(entry, str):
            yield entry
        else:
            for value in entry.values() if isinstance(entry, dict) else entry:
                yield from leaves(value)

    nav = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["nav"]
    pages = [path.relative_to(PAGES).as_posix() for path in PAGES.rglob("*.md")]
    assert sorted(leaves(nav)) == sorted([*pages, *ELSEWHERE])


def test_sections_are_included_with_their_own_links():
    page = PAGES / "make.md"
    text = page.read_text(encoding="utf-8")
    assert INCLUDE.search(text)
    rewriter = Rewriter("make.md")
    whole = "".join(rewriter.rewrite(piece, folder) for piece, folder in pieces(text, page.parent))
    assert not INCLUDE.search(whole) and "hf-l3rs init --model" in whole
    assert "(cards/l3rs-universal-start.md)" in whole and "(files/recipes/configs/template.yaml)" in whole
    assert rewriter.attached["files/recipes/configs/template.yaml"] == ROOT / "recipes/configs/template.yaml"
    with pytest.raises(ValueError, match="no section 'Nothing'"):
        section(ROOT / "README.md", "Nothing")


def test_the_costs_of_every_released_optimizer_are_told_by_its_own_config():
    page = PAGES / "make.md"
    rewriter = Rewriter("make.md")
    text = "".join(rewriter.rewrite(*piece) for piece in pieces(page.read_text(encoding="utf-8"), page.parent))
    released = sorted(path.parent for path in (ROOT / "hf_l3rs/released").glob("*/config.json"))
    assert len(released) >= 5
    for folder in released:
        assert text.count(f"[{folder.name}](cards/{folder.name}.md)") == 2, "to choose, and what it took"
        run = json.loads((folder / "config.json").read_text(encoding="utf-8"))["meta_training"]
        assert f"| {run['inner_steps']:,.0f} | {run['cost_in_plain_steps']:,.0f} |" in text
    assert "| mobilenet-v2, the head alone | gradient, 1 |" in text and "<!-- table" not in text


def test_docstrings_become_markdown():
    text = to_markdown(
        """
        Does. See [`~hf_l3rs.L3RS`].

        Args:
            a, b (`int` or `(x, y)`, *optional*): First
                and on [`L3RS.bind`].
            kwargs: The rest.

        Returns:
            `int`: What
            comes out.

        Raises:
            ConfigError: If not.

        Example:

        ```python
        f()
        ```
        """,
        bare,
    )
    assert text.split("\n\n") == [
        "Does. See <hf_l3rs.L3RS|L3RS>.",
        "**Arguments**",
        "- **`a`**, **`b`** (`int` or `(x, y)`, *optional*): First and on <L3RS.bind|L3RS.bind>.\n"
        "- **`kwargs`**: The rest.",
        "**Returns**",
        "`int`: What\ncomes out.",
        "**Raises**",
        "- **`ConfigError`**: If not.",
        "**Example**",
        "```python\nf()\n```",
    ]


@pytest.mark.parametrize("name", hf_l3rs.__all__)
def test_no_docstring_keeps_its_sections(name):
    text = to_markdown(getattr(hf_l3rs, name).__doc__, bare)
    assert not re.search(r"^\s*(Args|Returns|Raises|Yields|Attributes|Example):$|\[`", text, re.MULTILINE)


def test_the_notebook_is_a_page_and_holds_no_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
    assert to_page(NOTEBOOK).startswith("# Quickstart\n") and "```python\noptimizer = " not in to_page(NOTEBOOK)[:200]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    for package in ("ipykernel", "matplotlib"):
        pytest.importorskip(package)
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {"display_name": "here", "language": "python", "argv": command}
    folder = tmp_path / "kernels/here"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(kernel), encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="here", resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    results = [output["data"] for output in outputs if "data" in output]
    accuracy = next(data["text/plain"] for data in results if "% right after 20 steps" in data["text/plain"])
    assert float(accuracy.strip("'").split()[0]) > 85
    assert any("image/png" in data for data in results) and any("share_muon" in data["text/plain"] for data in results)


@pytest.mark.slow
def test_the_site_builds_without_the_network(tmp_path, monkeypatch):
    for package in ("material", "mkdocstrings_handlers.python"):
        pytest.importorskip(package)
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    build, config = pytest.importorskip("mkdocs.commands.build"), pytest.importorskip("mkdocs.config")

    def refuse(*args):
        raise AssertionError("The build reaches for the network.")

    monkeypatch.setattr("socket.socket.connect", refuse)
    build.build(config.load_config(str(CONFIG), site_dir=str(tmp_path)))  # strict: warnings are errors
    pages = {
        path.relative_to(tmp_path).as_posix(): path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")
    }
    for name in hf_l3rs.__all__:
        assert sum(f'id="hf_l3rs.{name}"' in text for text in pages.values()) == 1, name
    for name, text in pages.items():
        fetched = re.findall(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*>", text)
        assert [tag for tag in fetched if 'rel="canonical"' not in tag] == [], name
        assert "<!-- include" not in text and "<!-- table" not in text and "[`" not in text
    optimizer = pages["api/optimizer.html"]
    assert 'href="artifact.html#hf_l3rs.L3RSConfig"' in optimizer and 'href="#hf_l3rs.L3RS.bind"' in optimizer
    assert (tmp_path / "files/model_cards/l3rs-resnet-tiny-fashion/curves.png").is_file()
    assert (tmp_path / "search/search_index.json").is_file()
