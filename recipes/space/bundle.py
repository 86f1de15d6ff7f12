"""
Puts all that the app needs into one folder, a Hub Space that runs without this repository.

    python -m recipes.space.bundle outputs/space
    hf upload user/name outputs/space . --type space
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from hf_l3rs.errors import L3RSError, StorageError
from hf_l3rs.files import write_files
from hf_l3rs.settings import OptionParser


ROOT = Path(__file__).resolve().parents[2]

# What keeps its place: folders whole, and files.
FOLDERS = (
    "hf_l3rs",
    "model_cards",
    "recipes/base_models/resnet-tiny-fashion",
    "recipes/base_models/vit-tiny-fashion",
    "recipes/data/fashion_mnist",
    "recipes/evidence",
    "recipes/space",
)
FILES = (
    "LICENSE",
    "recipes/demo.py",
    "recipes/results/l3rs-resnet-tiny-fashion/search.csv",
    "recipes/results/l3rs-vit-tiny-fashion/search.csv",
)
# What the Hub looks for at the root of a Space.
AT_ROOT = ("README.md", "app.py", "requirements.txt")


def contents() -> Iterator[tuple[str, Path]]:
    """Yields every file of the Space: its name there, and where it is."""
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                yield file.relative_to(ROOT).as_posix(), file
    for name in FILES:
        yield name, ROOT / name
    for name in AT_ROOT:
        yield name, ROOT / "recipes/space" / name


def bundle(folder: Path) -> None:
    """
    Writes the Space.

    Args:
        folder (`Path`): Made if absent; it must be empty, as a Space holds nothing else.

    Raises:
        StorageError: If something is in it, or it cannot be written.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise StorageError(f"{folder} is not empty; remove it, or name another folder.")
    by_folder: dict[Path, dict[str, bytes]] = {}
    for name, file in contents():
        target = folder / name
        by_folder.setdefault(target.parent, {})[target.name] = file.read_bytes()
    for parent, files in by_folder.items():
        write_files(parent, files)


def main(argv: list[str] | None = None) -> None:
    """Writes the Space into the folder that the command line names."""
    parser = OptionParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="made if absent")
    bundle(parser.parse_args(argv).folder)


if __name__ == "__main__":
    try:
        main()
    except L3RSError as error:
        sys.exit(f"error: {error}")
