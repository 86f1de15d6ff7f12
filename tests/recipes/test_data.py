"""Rendered data sets: splits share no drawing, class or picture, and the same sources give the same bytes."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_l3rs.errors import DataError
from hf_l3rs.tasks.images import load_image_dataset
from recipes.data import build_digits, build_glyphs, build_stickers
from recipes.data.build_stickers import PHASES, SPLITS


DRAWINGS = Path(build_glyphs.__file__).parent / "glyph_drawings"
TASK_SPLITS = [name for name, split in build_glyphs.SPLITS.items() if split.classes == build_glyphs.LETTERS]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_glyphs_share_no_drawing_and_are_the_same_again(tmp_path, monkeypatch):
    few = {name: split._replace(count=2, classes=split.classes[:3]) for name, split in build_glyphs.SPLITS.items()}
    monkeypatch.setattr(build_glyphs, "SPLITS", few)
    noise = np.random.default_rng(0).integers(0, 256, (32, 36, 6, 6), np.uint8)
    masks = {f"family {number}": dict(enumerate(of_family)) for number, of_family in enumerate(noise)}
    drawings = build_glyphs.Drawings(masks, [str(number) for number in range(36)])
    with pytest.raises(DataError, match="3 font families are too few"):
        build_glyphs.build(tmp_path, drawings._replace(masks=dict(list(masks.items())[:3])))
    target = tmp_path / "glyphs"
    build_glyphs.build(target, drawings)
    rows = {name: load_image_dataset(target, split=name) for name in few}
    drawn = {name: set(zip(split["family"], split["label"])) for name, split in rows.items()}
    assert all(drawn[one].isdisjoint(drawn[other]) for one, other in combinations(drawn, 2))
    families = {name: set(rows[name]["family"]) for name in TASK_SPLITS}
    assert all(families[one].isdisjoint(families[other]) for one, other in combinations(TASK_SPLITS, 2))
    for name, split in few.items():
        assert sorted(rows[name]["label"]) == sorted(list(split.classes) * split.count)
        assert {(image.mode, image.size) for image in rows[name]["image"]} == {("RGB", (32, 32))}
    before = contents(target)
    build_glyphs.build(target, drawings)
    assert contents(target) == before and len(before) == len(few) + 1


def test_the_embedded_drawings_are_complete():
    drawings = build_glyphs.read_drawings(DRAWINGS)
    assert len(drawings.masks) == 64 and "".join(drawings.class_names) == "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for of_family in drawings.masks.values():
        assert sorted(of_family) == list(range(36))
        assert all(mask.shape == (48, 48) and mask.max() > 200 for mask in of_family.values())
    assert len({mask.tobytes() for of_family in drawings.masks.values() for mask in of_family.values()}) == 64 * 36


def test_digits_are_an_imagefolder(tmp_path):
    build_digits.main([str(tmp_path / "digits")])
    images = load_image_dataset(tmp_path / "digits")
    assert len(images) == 1797 and set(images["label"]) == set(range(10))


def draw(file: Path, number: int) -> None:
    """A disc of its own colour, with a transparent border."""
    rows, columns = np.ogrid[-1:1:20j, -1:1:20j]
    pixels = np.zeros((20, 20, 4), np.uint8)
    pixels[rows**2 + columns**2 < 0.5] = (number % 256, number // 256, 128, 255)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


@pytest.fixture(params=["emoji", "stamps"])
def source(request, tmp_path, monkeypatch):
    """A domain's name and a folder as its package is, with four pictures a group; few images are rendered."""
    monkeypatch.setattr(build_stickers, "IMAGES", {"pretrain": 3, "pretrain_test": 1, "batches": 4, "eval": 2})
    phases = build_stickers.DOMAINS[request.param].phases
    groups = [*(name for names in phases.values() for name in names), "other/alone", "other"]
    rows = []
    for number, (group, index) in enumerate((group, index) for group in groups for index in range(4)):
        if request.param == "stamps":
            draw(tmp_path / "usr/share/tuxpaint/stamps" / group / f"{index}.png", number)
            continue
        row = {"short_name": f"{group} {index}", "subcategory": group, "category": "any", "has_img_google": True}
        rows.append({**row, "image": f"{number}.png"})
        draw(tmp_path / "package/img/google/64" / f"{number}.png", number)
    if rows:
        (tmp_path / "package" / "emoji.json").write_text(json.dumps(rows))
    return request.param, tmp_path


def test_stickers_share_no_class_and_no_picture_and_are_the_same_again(source, tmp_path):
    name, folder = source
    target = tmp_path / "out"
    build_stickers.main([name, str(target), "--source", str(folder)])
    splits = {split: load_image_dataset(target, split=split) for split in SPLITS}
    labels = {split: set(rows["label"]) for split, rows in splits.items()}
    pictures = {split: set(rows["picture"]) for split, rows in splits.items()}
    for one, other in combinations([*PHASES, "pretrain"], 2):
        for left, right in ((a, b) for a in SPLITS if a.startswith(one) for b in SPLITS if b.startswith(other)):
            assert labels[left].isdisjoint(labels[right]) and pictures[left].isdisjoint(pictures[right])
    for phase in PHASES:
        assert labels[f"{phase}_batches"] == labels[f"{phase}_eval"]
        images = [{image.tobytes() for image in splits[f"{phase}_{part}"]["image"]} for part in ("batches", "eval")]
        assert images[0].isdisjoint(images[1])
        assert len(labels[f"{phase}_eval"]) == len(build_stickers.DOMAINS[name].phases[phase])
    assert labels["pretrain"] == labels["pretrain_test"] and len(labels["pretrain"]) == 8
    assert {(image.mode, image.size) for image in splits["test_eval"]["image"]} == {("RGB", (64, 64))}
    before = contents(target)
    build_stickers.main([name, str(target), "--source", str(folder)])
    assert contents(target) == before


@pytest.mark.parametrize("domain, said", [("emoji", "cannot be had"), ("stamps", "food/fruit")])
def test_pictures_that_are_not_there_are_said(domain, said, tmp_path):
    with pytest.raises(DataError, match=said):
        build_stickers.main([domain, str(tmp_path / "out"), "--source", str(tmp_path)])
