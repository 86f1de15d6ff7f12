"""What mkdocs calls: pages that the repository has elsewhere, parts of them, and files that pages show or link to."""

from __future__ import annotations

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # mkdocs loads this file by its path

from recipes.docs.links import ELSEWHERE, ROOT, Rewriter, pieces
from recipes.docs.notebook import to_page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are files of the repository elsewhere."""
    for uri, source in ELSEWHERE.items():
        path = ROOT / source
        if path.suffix == ".ipynb":
            files.append(File.generated(config, uri, content=to_page(path)))
        else:
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts in what the page includes, and leads links out of the pages' folder to where the site has their targets."""
    uri = page.file.src_uri
    source = ROOT / ELSEWHERE[uri] if uri in ELSEWHERE else Path(str(page.file.abs_src_path))
    rewriter = Rewriter(uri)
    text = "".join(rewriter.rewrite(piece, folder) for piece, folder in pieces(markdown, source.parent))
    for target, path in rewriter.attached.items():
        if files.get_file_from_path(target) is None:
            files.append(File.generated(config, target, abs_src_path=str(path)))
    return text
