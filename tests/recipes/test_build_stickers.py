"""Coloured pictures: what is held out shares neither class nor picture, and the same pictures give the same bytes."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_l3rs.errors import DataError
from hf_l3rs.tasks.images import load_image_dataset
from recipes.data import build_stickers
from recipes.data.build_stickers import PHASES, SPLITS


def draw(file: Path, number: int) -> None:
    """A disc of its own colour, with a transparent border."""
    rows, columns = np.ogrid[-1:1:20j, -1:1:20j]
    inside = rows**2 + columns**2 < 0.5
    pixels = np.zeros((20, 20, 4), np.uint8)
    pixels[inside] = (number % 256, number // 256, 128, 255)
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


def test_what_is_held_out_shares_no_class_and_no_picture(source, tmp_path):
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
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    build_stickers.main([name, str(target), "--source", str(folder)])
    assert before == {path.name: path.read_bytes() for path in target.iterdir()}


def test_no_two_images_of_a_picture_are_equal():
    rng = np.random.default_rng(0)
    picture = Image.new("RGBA", (40, 20), (255, 0, 0, 255))
    images = [build_stickers.render(picture, rng) for _ in range(10)]
    assert len({image.tobytes() for image in images}) == 10


def test_pictures_that_are_not_there_are_said(tmp_path):
    with pytest.raises(DataError, match="cannot be had"):
        build_stickers.main(["emoji", str(tmp_path / "out"), "--source", str(tmp_path)])
    with pytest.raises(DataError, match="food/fruit"):
        build_stickers.main(["stamps", str(tmp_path / "out"), "--source", str(tmp_path)])
