"""The domain in colour: its splits share no drawing, and the same drawings give the same bytes."""

import runpy
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from hf_l3rs.errors import DataError
from hf_l3rs.tasks.images import load_image_dataset
from recipes.data import build_glyphs


CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "recipes" / "data" / "build_glyphs.py"
TASK_SPLITS = [name for name, split in build_glyphs.SPLITS.items() if split.classes == build_glyphs.LETTERS]


@pytest.fixture
def drawings(monkeypatch):
    """Drawings of noise, and splits of few images of them."""
    few = {name: split._replace(count=2, classes=split.classes[:3]) for name, split in build_glyphs.SPLITS.items()}
    monkeypatch.setattr(build_glyphs, "SPLITS", few)
    noise = np.random.default_rng(0).integers(0, 256, (32, 36, 6, 6), np.uint8)
    masks = {f"family {number}": dict(enumerate(of_family)) for number, of_family in enumerate(noise)}
    return build_glyphs.Drawings(masks, list(CHARACTERS))


def test_the_splits_share_no_drawing(drawings, tmp_path):
    build_glyphs.build(tmp_path / "glyphs", drawings)
    rows = {name: load_image_dataset(tmp_path / "glyphs", split=name) for name in build_glyphs.SPLITS}
    drawn = {name: set(zip(split["family"], split["label"])) for name, split in rows.items()}
    assert all(drawn[one].isdisjoint(drawn[other]) for one, other in combinations(drawn, 2))
    families = {name: set(rows[name]["family"]) for name in TASK_SPLITS}
    assert all(families[one].isdisjoint(families[other]) for one, other in combinations(TASK_SPLITS, 2))
    for name, split in build_glyphs.SPLITS.items():
        assert sorted(rows[name]["label"]) == sorted(list(split.classes) * split.count)
        assert {(image.mode, image.size) for image in rows[name]["image"]} == {("RGB", (32, 32))}


def test_the_same_drawings_give_the_same_bytes(drawings, tmp_path):
    made = []
    for _ in range(2):
        build_glyphs.build(tmp_path / "glyphs", drawings)
        made.append({path.name: path.read_bytes() for path in (tmp_path / "glyphs").iterdir()})
    assert made[0] == made[1] and len(made[0]) == len(build_glyphs.SPLITS) + 1


def test_glyphs_are_brighter_than_their_ground():
    mask = np.full((48, 48), 255, np.uint8)
    for seed in range(20):
        image = build_glyphs.render(mask, np.random.default_rng(seed)).astype(float) @ [0.299, 0.587, 0.114]
        assert image[12:20, 12:20].min() > image[[0, 0, -1, -1], [0, -1, 0, -1]].min() + 50


def test_too_few_families_are_refused(drawings, tmp_path):
    few = drawings._replace(masks=dict(list(drawings.masks.items())[:3]))
    with pytest.raises(DataError, match="3 font families are too few for 8 splits"):
        build_glyphs.build(tmp_path, few)


def test_the_embedded_drawings_are_complete():
    drawings = build_glyphs.read_drawings(ROOT / "recipes" / "data" / "glyph_drawings")
    assert len(drawings.masks) == 64 and drawings.class_names == list(CHARACTERS)
    for of_family in drawings.masks.values():
        assert sorted(of_family) == list(range(36))
        assert all(mask.shape == (48, 48) and mask.max() > 200 for mask in of_family.values())
    assert len({mask.tobytes() for of_family in drawings.masks.values() for mask in of_family.values()}) == 64 * 36


def test_a_mistake_ends_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["build_glyphs.py", str(tmp_path / "out"), "--drawings", str(tmp_path / "no")])
    with pytest.raises(SystemExit) as exit:
        runpy.run_path(str(SOURCE), run_name="__main__")
    assert str(exit.value.code).startswith("error: There is no folder")
