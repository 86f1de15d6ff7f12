"""
Writes scikit-learn's handwritten digits (1,797 images of 8 x 8; UCI, CC BY 4.0) as an imagefolder.

    python recipes/data/build_digits.py outputs/digits
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image


def main(folder: str) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    for index, (image, label) in enumerate(zip(digits.images, digits.target)):
        path = Path(folder) / "train" / str(label) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(path)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python recipes/data/build_digits.py FOLDER")
    try:
        main(sys.argv[1])
    except OSError as error:
        sys.exit(f"error: {sys.argv[1]} cannot be written ({error.strerror}); choose another folder.")
