"""Links and includes of the pages: they are written as paths of the repository, and hold there and in the site."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from recipes.docs.costs import cost_table


ROOT = Path(__file__).resolve().parents[2]
PAGES = Path(__file__).resolve().parent / "pages"
MODEL_CARDS = ROOT / "model_cards"
# Pages of the site that are files of the repository elsewhere.
ELSEWHERE = {
    "quickstart.md": "recipes/docs/quickstart.ipynb",
    "recipes.md": "recipes/README.md",
    **{
        f"cards/{folder.name}.md": f"model_cards/{folder.name}/README.md"
        for folder in sorted(MODEL_CARDS.iterdir())
        if (folder / "README.md").is_file()
    },
}
LINK = re.compile(r"(!?)\[([^\]\n]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
INCLUDE = re.compile(r'^<!-- (?:include: (\S+) "([^"]+)"|table: (costs)) -->$', re.MULTILINE)
SCHEME = re.compile(r"[a-z]+:")


def section(path: Path, heading: str) -> str:
    """
    Returns a section of a Markdown file without its heading, or what stands between the markers of that name.

    Raises:
        ValueError: If there is none, so that the site is not built.
    """
    text = path.read_text(encoding="utf-8")
    name = re.escape(heading)
    found = re.search(rf"<!-- {name}:begin -->\n(.*?)<!-- {name}:end -->", text, re.DOTALL) or re.search(
        rf"^(?:#+) {name}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE
    )
    if found is None:
        raise ValueError(f"{path.name} has no section {heading!r}; correct the page that includes it.")
    return found[1].strip()


def pieces(markdown: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """The text of a page and what it includes, each with the folder that its links start from."""
    end = 0
    for match in INCLUDE.finditer(markdown):
        yield markdown[end : match.start()], folder
        if match[3]:
            yield cost_table(), MODEL_CARDS
        else:
            path = ROOT / match[1]
            yield section(path, match[2]), path.parent
        end = match.end()
    yield markdown[end:], folder


def targets(markdown: str, folder: Path) -> Iterator[Path]:
    """What the relative links of a text lead to, in the repository; paths that only the site has are under PAGES."""
    for match in LINK.finditer(markdown):
        if not SCHEME.match(match[3]):
            yield _resolve(folder, match[3])


def _resolve(folder: Path, target: str) -> Path:
    path = (folder / target).resolve()
    uri = path.relative_to(PAGES).as_posix() if path.is_relative_to(PAGES) else None
    return ROOT / ELSEWHERE[uri] if uri in ELSEWHERE else path


class Rewriter:
    """
    Leads links to where the site has their targets.

    Args:
        uri (`str`): The page that they are on.

    Attributes:
        attached (`dict[str, Path]`): Files of the repository that the site needs, by where they go.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.attached: dict[str, Path] = {}
        self._pages = {ROOT / source: page for page, source in ELSEWHERE.items()}
        self._pages[ROOT / "README.md"] = "index.md"

    def rewrite(self, markdown: str, folder: Path) -> str:
        """Returns a text whose links started from a folder of the repository as the page needs it."""

        def replace(match: re.Match[str]) -> str:
            mark, label, target, anchor = match[1], match[2], match[3], match[4] or ""
            if SCHEME.match(target):
                return match[0]
            path = _resolve(folder, target)
            if path.is_dir():
                return label  # a site has no listings of folders
            place = posixpath.relpath(self._place(path), posixpath.dirname(self.uri) or ".")
            return f"{mark}[{label}]({place}{anchor})"

        return LINK.sub(replace, markdown)

    def _place(self, path: Path) -> str:
        """Where the site has a file of the repository."""
        if path in self._pages:
            return self._pages[path]
        if path.is_relative_to(PAGES):
            return path.relative_to(PAGES).as_posix()
        uri = f"files/{path.relative_to(ROOT).as_posix()}"
        if path.is_file():  # else mkdocs finds the broken link
            self.attached[uri] = path
        return uri
