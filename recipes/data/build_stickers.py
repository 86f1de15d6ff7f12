"""Renders two domains of coloured pictures at 64 pixels: emoji (Noto, Apache 2.0) and stamps (Tux Paint, GPL 2).

    python recipes/data/build_stickers.py emoji outputs/data/emoji
    python recipes/data/build_stickers.py stamps outputs/data/stamps

The pictures come from the npm package `emoji-datasource-google` and the Debian package `tuxpaint-stamps-default`,
which npm and apt-get fetch unless `--source` names a folder that has them. Each result is a complete data set
repository: one parquet file a split, and a card. In the splits `pretrain` and `pretrain_test` each picture is a class
of its own, for base models. The classes of tasks are kinds of things, with 9 to 66 pictures each. No class and no
picture is both in a split of meta-training, of validation or of test, nor in `pretrain`. A split and its counterpart,
such as `test_batches` and `test_eval`, have different images of the same pictures. On unseen pictures the loss would
rise during a run, as a dozen pictures of mammals do not show what a mammal is. It would measure overfitting.
Every image is its picture on a random ground, moved, turned, scaled, mirrored and recoloured, by a function of the
seed, the split, the class and the number of the image. The stamps' licence does not allow that they are embedded in
this package.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from hf_l3rs.cli.main import run_script
from hf_l3rs.errors import DataError
from hf_l3rs.settings import OptionParser


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # recipes is not installed

from recipes.data.repository import Split, write_repository


SIZE = 64  # pixels of a side
IMAGES = {"pretrain": 20, "pretrain_test": 2, "batches": 1500, "eval": 150}  # a class
PHASES = ("meta_train", "validation", "test")
SPLITS = ("pretrain", "pretrain_test", *(f"{phase}_{part}" for phase in PHASES for part in ("batches", "eval")))

# The groups of pictures that are classes of tasks; all other groups are for base models.
EMOJI = {
    "meta_train": (
        *("clothing", "tool", "household", "office", "game", "sport", "event", "book-paper", "light & video"),
        *("computer", "mail", "musical-instrument"),
    ),
    "validation": (
        *("sky & weather", "transport-ground", "transport-air", "time", "place-building", "place-other"),
        *("place-geographic", "transport-water"),
    ),
    "test": (
        *("animal-bird", "animal-bug", "animal-mammal", "animal-marine", "plant-flower", "plant-other"),
        *("food-asian", "food-fruit", "food-prepared", "food-sweet", "food-vegetable", "drink"),
    ),
}
STAMPS = {
    "meta_train": (
        *("food/fruit", "food/vegetables", "plants/flowers", "town/houses", "clothes", "household/tools"),
        *("household", "symbols/math", "symbols/alphabets/asl"),
    ),
    "validation": ("town/roadsigns", "vehicles", "seasonal/christmas", "seasonal/halloween", "plants"),
    "test": ("animals/birds", "animals/insects", "animals/mammals/bovines", "animals/mammals", "animals/fish"),
}

TEXT = """\
RGB images of {size}x{size} pixels: {pictures:,} pictures, each on random grounds, moved, turned, scaled, mirrored and
recoloured. In `pretrain` and `pretrain_test` each picture is a class; the other splits have kinds of things.
Meta-training, validation and test share no class and no picture, with each other or with `pretrain`. A split and its
counterpart, such as `test_batches` and `test_eval`, have different images of the same pictures.
`recipes/data/build_stickers.py` rendered them. {origin}"""

Groups = dict[str, dict[str, list[Path]]]  # group -> picture -> the files that show it


class Domain(NamedTuple):
    """Where pictures come from, and which of their groups are classes of tasks."""

    title: str
    licence: str
    origin: str
    phases: dict[str, tuple[str, ...]]
    fetch: Callable[[Path], None]
    read: Callable[[Path], Groups]


def fetch_emoji(folder: Path) -> None:
    """Has npm fetch the package, and unpacks it."""
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), "emoji-datasource-google@16.0.0"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["tar", "xzf", *folder.glob("*.tgz"), "-C", folder], check=True)


def read_emoji(folder: Path) -> Groups:
    """The subcategories of emoji; skin tones are further files of one picture."""
    groups: Groups = defaultdict(dict)
    root = folder / "package"
    for row in json.loads((root / "emoji.json").read_text()):
        shown = [row, *row.get("skin_variations", {}).values()]
        files = [root / "img" / "google" / "64" / each["image"] for each in shown if each["has_img_google"]]
        if files and row["category"] != "Component":
            groups[row["subcategory"]][row["short_name"]] = files
    return groups


def fetch_stamps(folder: Path) -> None:
    """Has apt-get fetch the package, and unpacks it; nothing is installed."""
    subprocess.run(["apt-get", "download", "-qq", "tuxpaint-stamps-default"], check=True, cwd=folder)
    subprocess.run(["dpkg-deb", "-x", *folder.glob("*.deb"), folder], check=True)


def read_stamps(folder: Path) -> Groups:
    """The stamps by folder; a folder without a name among the classes goes to the nearest one above it that has."""
    groups: Groups = defaultdict(dict)
    root = folder / "usr" / "share" / "tuxpaint" / "stamps"
    classes = {name for names in STAMPS.values() for name in names}
    for file in sorted(root.rglob("*.png")):
        place = file.parent.relative_to(root)
        above = (str(each) for each in (place, *place.parents))
        group = next((each for each in above if each in classes), str(place))
        groups[group][str(file.relative_to(root).with_suffix(""))] = [file]
    return groups


DOMAINS = {
    "emoji": Domain(
        title="Emoji",
        licence="apache-2.0",
        origin="The pictures are Noto's, Copyright Google, under the Apache 2.0 licence, of the npm package "
        "`emoji-datasource-google` 16.0.0.",
        phases=EMOJI,
        fetch=fetch_emoji,
        read=read_emoji,
    ),
    "stamps": Domain(
        title="Tux Paint's stamps",
        licence="gpl-2.0",
        origin="The pictures are of the Debian package `tuxpaint-stamps-default`, Copyright 2002-2022 Bill Kendrick "
        "and others, under the GPL 2.",
        phases=STAMPS,
        fetch=fetch_stamps,
        read=read_stamps,
    ),
}


def render(picture: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """A picture with transparency on a ground, both varied at random: `(SIZE, SIZE, 3)`, `uint8`."""
    if rng.random() < 0.5:
        picture = ImageOps.mirror(picture)
    side = rng.uniform(0.6, 0.95) * SIZE
    scale = side / max(picture.size)
    stretch = rng.uniform(0.85, 1.0, 2)
    picture = picture.resize([max(1, round(each * scale * s)) for each, s in zip(picture.size, stretch)])
    picture = picture.rotate(rng.uniform(-20, 20), Image.Resampling.BICUBIC, expand=True)
    play = ((np.array([SIZE, SIZE]) - picture.size) / 2).astype(int)
    left, top = (play + np.round(rng.uniform(-1, 1, 2) * (np.abs(play) + 2))).astype(int).tolist()
    # Two colours that flow into each other, and specks: no colour tells which class it is.
    ends = rng.integers(0, 256, (2, 2, 2, 3)).astype(np.uint8)
    ground = Image.fromarray(ends[0]).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    specks = Image.fromarray(rng.integers(0, 256, (SIZE // 4, SIZE // 4, 3), np.uint8)).resize((SIZE, SIZE))
    ground = Image.blend(ground, specks, rng.uniform(0, 0.25))
    ground.paste(picture, (left, top), picture)
    pixels = np.asarray(ground).astype(np.float32)
    grey = pixels.mean(-1, keepdims=True)
    saturation, contrast, brightness = rng.uniform(0.6, 1.3), rng.uniform(0.7, 1.2), rng.uniform(-25, 25)
    tint = rng.uniform(0.9, 1.1, 3)
    pixels = ((grey + saturation * (pixels - grey)) * tint - 128) * contrast + 128 + brightness
    return pixels.clip(0, 255).astype(np.uint8)


def share_out(groups: Groups, phases: dict[str, tuple[str, ...]]) -> dict[str, Groups]:
    """
    Split -> its classes, each with its pictures.

    Raises:
        DataError: If a class has no picture.
    """
    used = {name for names in phases.values() for name in names}
    alone = {
        f"{group}/{name}": {name: files}
        for group in sorted(groups.keys() - used)
        for name, files in groups[group].items()
    }
    splits: dict[str, Groups] = {"pretrain": alone, "pretrain_test": alone}
    for phase, names in phases.items():
        for name in names:
            if not groups.get(name):
                raise DataError(f"The class {name!r} has no picture; the source must be complete.")
        splits[f"{phase}_batches"] = splits[f"{phase}_eval"] = {name: groups[name] for name in names}
    return splits


def open_picture(file: Path) -> Image.Image:
    """A file's picture without its empty border, at most twice as large as it is rendered."""
    picture = Image.open(file).convert("RGBA")
    picture = picture.crop(picture.getchannel("A").getbbox())
    picture.thumbnail((2 * SIZE, 2 * SIZE))
    return picture


