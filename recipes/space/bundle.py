"""
Puts all that the app needs into one folder, a Hub Space that runs without this repository.

    python -m recipes.space.bundle outputs/space
    hf upload user/name outputs/space . --type space
"""

from __future__ import annotations

import argparse
import shutil
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

from hf_l3rs.cli.main import run_script
from hf_l3rs.errors import StorageError
from hf_l3rs.files import write_files
from hf_l3rs.settings import OptionParser


ROOT = Path(__file__).resolve().parents[2]
SPACE = ROOT / "recipes/space"
# What keeps its place.
PARTS = ["LICENSE", "hf_l3rs", "recipes/data/fashion_mnist", "recipes/evidence", "recipes/space"]
PARTS += ["recipes/demo.py", "recipes/trajectories.py"]
for name in ("resnet-tiny-fashion", "vit-tiny-fashion"):
    PARTS += [f"recipes/base_models/{name}", f"recipes/results/l3rs-{name}/rows.csv"]


def requirements() -> list[str]:
    """What the package and the app need, as pip takes it."""
    needed, space = map(Requirement, requires("hf_l3rs") or []), {"extra": "space"}
    return [f"{each.name}{each.specifier}" for each in needed if not each.marker or each.marker.evaluate(space)]


def bundle(folder: Path) -> None:
    """Writes the Space into a folder, which is made if it is absent, and must be empty."""
    if folder.is_dir() and any(folder.iterdir()):
        raise StorageError(f"{folder} is not empty; remove it, or name another folder.")
    # what the Hub looks for at the root of a Space
    at_root = {name: (SPACE / name).read_bytes() for name in ("README.md", "app.py")}
    index = "--extra-index-url https://download.pytorch.org/whl/cpu"
    write_files(folder, {**at_root, "requirements.txt": "\n".join([index, *requirements(), ""]).encode()})
    for part in PARTS:
        source, target = ROOT / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)


def main(argv: list[str] | None = None) -> None:
    parser = OptionParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="made if absent")
    bundle(parser.parse_args(argv).folder)


if __name__ == "__main__":
    run_script(main)
