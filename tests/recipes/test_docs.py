"""The documentation: links lead somewhere, examples run, docstrings become Markdown, and the site builds offline."""

import os
import re
import subprocess
import sys

import pytest

import hf_l3rs
from recipes.docs.build import ROOT, build, pages, reference
from recipes.docs.docstrings import to_markdown


PAGES = [path for path in pages() if path.suffix == ".md"]
LINK = re.compile(r"!?\[[^\]\n]*\]\(([^)\s#]+)?(?:#([^)\s]*))?\)")


def anchors(path):
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists() and path.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


def test_every_public_name_is_in_the_reference():
    assert sorted(re.findall(r"^::: hf_l3rs\.(\w+)$", reference(), re.MULTILINE)) == sorted(hf_l3rs.__all__)


def test_docstrings_become_markdown():
    lines = ("Does. See [`~hf_l3rs.L3RS`].", "", "Args:", "    a, b (`int`, *optional*): First", "        and on.", "")
    text = to_markdown("\n".join([*lines, "Returns:", "    `int`: What."]))
    entry = "- **`a`**, **`b`** (`int`, *optional*): First and on."
    assert text.split("\n\n") == ["Does. See `L3RS`.", "**Arguments**", entry, "**Returns**", "`int`: What."]


@pytest.mark.slow
def test_the_quickstart_runs(tmp_path):
    text = (ROOT / "recipes/docs/pages/quickstart.md").read_text(encoding="utf-8")
    trainer, loop = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    batches = (
        "from torch.utils.data import default_collate\nbatches = [default_collate([train[i] for i in range(8)])] * 2"
    )
    code = f"{trainer}\n{batches}\n{loop}".replace("outputs/quickstart", str(tmp_path))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert result.returncode == 0, result.stderr
    accuracy = re.search(r"'eval_accuracy': '?([\d.]+)", result.stdout)
    assert float(accuracy[1]) > 0.85


@pytest.mark.slow
def test_the_site_builds_without_the_network(tmp_path, monkeypatch):
    for package in ("material", "mkdocstrings_handlers.python"):
        pytest.importorskip(package)
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")

    def refuse(*args):
        raise AssertionError("The build reaches for the network.")

    monkeypatch.setattr("socket.socket.connect", refuse)
    build(tmp_path)  # strict: warnings are errors
    site = {
        path.relative_to(tmp_path).as_posix(): path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")
    }
    for name in hf_l3rs.__all__:
        assert site["reference.html"].count(f'id="hf_l3rs.{name}"') == 1, name
    for name, text in site.items():
        fetched = re.findall(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*>", text)
        assert [tag for tag in fetched if 'rel="canonical"' not in tag] == [], name
    assert {"index.html", "recipes/results/index.html", "model_cards/l3rs-resnet-tiny-fashion/index.html"} <= set(site)
    assert (tmp_path / "model_cards/l3rs-resnet-tiny-fashion/curves.png").is_file()