def build(target: Path, domain: Domain, groups: Groups) -> None:
    """Writes the data set repository `target`."""
    shared = share_out(groups, domain.phases)
    # A class has one number in all splits.
    class_names = [*(name for names in domain.phases.values() for name in names), *shared["pretrain"]]
    numbers = {name: number for number, name in enumerate(class_names)}
    splits = {}
    for split in SPLITS:
        classes = {
            numbers[name]: {picture: [open_picture(file) for file in files] for picture, files in pictures.items()}
            for name, pictures in shared[split].items()
        }
        splits[split] = Split(classes, IMAGES.get(split) or IMAGES[split.rpartition("_")[2]])
    write_repository(
        target,
        splits,
        class_names,
        render,
        column="picture",
        licence=domain.licence,
        title=domain.title,
        text=TEXT.format(size=SIZE, pictures=sum(map(len, groups.values())), origin=domain.origin),
    )


def main(argv: list[str] | None = None) -> None:
    parser = OptionParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domain", choices=DOMAINS, help="which pictures")
    parser.add_argument("target", type=Path, help="folder that the data set goes to")
    parser.add_argument("--source", type=Path, help="folder of the unpacked package; it is fetched by default")
    arguments = parser.parse_args(argv)
    domain = DOMAINS[arguments.domain]
    with tempfile.TemporaryDirectory() as temporary:
        source = arguments.source or Path(temporary)
        try:
            if arguments.source is None:
                domain.fetch(source)
            groups = domain.read(source)
        except (OSError, subprocess.CalledProcessError) as error:
            raise DataError(
                f"The pictures cannot be had ({error}); fetch and unpack the package, see --source."
            ) from error
        build(arguments.target, domain, groups)


if __name__ == "__main__":
    run_script(main)
