"""
Renders the third image domain: digits and letters of many fonts, in colour, on cluttered grounds.

    python recipes/data/build_glyphs.py outputs/glyphs

The result is a complete data set repository of 32x32 RGB images, a parquet file a split and a card, in about a minute.
Digits are for base models, letters for the tasks that they are fine-tuned to. No drawing is in two splits, and among
those of letters no font family is. The same drawings (`recipes/data/glyph_drawings`) and versions of Pillow and
pyarrow give the same bytes.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from hf_l3rs.cli.main import run_script
from hf_l3rs.errors import DataError
from hf_l3rs.settings import OptionParser
from hf_l3rs.tasks.images import load_image_dataset


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # recipes is not installed

from recipes.data.repository import SEED, Split, write_repository


SIZE = 32  # pixels of a side
CANVAS = 128  # what is drawn on, before it is averaged to SIZE
DIGITS, LETTERS = range(0, 10), range(10, 36)


class Recipe(NamedTuple):
    """What a split is made of: classes, font families (from, to, in 64ths of all), images a class."""

    classes: range
    families: tuple[int, int]
    count: int


SPLITS = {
    "pretrain": Recipe(DIGITS, (0, 48), 1000),
    "pretrain_test": Recipe(DIGITS, (48, 64), 200),
    "meta_train_batches": Recipe(LETTERS, (0, 20), 500),
    "meta_train_eval": Recipe(LETTERS, (20, 28), 150),
    "validation_batches": Recipe(LETTERS, (28, 38), 250),
    "validation_eval": Recipe(LETTERS, (38, 44), 100),
    "test_batches": Recipe(LETTERS, (44, 56), 300),
    "test_eval": Recipe(LETTERS, (56, 64), 150),
}

TEXT = f"""\
RGB images of {SIZE}x{SIZE} pixels: one of 36 characters, bright on a dark ground with up to three shapes of clutter,
at a random size, place and angle, in random colours. The drawings' font families are shared out over the splits of the
letters, so that a learned optimizer, the search for baselines and the final measurement share no family. A base model
is trained on the digits, whose drawings are in no other split. The families' licences (SIL Open Font License 1.1,
Apache License 2.0) are in the card of the drawings, `recipes/data/glyph_drawings`. `recipes/data/build_glyphs.py`
wrote this folder."""


class Drawings(NamedTuple):
    """Masks by font family and label, each `(height, width)` `uint8`; and what the labels stand for."""

    masks: dict[str, dict[int, np.ndarray]]
    class_names: list[str]


def read_drawings(folder: Path) -> Drawings:
    """
    Reads the embedded drawings.

    Raises:
        DataError: If the folder cannot be read.
    """
    dataset = load_image_dataset(folder)
    masks: dict[str, dict[int, np.ndarray]] = {}
    for row in dataset:
        masks.setdefault(row["family"], {})[row["label"]] = np.asarray(row["image"])
    return Drawings(masks, dataset.features["label"].names)


def share_out(families: list[str]) -> dict[str, list[str]]:
    """
    Split -> its font families, a piece of one random order of all.

    Raises:
        DataError: If there are too few for every split to have one.
    """
    order = np.random.Generator(np.random.PCG64(SEED)).permutation(sorted(families)).tolist()
    bounds = {name: [round(end * len(order) / 64) for end in split.families] for name, split in SPLITS.items()}
    pieces = {name: order[start:stop] for name, (start, stop) in bounds.items()}
    if not all(pieces.values()):
        raise DataError(f"{len(order)} font families are too few for {len(SPLITS)} splits; give drawings of more.")
    return pieces


def draw_colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A bright and a dark colour, whose luminances differ by at least 100 of 255."""
    while True:
        bright, dark = rng.integers(100, 256, 3), rng.integers(0, 110, 3)
        if (bright - dark) @ [0.299, 0.587, 0.114] >= 100:
            return bright, dark


def draw_clutter(image: Image.Image, ground: np.ndarray, rng: np.random.Generator) -> None:
    """Puts up to three rectangles, ellipses and lines, in colours near the ground's, on the image."""
    pen = ImageDraw.Draw(image)
    for _ in range(rng.integers(4)):
        colour = tuple((0.7 * ground + 0.3 * rng.integers(0, 200, 3)).astype(int).tolist())
        left, top = rng.integers(-20, CANVAS, 2).tolist()
        width, height, thickness = (*rng.integers(16, 72, 2).tolist(), int(rng.integers(4, 12)))
        box = (left, top, left + width, top + height)
        kind = rng.integers(3)
        if kind == 0:
            pen.rectangle(box, fill=colour)
        elif kind == 1:
            pen.ellipse(box, fill=colour)
        else:
            pen.line(box, fill=colour, width=thickness)


def render(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A drawing in colour, on clutter, at a random size, place and angle: `(SIZE, SIZE, 3)`, `uint8`."""
    bright, ground = draw_colours(rng)
    image = Image.new("RGB", (CANVAS, CANVAS), tuple(ground.tolist()))
    draw_clutter(image, ground, rng)
    side = int(rng.integers(96, 124))
    glyph = Image.fromarray(mask).resize((side, side), Image.Resampling.BICUBIC)
    glyph = glyph.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC, expand=True)
    # A rotated glyph may lose a corner of its box, which is empty for most.
    left, top = ((CANVAS - glyph.width) // 2, (CANVAS - glyph.height) // 2)
    play = (CANVAS - side) // 2 + 4
    across, down = rng.integers(-play, play + 1, 2).tolist()
    image.paste(tuple(bright.tolist()), (left + across, top + down), glyph)
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX))


def build(target: Path, drawings: Drawings) -> None:
    """Writes the data set repository `target`."""
    pieces = share_out(list(drawings.masks))
    splits = {
        name: Split(
            {label: {family: [drawings.masks[family][label]] for family in pieces[name]} for label in recipe.classes},
            recipe.count,
        )
        for name, recipe in SPLITS.items()
    }
    write_repository(
        target,
        splits,
        drawings.class_names,
        render,
        column="family",
        licence="apache-2.0",
        title="Coloured glyphs",
        text=TEXT,
    )


def main(argv: list[str] | None = None) -> None:
    parser = OptionParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, help="folder that the data set goes to")
    parser.add_argument("--drawings", type=Path, default=Path(__file__).resolve().parent / "glyph_drawings")
    arguments = parser.parse_args(argv)
    build(arguments.target, read_drawings(arguments.drawings))


if __name__ == "__main__":
    run_script(main)
