"""
Builds the documentation site, with no network: the READMEs, the cards, the pages beside this file, and the reference.

    python -m recipes.docs.build outputs/docs

All of them are Markdown that GitHub shows, too. The site has them at the places that they have in the repository.
"""

from __future__ import annotations

import argparse
import shutil
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import hf_l3rs
from hf_l3rs.cli.main import run_script
from hf_l3rs.errors import ConfigError
from hf_l3rs.settings import OptionParser


ROOT = Path(__file__).resolve().parents[2]
CONFIG = Path(__file__).parent / "mkdocs.yml"
SOURCES = (
    "*.md",
    "model_cards/**/*",
    "recipes/*.md",
    "recipes/configs/*",
    "recipes/results/**/*",
    "recipes/docs/pages/*",
)
KINDS = (".md", ".png", ".yaml")
REFERENCE = "reference.md"


def pages() -> list[Path]:
    """Returns the files of the site, pictures and settings files among them."""
    files = {path for pattern in SOURCES for path in ROOT.glob(pattern) if path.suffix in KINDS}
    return sorted(files)


def reference() -> str:
    """Returns a page that asks for the docstring of every public name, by room of the package."""
    rooms = defaultdict(list)
    for name in hf_l3rs.__all__:
        rooms[hf_l3rs._MODULES[name].split(".")[0]].append(name)
    parts = ["# Reference\n\nEverything public is importable from `hf_l3rs`."]
    for room in sorted(rooms):
        parts += [f"## {room.capitalize()}", *(f"::: hf_l3rs.{name}" for name in rooms[room])]
    return "\n\n".join(parts) + "\n"


def build(target: Path) -> None:
    """
    Builds the site.

    Raises:
        ConfigError: If mkdocs is not installed.
    """
    try:
        from mkdocs.commands.build import build as build_site
        from mkdocs.config import load_config
    except ImportError as error:
        raise ConfigError("The site needs mkdocs; install it with `pip install -e '.[docs]'`.") from error
    with TemporaryDirectory() as folder:
        for path in pages():
            place = Path(folder, path.relative_to(ROOT))
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        Path(folder, REFERENCE).write_text(reference(), encoding="utf-8")
        build_site(load_config(str(CONFIG), docs_dir=folder, site_dir=str(target.resolve())))


def main(argv: list[str] | None = None) -> None:
    parser = OptionParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the site goes; it is replaced")
    build(parser.parse_args(argv).folder)


if __name__ == "__main__":
    run_script(main)
