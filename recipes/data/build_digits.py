"""
Writes scikit-learn's handwritten digits (1,797 images of 8 x 8; UCI, CC BY 4.0) as an imagefolder.

    python recipes/data/build_digits.py outputs/digits
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from hf_l3rs.cli.main import run_script
from hf_l3rs.files import write_files
from hf_l3rs.settings import OptionParser


def main(argv: list[str] | None = None) -> None:
    from sklearn.datasets import load_digits

    parser = OptionParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, help="folder that the images go to")
    target = parser.parse_args(argv).target
    digits = load_digits()
    write_files(target, {})  # a folder that cannot be written is said now
    for index, (image, label) in enumerate(zip(digits.images, digits.target)):
        path = target / "train" / str(label) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(path)


if __name__ == "__main__":
    run_script(main)
