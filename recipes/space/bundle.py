"""
Puts all that the app needs into one folder, a Hub Space that runs without this repository.

    python -m recipes.space.bundle outputs/space
    hf upload user/name outputs/space . --type space
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from hf_l3rs.cli.shell import run_script
from hf_l3rs.errors import StorageError
from hf_l3rs.settings import OptionParser


ROOT = Path(__file__).resolve().parents[2]
# What keeps its place.
PARTS = ("LICENSE", "hf_l3rs", "recipes/data/fashion_mnist", "recipes/demo.py", "recipes/evidence", "recipes/space")
PARTS += tuple(f"recipes/base_models/{model}-tiny-fashion" for model in ("resnet", "vit"))
PARTS += tuple(f"recipes/results/l3rs-{model}-tiny-fashion/rows.csv" for model in ("resnet", "vit"))
# What the Hub looks for at the root of a Space.
AT_ROOT = ("README.md", "app.py", "requirements.txt")


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
    try:
        for part in PARTS:
            source, target = ROOT / part, folder / part
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(source, target)
        for name in AT_ROOT:
            shutil.copyfile(ROOT / "recipes/space" / name, folder / name)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written ({error.strerror}); name another folder.") from error


def main(argv: list[str] | None = None) -> None:
    """Writes the Space into the folder that the command line names."""
    parser = OptionParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="made if absent")
    bundle(parser.parse_args(argv).folder)


if __name__ == "__main__":
    run_script(main)
