"""Draws digits and letters of 64 font families: the embedded drawings that build_glyphs.py renders images of.

    python recipes/data/draw_glyphs.py FONTS_FOLDER

`FONTS_FOLDER` gets the fonts, by `npm install` of the packages @fontsource/NAME in the versions below, unless it has
them: they are under the SIL Open Font License 1.1 or the Apache License 2.0. The result is a complete data set
repository of grey-scale masks, `recipes/data/glyph_drawings/`; with it, nobody needs fonts to build the images.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from hf_l3rs.files import write_files
from hf_l3rs.settings import OptionParser


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # recipes is not installed

from recipes.data.parquet import to_parquet


CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SIZE = 48  # pixels of a side
FAMILIES = """
abril-fatface alfa-slab-one annie-use-your-telescope anton architects-daughter archivo-black arvo audiowide bangers
black-ops-one bowlby-one-sc bree-serif bubblegum-sans bungee calistoga carter-one caveat-brush chewy cinzel comic-neue
courgette courier-prime covered-by-your-grace creepster crimson-text fjalla-one fredoka-one gloria-hallelujah
gochi-hand graduate handlee indie-flower jockey-one knewave lilita-one lobster luckiest-guy michroma mouse-memoirs
neucha old-standard-tt orbitron pacifico passion-one patrick-hand permanent-marker playfair-display prata
press-start-2p righteous rock-salt rubik-mono-one russo-one schoolbell share-tech-mono shrikhand sigmar-one
special-elite spicy-rice suez-one syncopate titan-one uncial-antiqua vt323
""".split()
VERSIONS = dict.fromkeys(FAMILIES, "5.3.0") | dict.fromkeys(("calistoga", "jockey-one", "mouse-memoirs"), "5.2.7")
# Of all font files, in the order of FAMILIES.
FONTS_SHA256 = "bb15334e104d63109214d41a486ca4c79e87e183712418dab952e25495d64dc8"

CARD = """\
---
license:
- ofl-1.1
- apache-2.0
pretty_name: Digits and letters of 64 font families
task_categories:
- image-classification
size_categories:
- 1K<n<10K
configs:
- config_name: default
  data_files:
  - split: train
    path: drawings.parquet
dataset_info:
  download_size: {num_bytes}
---

# Digits and letters of {count} font families

Each of the {characters} characters {first} to {last} in the regular weight of {count} families, as a mask of
{size}x{size} pixels that the character fills from border to border: {total:,} drawings, no two of them equal. `family`
names the family. `recipes/data/draw_glyphs.py` wrote this folder, and `recipes/data/build_glyphs.py` renders a data
set in colour of it.

The drawings are made with the fonts below, of the packages `@fontsource/NAME`, each under the licence of its row
(LICENSE has the text of the SIL Open Font License 1.1).

| family | version | licence | copyright |
|---|---|---|---|
{table}
"""


def install(folder: Path) -> None:
    """Has npm put the fonts into `folder`, unless they are there; npm checks what it gets against its own hashes."""
    if all((package(folder, family) / "package.json").exists() for family in FAMILIES):
        return
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"@fontsource/{family}@{version}" for family, version in VERSIONS.items()]
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)]
    subprocess.run(["npm", "install", *options, *names], check=True)


def package(folder: Path, family: str) -> Path:
    """Where npm puts a family."""
    return folder / "node_modules" / "@fontsource" / family


def font_file(folder: Path, family: str) -> Path:
    """The family's regular Latin font."""
    return package(folder, family) / "files" / f"{family}-latin-400-normal.woff2"


def check(folder: Path) -> None:
    """Raises `ValueError` if the fonts are not those that the drawings were made with."""
    data = b"".join(font_file(folder, family).read_bytes() for family in FAMILIES)
    digest = hashlib.sha256(data).hexdigest()
    if digest != FONTS_SHA256:
        raise ValueError(f"the fonts have SHA-256 {digest}, not {FONTS_SHA256}")


def draw(file: Path, character: str) -> np.ndarray:
    """A character of a font as a mask `(SIZE, SIZE)`, `uint8`, that it fills from border to border."""
    from PIL import Image, ImageDraw, ImageFont

    large = Image.new("L", (480, 480))
    ImageDraw.Draw(large).text((160, 160), character, fill=255, font=ImageFont.truetype(str(file), 120))
    glyph = large.crop(large.getbbox())
    scale = SIZE / max(glyph.size)
    glyph = glyph.resize([max(1, round(side * scale)) for side in glyph.size], Image.Resampling.LANCZOS)
    mask = Image.new("L", (SIZE, SIZE))
    mask.paste(glyph, ((SIZE - glyph.width) // 2, (SIZE - glyph.height) // 2))
    return np.asarray(mask)


def describe(folder: Path, family: str) -> str:
    """The family's row in the card's table."""
    licence = json.loads((package(folder, family) / "package.json").read_text())["license"]
    first = (package(folder, family) / "LICENSE").read_text().partition("\n")[0].strip()
    holder = first if first.startswith("Copyright") else ""
    return f"| {family} | {VERSIONS[family]} | {licence} | {holder.replace('|', ',')} |"


def build(folder: Path, target: Path) -> None:
    """Writes the data set repository `target` of the fonts in `folder`."""
    images, labels, families = [], [], []
    for family in FAMILIES:
        for label, character in enumerate(CHARACTERS):
            images.append(draw(font_file(folder, family), character))
            labels.append(label)
            families.append(family)
    licence = (package(folder, "lobster") / "LICENSE").read_text()
    data = to_parquet(images, labels, CHARACTERS, family=families)
    card = CARD.format(
        num_bytes=len(data),  # `datasets` goes by the card's head whether what it has prepared before still holds
        count=len(FAMILIES),
        characters=len(CHARACTERS),
        first=CHARACTERS[0],
        last=CHARACTERS[-1],
        size=SIZE,
        total=len(images),
        table="\n".join(describe(folder, family) for family in FAMILIES),
    )
    contents = {
        "drawings.parquet": data,
        "README.md": card.encode(),
        "LICENSE": licence[licence.index("-----") :].encode(),
    }
    write_files(target, contents)
    print(f"{target}: {len(images)} drawings, {sum(map(len, contents.values()))} bytes")


def main() -> None:
    parser = OptionParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fonts", type=Path, help="folder of the fonts; what it lacks is installed into it")
    parser.add_argument("--target", type=Path, default=Path(__file__).resolve().parent / "glyph_drawings")
    arguments = parser.parse_args()
    install(arguments.fonts)
    check(arguments.fonts)
    build(arguments.fonts, arguments.target)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: the fonts cannot be drawn ({error}); give an empty folder, with npm on the path.")
